"""Parts that meet: runs whose folder was moved, averages and resuming, a folder that is taken, checkpoints from elsewhere."""

import csv
import shutil
import sys

import lightning as L
import pytest
import torch
from conftest import assert_two_lines, composed, run_script, run_training

from src import measures
from src.build import build
from src.callbacks import EMA, SWA
from src.errors import UserError
from src.evaluation import evaluate
from src.models import SimpleV3
from src.tasks.predictions import Predictions

SMALL = ["model=lenet", "data.image_size=16", "trainer.limit_train_batches=6", "optimizer.lr=0.05", "scheduler=constant"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interactions") / "run"
    run_training(folder, *SMALL, "trainer.max_epochs=2", "callbacks.ema.enabled=true")
    return folder


def test_a_moved_run_keeps_its_best_checkpoint(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    last = moved / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    (best,) = [state for name, state in content["callbacks"].items() if name.startswith("BestCheckpoint")]
    best["best_model_score"] = best["kth_value"] = torch.tensor(0.0)  # nothing to come can be better
    best["best_k_models"] = {path: torch.tensor(0.0) for path in best["best_k_models"]}
    torch.save(content, last)
    before = (moved / "checkpoints" / "best.ckpt").read_bytes()
    results = run_training(moved, *SMALL, "trainer.max_epochs=3", "callbacks.ema.enabled=true", f"resume={last}")
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == before and results["best_epoch"] < 2
    with open(moved / "metrics.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]


@pytest.mark.parametrize("change", ["task.freeze_backbone=true", "task.decay_norm_and_bias=false", "callbacks.ema.enabled=false"])
def test_a_resumed_run_keeps_what_its_checkpoint_rests_on(run, change):
    before = (run / "results.json").read_bytes()
    options = [*SMALL, "trainer.max_epochs=3", "callbacks.ema.enabled=true", change]
    with pytest.raises(UserError, match=change.split("=")[0]):
        run_training(run, *options, f"resume={run}/checkpoints/last.ckpt")
    assert (run / "results.json").read_bytes() == before


def test_weighted_classes_averages_and_metrics_with_buffers_of_their_own(tmp_path):
    """Lightning copies and swaps buffers by their place in the list."""
    options = ["data.balance=loss", "callbacks.ema.enabled=true", "metrics=auroc", "metrics.auroc.thresholds=20", "trainer.max_epochs=1"]
    results = run_training(tmp_path, *SMALL, *options)
    assert 0.5 < results["val"]["auroc"] < 1


@pytest.mark.parametrize("average", [EMA(), SWA()])
def test_averages_take_whole_numbers_for_what_they_are(average):
    average._share = 0.5
    count = torch.tensor(3)
    assert average._kwargs["avg_fn"] == average._average  # torch's own way on a GPU cannot
    assert torch.equal(average._average(count, torch.tensor(5), torch.tensor(1)), torch.tensor(5))
    assert torch.equal(average._average(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(1)), torch.tensor(1.5))


@pytest.mark.parametrize("change", ["callbacks.best=null", "callbacks.last=null"])
def test_a_run_without_its_checkpoints_is_refused_before_it_trains(change, tmp_path):
    with pytest.raises(UserError, match="There is no callback that keeps"):
        run_training(tmp_path, *SMALL, "trainer.max_epochs=1", change)
    assert not (tmp_path / "metrics.csv").exists()


def test_half_precision_without_a_gpu_is_refused_in_evaluation_too(tmp_path):
    run_training(tmp_path / "run", *SMALL, "trainer.max_epochs=1")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["description"]["config"]["trainer"]["precision"] = "16-mixed"
    torch.save(content, path)
    typed = ["trainer.accelerator=cpu", f"ckpt={path}"]
    with pytest.raises(UserError, match="16-mixed needs a GPU") as told:
        evaluate(composed(typed, "evaluate"), tmp_path / "out")
    assert "32-true" in told.value.remedy
    assert 0 < evaluate(composed([*typed, "trainer.precision=32-true"], "evaluate"), tmp_path / "again")["acc"] < 1


LOOKS = """
import torch
from torch import nn


class Looks(nn.Module):
    def __init__(self, in_channels, num_classes, dropout):
        super().__init__()
        self.layer = nn.Linear(in_channels, num_classes)

    def forward(self, images):
        assert {look} is not None
        return self.layer(images.mean((2, 3)))
"""


@pytest.mark.parametrize("look", ["float(images.abs().max())", "(images + torch.ones(images.shape, device='cpu'))", "images.numpy()"])
def test_a_network_that_looks_at_its_numbers_is_tried_on_real_ones(look, tmp_path, monkeypatch):
    (tmp_path / "looks.py").write_text(LOOKS.format(look=look))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "looks", raising=False)
    _, task = build(composed(["model._target_=looks.Looks"]))
    assert type(task.model).__name__ == "Looks"


def test_trying_a_network_draws_nothing():
    L.seed_everything(0, verbose=False)
    plain = SimpleV3(1, 10).state_dict()
    L.seed_everything(0, verbose=False)
    _, task = build(composed([]))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in task.model.state_dict().items())


def test_the_best_epoch_is_that_of_the_metric_that_was_asked_for(tmp_path, caplog):
    options = ["callbacks.best.monitor=val/acc_balanced", "callbacks.best.mode=max", "trainer.max_epochs=4", "optimizer.lr=0.2"]
    with caplog.at_level("INFO"):
        results = run_training(tmp_path, *SMALL, *options)
    with open(tmp_path / "metrics.csv", newline="") as file:
        values = [float(row["val/acc_balanced"]) for row in csv.DictReader(file)]
    assert values[results["best_epoch"]] == max(values) and results["monitor"] == "val/acc_balanced"
    assert f"chosen by val/acc_balanced {max(values):.4f}" in caplog.text
    assert "by val/acc_balanced" in (tmp_path / "report.html").read_text()


def test_a_taken_folder_is_left_alone(run):
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        run_training(run, *SMALL, "trainer.max_epochs=1")
    assert (run / "config.yaml").read_bytes() == before


def test_what_is_never_trained_is_the_same_in_the_average(run):
    stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert stored["state_dict"]["std"].flatten().tolist() == torch.tensor(stored["description"]["std"]).tolist()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["callbacks.ema.enabled=true", "callbacks.swa.enabled=true"], "both average"),
        (["trainer.limit_val_batches=0"], "limit_val_batches=0"),
        (["trainer.max_epochs=0"], "max_epochs=0"),
    ],
)
def test_what_cannot_work_is_told_before_the_start(overrides, words):
    with pytest.raises(UserError, match=words):
        build(composed(overrides))


