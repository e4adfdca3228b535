"""The record of a run, for trainers composed by hand."""

import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from run_helpers import read_results, read_rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from src.callbacks import LastCheckpoint, RunRecorder
from src.errors import UserError
from src.runs.files import Lock

CHECKPOINTS = {"enable_checkpointing": True}


def test_a_trainer_without_checkpoint_callbacks_saves_the_best_and_the_last(fit, tmp_path):
    recorder = RunRecorder(tmp_path / "run")
    run = fit(recorder, max_epochs=2, **CHECKPOINTS)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt"}
    results = read_results(tmp_path / "run")
    assert results["status"] == "trained" and results["test"] is None
    assert results["best_epoch"] is not None and results["seed"] == 0
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    run.trainer.test(run.task, run.data, ckpt_path=best, weights_only=True, verbose=False)
    results = read_results(tmp_path / "run")
    assert results["status"] == "completed" and results["checkpoint"] == "checkpoints/best.ckpt"
    assert 0 <= results["test"]["acc"] <= 1
    assert not Lock.is_held(tmp_path / "run" / ".run.lock")


def test_own_checkpoint_callbacks_are_left_alone(fit, tmp_path):
    own = ModelCheckpoint(dirpath=tmp_path / "own", monitor="val/acc", mode="max")
    fit(RunRecorder(tmp_path / "run"), own, **CHECKPOINTS)
    assert len(list((tmp_path / "own").iterdir())) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert read_results(tmp_path / "run")["monitor"] == "val/acc"


def test_the_table_keeps_the_best_validation_of_each_epoch(fit, tmp_path):
    class Losses(L.Callback):
        losses: dict[int, list[float]] = {}

        def on_validation_end(self, trainer, pl_module):
            loss = float(trainer.callback_metrics["val/loss"])
            self.losses.setdefault(trainer.current_epoch, []).append(loss)

    recorder = RunRecorder(tmp_path / "run")
    fit(recorder, Losses(), max_epochs=3, val_check_interval=0.5)
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    lowest = [min(losses) for losses in Losses.losses.values()]
    assert [float(row["val/loss"]) for row in rows] == pytest.approx(lowest, rel=1e-6)
    assert [len(losses) for losses in Losses.losses.values()] == [2, 2, 2]
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "5"), ("1", "11"), ("2", "17")]
    assert recorder.best["epoch"] == lowest.index(min(lowest))


def test_epochs_without_validation_have_empty_cells(fit, tmp_path):
    fit(RunRecorder(tmp_path), max_epochs=3, check_val_every_n_epoch=2)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False]
    assert all(math.isfinite(float(row["train/loss"])) for row in rows)


def test_the_sanity_check_is_not_recorded(fit, tmp_path):
    recorder = RunRecorder(tmp_path)
    fit(recorder, num_sanity_val_steps=2, limit_val_batches=0.0)
    assert recorder.best is None
    assert "val/loss" not in read_rows(tmp_path / "metrics.csv")[0]


def test_checkpoints_hold_the_record(fit, tmp_path):
    last = LastCheckpoint(dirpath=tmp_path / "checkpoints")
    recorder = RunRecorder(tmp_path, config={})
    fit(recorder, last, max_epochs=2, **CHECKPOINTS)
    recorder.folder.release()  # it waits for the test
    stored = torch.load(last.path, weights_only=True)["run_record"]
    assert [row["epoch"] for row in stored["rows"]] == [0, 1]
    assert stored["best"]["metrics"]["loss"] > 0
    recorder = RunRecorder(tmp_path, config={})
    last = LastCheckpoint(dirpath=tmp_path / "checkpoints")
    fit(recorder, last, max_epochs=3, resume=str(last.dirpath / "last.ckpt"), **CHECKPOINTS)
    assert list(recorder.table.rows) == [0, 1, 2]


def test_fast_dev_run_writes_nothing(fit, tmp_path):
    fit(RunRecorder(tmp_path / "run"), fast_dev_run=True)
    assert not (tmp_path / "run").exists()


def test_an_evaluation_without_a_training_writes_nothing(fit, tmp_path):
    run = fit()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[RunRecorder(tmp_path / "run")],
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    trainer.validate(run.task, run.data, verbose=False)
    assert not (tmp_path / "run").exists()


class Fails(L.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise UserError("Something is wrong.", "Repair it.")


def test_a_failure_is_recorded_and_the_folder_is_free(fit, tmp_path):
    with pytest.raises(UserError):
        fit(RunRecorder(tmp_path), Fails())
    assert read_results(tmp_path) == {
        "status": "failed",
        "error": "Something is wrong.",
        "seed": 0,
    }
    assert not Lock.is_held(tmp_path / ".run.lock")


def test_a_run_that_cannot_start_records_nothing(fit, tmp_path):
    with Lock(tmp_path / ".run.lock"):
        with pytest.raises(UserError, match="Another process is writing"):
            fit(RunRecorder(tmp_path))
        assert not (tmp_path / "results.json").exists()


def test_loggers_get_the_results(fit, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    class Keeps(CSVLogger):
        def log_results(self, settings, metrics, step):
            self.results = settings, metrics, step

    logger = Keeps(tmp_path / "csv")
    run = fit(RunRecorder(tmp_path / "run"), logger=logger)
    run.trainer.test(run.task, run.data, verbose=False)
    settings, metrics, step = logger.results
    assert set(metrics) == {"val/loss", "val/acc", "test/loss", "test/acc"} and step == 6
    assert settings["model"] == "LeNet" and settings["seed"] == 0


class Plain(L.LightningModule):
    """A module that knows nothing of this project."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        self.log("val_loss", loss)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.cross_entropy(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_any_module_with_any_loader_can_be_recorded(tmp_path):
    loader = DataLoader(TensorDataset(torch.rand(12, 4), torch.arange(12) % 2), batch_size=4)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[RunRecorder(tmp_path)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Plain()
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    results = read_results(tmp_path)
    assert results["status"] == "completed" and results["test"]["loss"] > 0
    rows = read_rows(tmp_path / "metrics.csv")
    assert len(rows) == 2 and float(rows[1]["val_loss"]) > 0 and float(rows[1]["train_loss"]) > 0
