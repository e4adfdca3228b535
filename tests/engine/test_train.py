"""Whole runs in this process: what they leave behind, and features of Lightning that work."""

import json
import math

import lightning as L
import pytest
import torch
import yaml
from helpers import run_training, write_image_folder
from lightning.pytorch.loggers import Logger
from run_helpers import SMALL, read_checkpoint, read_results, read_rows
from torchvision import models

from src.engine.train import check_finite, objective
from src.errors import UserError
from src.models import LeNet

FILES = {
    "calibration.csv",
    "checkpoints",
    "config.yaml",
    "confusion.csv",
    "metrics.csv",
    "misclassified.csv",
    "per_class.csv",
    "plots",
    "predictions.csv",
    "report.html",
    "results.json",
    "run.json",
}


def test_a_loss_that_is_not_finite_ends_with_exit_code_1(caplog):
    check_finite({"val": {"loss": 1.0}, "test": None}, "val", "test")
    with pytest.raises(SystemExit) as caught:
        check_finite({"val": {"loss": 1.0}, "test": {"loss": math.inf}}, "val", "test")
    assert caught.value.code == 1 and "test/loss is inf" in caplog.text


def test_the_run_folder_is_complete(finished_run):
    names = {path.name for path in finished_run.iterdir() if not path.name.startswith(".")}
    assert names == FILES
    checkpoints = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert checkpoints == {"best.ckpt", "last.ckpt"}
    assert any(path.suffix == ".png" for path in (finished_run / "plots").iterdir())


def test_results(finished_run):
    results = read_results(finished_run)
    assert results["status"] == "completed" and results["num_parameters"] == 61706
    assert results["epochs"] == 2 and results["seed"] == 0
    assert results["train_seconds"] > 0 and results["images_per_second"] > 0
    assert results["checkpoint"] == "checkpoints/best.ckpt" and results["monitor"] == "val/loss"
    assert set(results["test"]["per_class"]) == set("0123456789")
    assert 0.3 < results["test"]["acc"] <= 1
    assert objective(results) == results["val"]["loss"]


def test_tables(finished_run):
    results = read_results(finished_run)
    epochs = read_rows(finished_run / "metrics.csv")
    assert [row["epoch"] for row in epochs] == ["0", "1"]
    assert all(math.isfinite(float(value)) for row in epochs for value in row.values())
    losses = [float(row["val/loss"]) for row in epochs]
    assert losses[results["best_epoch"]] == min(losses)
    assert results["val"]["loss"] == pytest.approx(min(losses), rel=1e-5)
    classes = read_rows(finished_run / "per_class.csv")
    assert [row["class"] for row in classes] == list("0123456789")
    assert {row["split"] for row in classes} == {"test"}
    correct = sum(float(row["recall"]) * int(row["support"]) for row in classes)
    assert correct / 360 == pytest.approx(results["test"]["acc"])
    predictions = read_rows(finished_run / "predictions.csv")
    columns = ["image", "label", "prediction", "probability", "label_probability"]
    assert list(predictions[0]) == columns
    correct = sum(row["label"] == row["prediction"] for row in predictions)
    assert correct / len(predictions) == pytest.approx(results["test"]["acc"])


def test_records(finished_run):
    run = read_results(finished_run, "run.json")
    assert run["status"] == "completed" and run["start"] <= run["end"]
    assert run["data"]["sizes"] == {"train": 1293, "val": 144, "test": 360}
    assert run["data"]["split_hash"]
    assert run["automatic"] == {"onednn": True, "channels_last": True}
    assert run["precision"] == "32-true" and run["processes"] == 1 and run["earlier"] == []
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"] == {"_target_": "src.models.LeNet"} and config["optimizer"]["lr"] == 0.05


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_load_with_weights_only_and_describe_themselves(finished_run, name):
    content = read_checkpoint(finished_run, name)
    description = content["description"]
    assert description["classes"] == list("0123456789") and description["image_size"] == 32
    assert description["model"] == {
        "_target_": "src.models.LeNet",
        "in_channels": 1,
        "num_classes": 10,
        "image_size": 32,
    }
    assert description["metrics"]["val/acc"] > 0.3
    network = LeNet(1, 10, 32)
    weights = {k.removeprefix("model."): v for k, v in content["state_dict"].items()}
    network.load_state_dict({k: v for k, v in weights.items() if k in network.state_dict()})