def test_no_test_batches_is_no_test(tmp_path):
    assert run_training(tmp_path, *SMALL, "trainer.max_epochs=1", "trainer.limit_test_batches=0")["test"] is None


@pytest.mark.parametrize(("classes", "names"), [(3, {"acc_top2"}), (5, {"acc_top2", "acc_top3", "acc_top4"})])
def test_top_k_stops_where_it_says_something(classes, names):
    likely = torch.arange(min(5, classes)).expand(4, -1)
    label = torch.zeros(4, dtype=torch.long)
    predictions = Predictions(torch.arange(4), label, label, likely, torch.ones(4), torch.ones(4))
    assert set(measures.top_k(predictions, classes)) == names


def test_a_weights_file_is_found_from_anywhere(tmp_path, monkeypatch):
    from src.build import resolve_paths

    (tmp_path / "w.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    cfg = composed(["model=resnet18", "model.weights=w.pt"])
    resolve_paths(cfg)
    assert cfg.model.weights == str(tmp_path / "w.pt")


@pytest.mark.slow
def test_evaluate_tells_mistakes_in_two_lines(run):
    assert_two_lines(run_script("evaluate.py"), "ckpt=")
    assert_two_lines(run_script("evaluate.py", f"ckpt={run}/checkpoints/best.ckpt", "trainer.precision=foo"), "foo")


def test_a_checkpoint_names_no_folder_to_write_into(dog_cat_root, tmp_path):
    run_training(
        tmp_path / "run", *SMALL, "data=dog_cat", f"data.root={dog_cat_root}", "data.val_size=20", "data.image_size=16",
        f"data.cache_dir={tmp_path}/theirs", "trainer.max_epochs=1",
    )  # fmt: skip
    shutil.rmtree(tmp_path / "theirs")
    evaluate(composed([f"ckpt={tmp_path}/run/checkpoints/best.ckpt", "trainer.accelerator=cpu"], "evaluate"), tmp_path / "out")
    assert not (tmp_path / "theirs").exists()
