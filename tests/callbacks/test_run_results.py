"""The content of `results.json`, and the closing lines."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from src.callbacks import BestCheckpoint, LastCheckpoint, RunRecorder, Throughput
from src.callbacks.run_results import (
    check_best,
    closing_line,
    count_parameters,
    evaluated_checkpoint,
    final_metrics,
    monitored,
    split_metrics,
    stopped_by,
    summarize_run,
)

RESULTS = {
    "train": {"loss": 0.2, "acc": 0.95},
    "val": {"loss": 0.25, "acc": 0.9, "f1": 0.8},
    "test": {"loss": 0.3, "acc": 0.875, "f1": 0.75, "per_class": []},
    "best_epoch": 3,
    "monitor": "val/loss",
    "metrics": ["f1"],
    "epochs": 10,
    "stopped_by": None,
    "train_seconds": 61.7,
}


def test_the_monitored_metric_is_that_of_the_checkpoint_callback(fit, tmp_path):
    best = BestCheckpoint("val/acc", "max", dirpath=tmp_path)
    run = fit(LastCheckpoint(dirpath=tmp_path), best, enable_checkpointing=True)
    assert monitored(run.trainer) == ("val/acc", "max")
    assert monitored(fit().trainer) == ("val/loss", "min")
    unmonitored = ModelCheckpoint(dirpath=tmp_path / "all", save_top_k=-1)
    assert monitored(fit(unmonitored, enable_checkpointing=True).trainer) == ("val/loss", "min")


def test_metrics_of_a_split(fit):
    run = fit()
    val = split_metrics(run.trainer, run.task, "val")
    assert val["acc"] == run.task.evaluations["val"].metrics["acc"]
    assert {"loss", "acc_balanced", "acc_top2", "acc_top5", "ece"} <= set(val)
    assert "per_class" not in val
    run.trainer.test(run.task, run.data, verbose=False)
    test = split_metrics(run.trainer, run.task, "test")
    assert list(test["per_class"]) == list("0123456789")
    assert "most_confused" in test


def test_a_summary_without_timing_and_without_validation(fit, tmp_path):
    run = fit(limit_val_batches=0)
    summary = summarize_run(run.trainer, run.task, {"train/loss": 0.5, "lr": 0.1}, None)
    assert summary["train"] == {"loss": 0.5}
    assert summary["train_seconds"] is None and summary["images_per_second"] is None
    assert summary["val"] is None and summary["best_epoch"] is None and summary["epochs"] == 1
    assert summary["checkpoint"] is None and summary["num_parameters"] > 0
    assert closing_line(summary, tmp_path) == (
        f"train loss 0.5000 (nothing was validated: the weights are the last ones)\n{tmp_path}"
    )


def test_a_summary_with_timing(fit, tmp_path):
    run = fit(Throughput())
    best = {"epoch": 0, "score": 1.0, "metrics": {"loss": 1.0}}
    summary = summarize_run(run.trainer, run.task, {}, best)
    assert summary["images_per_second"] > 0 and summary["train_seconds"] >= 0
    assert summary["val"] == {"loss": 1.0} and summary["best_epoch"] == 0


@pytest.mark.parametrize(("folder", "expected"), [("run", "checkpoints/best.ckpt"), ("x", None)])
def test_the_checkpoint_is_named_relative_to_the_run_folder(fit, tmp_path, folder, expected):
    checkpoints = tmp_path / "run" / "checkpoints"
    run = fit(BestCheckpoint(dirpath=checkpoints), enable_checkpointing=True)
    path = checkpoints / "best.ckpt"
    run.trainer.test(run.task, run.data, ckpt_path=path, weights_only=True, verbose=False)
    assert evaluated_checkpoint(run.trainer, tmp_path / folder) == (expected or str(path))


def test_the_best_checkpoint_is_compared_with_the_table(fit, tmp_path, caplog):
    run = fit(BestCheckpoint(dirpath=tmp_path), RunRecorder(tmp_path), enable_checkpointing=True)
    assert "lowest" not in caplog.text
    check_best(run.trainer, [{"val/loss": 0.001}, {"val/loss": math.nan}])
    assert "the lowest in metrics.csv is 0.001" in caplog.text


def test_final_metrics():
    assert final_metrics(RESULTS) == {
        "val/loss": 0.25,
        "val/acc": 0.9,
        "val/f1": 0.8,
        "test/loss": 0.3,
        "test/acc": 0.875,
        "test/f1": 0.75,
    }
    assert set(final_metrics(RESULTS | {"test": None})) == {"val/loss", "val/acc", "val/f1"}


def test_the_closing_line(tmp_path):
    line, folder = closing_line(RESULTS, tmp_path).split("\n")
    assert folder == str(tmp_path)
    assert line == (
        "test accuracy 0.8750, test f1 0.7500, test loss 0.3000 "
        "(best of 10 epochs: epoch 4, chosen by val/loss 0.2500) after 62 s of training"
    )
    without_test = closing_line(RESULTS | {"test": None}, tmp_path)
    assert without_test.startswith("val accuracy 0.9000, val f1 0.8000, val loss 0.2500")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epochs": 1}, None),
        ({"max_epochs": 9, "max_steps": 2}, "max_steps"),
        ({"max_epochs": 999, "max_time": {"milliseconds": 1}}, "max_time"),
    ],
)
def test_what_ended_the_training(fit, options, expected, tmp_path):
    run = fit(**options)
    summary = summarize_run(run.trainer, run.task, {}, None)
    assert summary["stopped_by"] == expected and summary["epochs"] == 1
    said = closing_line(summary, tmp_path).partition("\n")[0]
    assert said.endswith(f"stopped by {expected}") == (expected is not None)


def test_the_closing_line_gives_the_interval(tmp_path):
    test = RESULTS["test"] | {"acc_low": 0.8, "acc_high": 0.95}
    line = closing_line(RESULTS | {"test": test}, tmp_path)
    assert line.startswith("test accuracy 0.8750 (95 %: 0.8000 to 0.9500), test f1 0.7500")


def test_early_stopping_is_named(fit):
    run = fit(EarlyStopping("train/loss", patience=1, min_delta=99), max_epochs=9)
    assert stopped_by(run.trainer) == "EarlyStopping"


def test_parameters_are_those_of_the_network(fit):
    run = fit()
    run.task.teacher = torch.nn.Linear(3, 3)
    assert count_parameters(run.task) == sum(p.numel() for p in run.task.model.parameters())
    assert count_parameters(torch.nn.Linear(3, 3)) == 12
