"""`find_lr=true`: a suggestion that trains, confirmed by a short training."""

import csv
import json

import lightning as L
import pytest
import torch
from helpers import composed

from src.engine import find_lr as module
from src.engine.find_lr import find_lr
from src.errors import UserError

SMALL = [
    "model=lenet",
    "data.image_size=16",
    "data.batch_size=64",
    "trainer.accelerator=cpu",
    "lr_finder.num_steps=100",
]


def run_find_lr(folder, *typed: str) -> float:
    typed = [*SMALL, *typed]
    return find_lr(composed(typed), ["find_lr=true", *typed], folder)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "CONFIRM_STEPS", 30)


def test_a_suggestion_that_is_better_than_a_bad_rate(tmp_path, caplog):
    caplog.set_level("INFO")
    rate = run_find_lr(tmp_path, "optimizer=adamw", "optimizer.lr=1e-6")
    assert 1e-4 < rate < 0.1
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "completed" and results["suggestion"] == rate
    suggested, configured = results["suggested"], results["configured"]
    assert configured["lr"] == 1e-6 and suggested["val_loss"] < configured["val_loss"]
    assert "not better" not in caplog.text
    command = caplog.messages[-2]
    assert command.startswith("python train.py model=lenet data.image_size=16")
    assert command.endswith(f"optimizer=adamw optimizer.lr={rate:.2g}")
    assert "lr_finder" not in command and "1e-6" not in command

    names = {path.name for path in tmp_path.iterdir()} - {".run.lock"}
    expected = {"lr_finder.csv", "lr_finder.png", "config.yaml", "run.json", "results.json"}
    assert names == expected  # no checkpoint
    with open(tmp_path / "lr_finder.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["lr"]) for row in rows]
    assert rates[0] == pytest.approx(1e-6) and rates == sorted(rates)
    # The loss of the first step is that of an untrained network, not a part of it.
    assert float(rows[0]["loss"]) == pytest.approx(2.3026, abs=0.1)


def test_a_suggestion_that_is_not_better_is_reported(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    losses = iter([0.5, 0.4])
    monkeypatch.setattr(module, "_short_training", lambda cfg, folder, lr: next(losses))
    run_find_lr(tmp_path, "optimizer=adamw")
    assert "0.5000 with the suggestion, 0.4000 with the configured 0.001" in caplog.text
    assert "The suggestion is not better than optimizer.lr=0.001." in caplog.text


def test_both_short_trainings_have_the_same_seed(tmp_path):
    cfg = composed([*SMALL, "optimizer=adamw"])
    first, second = (module._short_training(cfg, tmp_path, 0.01) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["lr_finder.min_lr=50", "lr_finder.max_lr=1e4"], "lr_finder.min_lr=0.05"),
        (["lr_finder.max_lr=2e-6"], "lr_finder.max_lr=10 lr_finder.num_steps=60"),
    ],
)
def test_a_range_without_a_good_rate(settings, words, tmp_path):
    with pytest.raises(UserError, match="No learning rate can be suggested") as caught:
        run_find_lr(tmp_path, "lr_finder.num_steps=20", *settings)
    assert words in caught.value.remedy
    assert (tmp_path / "lr_finder.csv").is_file()
    assert json.loads((tmp_path / "results.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("settings", [["lr_finder.min_lr=20"], ["lr_finder.num_steps=5"]])
def test_an_impossible_range(settings, tmp_path):
    with pytest.raises(UserError, match="is not possible"):
        run_find_lr(tmp_path / "run", *settings)
    assert not (tmp_path / "run").exists()


def test_parameter_groups_keep_the_ratios_of_their_rates_and_accumulated_losses_are_averaged():
    seen = []

    class Task(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

        def configure_optimizers(self):
            groups = [{"params": self.first.parameters(), "lr": 1e-4}]
            return torch.optim.SGD([*groups, {"params": self.second.parameters()}], lr=1e-3)

        def training_step(self, batch, batch_idx):
            seen.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])
            return {"loss": (0 * self.second(self.first(batch))).sum() + 1.0 + batch_idx % 2}

    test = module.LRRangeTest(1e-3, 1e-1, 3)
    trainer = L.Trainer(
        max_steps=3, max_epochs=-1, accumulate_grad_batches=2, accelerator="cpu", logger=False,
        callbacks=[test], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Task(), torch.utils.data.DataLoader(torch.zeros(6, 1)))
    assert test.rates == pytest.approx([1e-3, 1e-2, 1e-1]) and test.losses == [1.5] * 3
    assert torch.tensor(seen[::2]).T.tolist()[0] == pytest.approx([1e-4, 1e-3, 1e-2])