def test_seed_0_is_a_seed_and_runs_repeat(tmp_path):
    options = [*SMALL, "trainer.max_epochs=1", "data/augment=crop_flip", "test=false"]
    losses = [
        run_training(tmp_path / str(i), *options, f"seed={seed}")["val"]["loss"]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("option", ["test=false", "trainer.limit_test_batches=0"])
def test_without_a_test_the_best_checkpoint_is_validated(option, tmp_path):
    results = run_training(tmp_path, *SMALL, "trainer.max_epochs=1", option)
    assert results["status"] == "completed" and results["test"] is None
    assert results["val"]["acc_balanced"] >= 0
    assert results["checkpoint"] == "checkpoints/best.ckpt"
    assert {row["split"] for row in read_rows(tmp_path / "per_class.csv")} == {"val"}


def test_data_without_a_test_split(dog_cat_root, tmp_path):
    data = ["data=dog_cat", f"data.root={dog_cat_root}", "data.val_size=20", "data.image_size=32"]
    results = run_training(tmp_path, *SMALL, *data, "trainer.max_epochs=1")
    assert results["test"] is None
    assert {row["class"] for row in read_rows(tmp_path / "per_class.csv")} == {"cat", "dog"}


@pytest.fixture
def lacking(tmp_path):
    """Settings for a folder whose validation split has no cats."""
    root = tmp_path / "data"
    write_image_folder(root / "train", {"cat": 3, "dog": 30}, size=16)
    write_image_folder(root / "val", {"dog": 8}, size=16)
    data = ["data=image_folder", f"data.root={root}", "data.image_size=32"]
    return ["model=lenet", "trainer.max_epochs=2", *data]


def test_a_validation_split_without_a_class(lacking, tmp_path, caplog):
    caplog.set_level("INFO")
    stop = ["callbacks.early_stopping.enabled=true", "logger=[tensorboard,csv]"]
    results = run_training(tmp_path / "run", *lacking, *stop)
    assert results["status"] == "completed" and results["val"]["acc_balanced"] is None
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    cat, dog = read_rows(tmp_path / "run" / "per_class.csv")
    assert cat["support"] == "0" and cat["recall"] == cat["precision"] == cat["f1"] == ""
    assert dog["support"] == "8" and dog["recall"]
    assert "Fewer than 30 val images of cat 0, dog 8" in caplog.text
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Fewer than 30 val images of cat 0, dog 8" in page and "(95 %)" in page
    assert f"(95 %: {results['val']['acc_low']:.4f} to " in caplog.text
    assert "data.balance=sampler" in caplog.text


def test_a_metric_that_is_not_defined_cannot_be_monitored(lacking, tmp_path):
    monitor = ["callbacks.best.monitor=val/acc_balanced", "callbacks.best.mode=max"]
    with pytest.raises(UserError, match="a class has no validation images"):
        run_training(tmp_path / "run", *lacking, *monitor)


def test_early_stopping_by_one_setting(tmp_path):
    stop = ["callbacks.early_stopping.enabled=true", "callbacks.early_stopping.patience=2"]
    still = ["optimizer.lr=0", "optimizer.weight_decay=0", "trainer.max_epochs=9"]
    assert run_training(tmp_path, *SMALL, *still, *stop)["epochs"] == 3


def test_the_best_epoch_is_that_of_the_chosen_metric(tmp_path, caplog):
    caplog.set_level("INFO")
    monitor = ["callbacks.best.monitor=val/acc_balanced", "callbacks.best.mode=max"]
    results = run_training(tmp_path, *SMALL, *monitor, "trainer.max_epochs=4", "optimizer.lr=0.2")
    values = [float(row["val/acc_balanced"]) for row in read_rows(tmp_path / "metrics.csv")]
    assert values[results["best_epoch"]] == max(values)
    assert results["val"]["acc_balanced"] == pytest.approx(max(values), rel=1e-5)
    assert read_checkpoint(tmp_path, "best")["epoch"] == results["best_epoch"]
    assert f"chosen by val/acc_balanced {max(values):.4f}" in caplog.text


def test_the_best_of_several_validations_in_an_epoch_is_the_minimum_of_the_table(tmp_path):
    options = ["trainer.val_check_interval=4", "trainer.max_epochs=3", "optimizer.lr=0.3"]
    results = run_training(tmp_path, *SMALL, *options)
    losses = [float(row["val/loss"]) for row in read_rows(tmp_path / "metrics.csv")]
    assert results["val"]["loss"] == pytest.approx(min(losses), rel=1e-5)
    assert losses.index(min(losses)) == results["best_epoch"]
    stored = read_checkpoint(tmp_path, "best")["description"]["metrics"]["val/loss"]
    assert stored == pytest.approx(min(losses), rel=1e-5)


def test_extra_metrics_are_recorded_monitored_and_printed(tmp_path, caplog):
    caplog.set_level("INFO")
    stop = ["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"]
    stop += ["+callbacks.stop.monitor=val/f1", "+callbacks.stop.mode=max"]
    results = run_training(tmp_path, *SMALL, "trainer.max_epochs=2", "metrics=f1", *stop)
    rows = read_rows(tmp_path / "metrics.csv")
    assert float(rows[results["best_epoch"]]["val/f1"]) == pytest.approx(results["val"]["f1"])
    assert results["metrics"] == ["f1"] and 0 <= results["test"]["f1"] <= 1
    assert f" f1 {float(rows[-1]['val/f1']):.4f}" in caplog.text
    assert f"test f1 {results['test']['f1']:.4f}" in caplog.text


def test_weighted_classes_averages_and_metrics_with_buffers(tmp_path):
    """Lightning copies and swaps buffers by their position."""
    options = ["data.balance=loss", "callbacks.ema.enabled=true", "trainer.max_epochs=1"]
    metric = ["metrics=auroc", "metrics.auroc.thresholds=20"]
    results = run_training(tmp_path, *SMALL, "optimizer.lr=0.05", *options, *metric)
    assert 0 < results["val"]["auroc"] < 1
    content = read_checkpoint(tmp_path, "best")
    std = content["state_dict"]["std"].flatten().tolist()  # never trained: the same in the average
    assert std == torch.tensor(content["description"]["std"]).tolist()


LOSS = """
from torch import nn


class Loss(nn.Module):
    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits, labels)
"""


def test_class_weights_need_a_loss_that_takes_them(tmp_path, monkeypatch):
    (tmp_path / "unweighted.py").write_text(LOSS)
    monkeypatch.syspath_prepend(str(tmp_path))
    loss = ["task.loss._target_=unweighted.Loss", "~task.loss.label_smoothing"]
    with pytest.raises(UserError, match=r"data\.balance=loss needs a loss with class weights"):
        run_training(tmp_path / "run", *SMALL, *loss, "data.balance=loss")


def test_a_plateau_schedule_with_validations_every_other_epoch(tmp_path):
    options = ["scheduler=plateau", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3"]
    assert run_training(tmp_path, *SMALL, *options)["epochs"] == 3
    rows = read_rows(tmp_path / "metrics.csv")
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False]


def test_the_table_has_the_learning_rates_of_the_epochs(tmp_path):
    options = ["scheduler.step_size=2", "scheduler.gamma=0.5", "optimizer.lr=0.02", "test=false"]
    run_training(tmp_path, *SMALL, *options, "trainer.max_epochs=4")
    rates = [float(row["lr"]) for row in read_rows(tmp_path / "metrics.csv")]
    assert rates == pytest.approx([0.02, 0.02, 0.01, 0.01])


def test_pretrained_weights_decide_on_the_input(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "squeezenet 1=1.pth"
    torch.save(models.squeezenet1_1().state_dict(), path)
    run_training(
        tmp_path / "run",
        *SMALL,
        "model=torchvision",
        "model.name=squeezenet1_1",
        f"model.weights='{path}'",
        "data.image_size=32",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        "trainer.limit_val_batches=1",
        "test=false",
    )
    description = read_checkpoint(tmp_path / "run", "best")["description"]
    assert description["channels"] == 3
    assert description["mean"] == pytest.approx([0.485, 0.456, 0.406])


# Features of Lightning


def test_fast_dev_run_leaves_no_run(tmp_path):
    results = run_training(tmp_path, *SMALL, "trainer.fast_dev_run=true")
    assert math.isfinite(results["val"]["loss"])
    assert not list(tmp_path.iterdir())


def test_max_time_ends_the_training(tmp_path):
    results = run_training(
        tmp_path, *SMALL, "trainer.max_time='00:00:00:00'", "trainer.max_epochs=50"
    )
    assert results["status"] == "completed" and results["epochs"] < 50


def test_overfit_batches_learns_the_same_batch(tmp_path):
    options = ["trainer.overfit_batches=1", "scheduler=constant", "trainer.max_epochs=15"]
    options += ["trainer.limit_train_batches=null", "trainer.limit_val_batches=null"]
    run_training(tmp_path, *SMALL, *options, "optimizer=adam", "optimizer.lr=0.01", "test=false")
    rows = read_rows(tmp_path / "metrics.csv")
    assert float(rows[-1]["train/acc"]) > 0.7


def test_validations_by_time(tmp_path):
    results = run_training(
        tmp_path, *SMALL, "trainer.val_check_interval='00:00:00:01'", "trainer.max_epochs=1"
    )
    assert results["status"] == "completed"


def test_a_length_in_steps(tmp_path):
    length = ["trainer.max_epochs=-1", "trainer.max_steps=7"]
    results = run_training(tmp_path, *SMALL, *length, "scheduler=cosine")
    assert results["epochs"] == 1 and read_checkpoint(tmp_path)["global_step"] == 7


class OwnCallback(L.Callback):
    batches = 0

    def on_train_batch_end(self, *args):
        type(self).batches += 1


class OwnLogger(Logger):
    logged: list[dict] = []
    name, version = "own", ""

    def log_hyperparams(self, *args, **kwargs): ...

    def log_metrics(self, metrics, step=None):
        self.logged.append(metrics)


def test_own_callbacks_and_loggers(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.callbacks.Timer", OwnCallback)
    monkeypatch.setattr("lightning.pytorch.loggers.CSVLogger", OwnLogger)
    own = ["+callbacks.own._target_=lightning.pytorch.callbacks.Timer"]
    own += ["+logger.own._target_=lightning.pytorch.loggers.CSVLogger"]
    run_training(tmp_path, *SMALL, *own, "trainer.max_epochs=1")
    assert OwnCallback.batches == 12
    names = {name for metrics in OwnLogger.logged for name in metrics}
    assert {"train/loss", "train/acc", "val/loss", "val/acc", "test/loss"} <= names


def test_another_checkpoint_callback_beside_the_best(tmp_path):
    top = [
        "+callbacks.top._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "+callbacks.top.monitor=val/acc",
        "+callbacks.top.mode=max",
        "+callbacks.top.save_top_k=2",
        f"+callbacks.top.dirpath={tmp_path}/top",
    ]
    results = run_training(tmp_path / "run", *SMALL, *top, "trainer.max_epochs=2")
    assert results["checkpoint"] == "checkpoints/best.ckpt" and results["monitor"] == "val/loss"
    assert len(list((tmp_path / "top").iterdir())) == 2


@pytest.mark.parametrize("results", [{}, {"val": None}, {"val": {"loss": math.nan}}])
def test_a_run_without_a_finite_loss_is_the_worst(results):
    assert objective(results) == math.inf


def test_several_checkpoints_by_the_recipe_of_the_error(tmp_path):
    with pytest.raises(UserError, match="keeps one file") as caught:
        run_training(tmp_path / "refused", *SMALL, "+callbacks.best.save_top_k=3")
    recipe = caught.value.remedy.partition("'")[2].rpartition("'")[0]
    results = run_training(tmp_path / "run", *SMALL, recipe, "trainer.max_epochs=4")
    files = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert len(files) == 5 and {"best.ckpt", "last.ckpt"} < files
    losses = [float(row["val/loss"]) for row in read_rows(tmp_path / "run" / "metrics.csv")]
    assert results["val"]["loss"] == pytest.approx(min(losses), rel=1e-6)
    assert read_checkpoint(tmp_path / "run", "best")["epoch"] == losses.index(min(losses))
    assert results["checkpoint"] == "checkpoints/best.ckpt"
