"""`find_lr=true`: the configured rate stays unless another trains clearly better."""

import csv
import json
import math

import lightning as L
import pytest
import torch
from helpers import composed, run_training

from src.engine import find_lr as module
from src.engine.find_lr import SHORT_STEPS, find_lr
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
    monkeypatch.setattr(module, "SHORT_STEPS", 30)


def test_a_rate_that_is_better_than_a_bad_one(tmp_path, caplog):
    caplog.set_level("INFO")
    rate = run_find_lr(tmp_path, "optimizer=adamw", "optimizer.lr=1e-6")
    assert 1e-4 < rate < 0.1
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "completed" and results["lr"] == rate
    losses = {row["lr"]: row["val_loss"] for row in results["short_trainings"]}
    assert results["configured"] == 1e-6 and len(losses) == 3
    for new, old in zip(losses[rate], losses[1e-6], strict=True):  # two seeds
        assert new < 0.9 * old
    assert "is clearly better than the configured 1e-06" in caplog.text
    command = caplog.messages[-2]
    assert command.startswith("python train.py model=lenet data.image_size=16")
    assert command.endswith(f"optimizer=adamw optimizer.lr={rate:g}")
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


@pytest.mark.parametrize(
    "losses",
    [[0.5, 0.46, math.inf], [0.5, 0.3, 0.4, 0.5, 0.46], [math.inf] * 3],
    ids=["slightly better", "better with one seed only", "none trains"],
)
def test_the_configured_rate_stays(losses, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    left = iter(losses)
    monkeypatch.setattr(module, "_short_training", lambda *_: next(left))
    cfg = composed([*SMALL, "optimizer=adamw"])
    assert module._compare(cfg, tmp_path, [0.1, 0.01])[0] == 0.001
    assert list(left) == []
    assert "optimizer.lr=0.001 stays: no other rate is clearly better." in caplog.text


def test_a_short_training_keeps_the_shape_of_the_schedule(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_fit", lambda settings, _: seen.append(settings) or 1 / 0)
    for own in (
        ["trainer.max_epochs=5", "trainer.accumulate_grad_batches=2"],
        ["trainer.limit_train_batches=2", "trainer.max_steps=7", "scheduler=plateau"],
    ):
        with pytest.raises(ZeroDivisionError):
            module._short_training(composed([*SMALL, *own]), tmp_path, 0.01, 3)
    first, second = seen
    assert (first.trainer.limit_train_batches, first.trainer.max_steps) == (12, 30)
    assert first.trainer.max_epochs == 5 and first.scheduler.step_size == 4
    assert first.seed == first.callbacks.step_seed.seed == 3 and first.optimizer.lr == 0.01
    assert (second.trainer.limit_train_batches, second.trainer.max_steps) == (2, 7)
    assert second.scheduler is None  # it needs validations on the way


def test_short_trainings_with_one_seed_are_equal(tmp_path):
    cfg = composed([*SMALL, "optimizer=adamw", "trainer.max_steps=3"])
    first, second, other = (module._short_training(cfg, tmp_path, 0.01, i) for i in (0, 0, 1))
    assert first == second != other


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_lenet_on_the_digits_keeps_a_rate_that_trains(seed, tmp_path, monkeypatch):
    """The range test alone suggests 0.14 by its steepest slope: accuracy 0.10 to 0.31."""
    monkeypatch.setattr(module, "SHORT_STEPS", SHORT_STEPS)
    lenet = ["model=lenet", "data=digits", "trainer.accelerator=cpu", f"seed={seed}"]
    cfg = composed(lenet)
    accuracies = {
        lr: run_training(tmp_path / str(lr), *lenet, f"optimizer.lr={lr}")["test"]["acc"]
        for lr in {cfg.optimizer.lr, find_lr(cfg, lenet, tmp_path / "find_lr")}
    }
    assert min(accuracies.values()) > accuracies[0.02] - 0.02 and accuracies[0.02] > 0.95


def test_a_range_without_a_good_rate(tmp_path):
    settings = ["lr_finder.num_steps=20", "lr_finder.min_lr=50", "lr_finder.max_lr=1e4"]
    with pytest.raises(UserError, match="The loss does not fall at rates") as caught:
        run_find_lr(tmp_path, *settings)
    assert "lr_finder.min_lr=0.05" in caught.value.remedy
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
