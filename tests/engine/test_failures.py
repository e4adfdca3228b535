"""Runs that fail: what stays of them, and what is reported."""

import errno
import json
import os
import signal

import pytest
import torch
from helpers import composed, run_training
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from run_helpers import SMALL, read_checkpoint, read_results

from src.callbacks import StepSeed
from src.engine.failures import recorded_failures, reported_error
from src.errors import Interrupted, UserError
from src.runs import files
from src.tasks import ClassificationTask


def test_a_failed_run_is_recorded(tmp_path):
    with pytest.raises(UserError, match=r"data\.val_size"):
        run_training(tmp_path, "data.val_size=0.0001")
    results = read_results(tmp_path)
    assert results["status"] == "failed" and "val_size" in results["error"]
    assert results["seed"] == 0
    assert read_results(tmp_path, "run.json")["status"] == "failed"
    assert (tmp_path / "config.yaml").is_file()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="train/loss became"):
        run_training(tmp_path, *SMALL, "optimizer.lr=1e20", "trainer.log_every_n_steps=2")
    assert read_results(tmp_path)["status"] == "failed"


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path, monkeypatch):
    original = StepSeed.on_train_batch_end

    def spoil(self, trainer, pl_module, *args, **kwargs):
        original(self, trainer, pl_module, *args, **kwargs)
        if self.batches == 10:  # its loss was finite, and a checkpoint is due
            next(pl_module.model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(StepSeed, "on_train_batch_end", spoil)
    with pytest.raises(UserError, match="nan") as caught:
        run_training(tmp_path, *SMALL, "callbacks.last.every_n_train_steps=5")
    assert "optimizer.lr" in caught.value.remedy
    assert read_checkpoint(tmp_path)["global_step"] == 5


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path, monkeypatch):
    calls = []
    original = os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:  # file and folder of the first best.ckpt and last.ckpt came before
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="The disk is full") as caught:
        run_training(tmp_path, *SMALL, "optimizer.lr=0.05", "trainer.max_epochs=3")
    assert f"resume={tmp_path}" in caught.value.remedy
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt"}  # and no unfinished file
    assert [read_checkpoint(tmp_path, name)["epoch"] for name in ("best", "last")] == [0, 0]
    results = read_results(tmp_path)
    assert results["status"] == "failed" and "disk is full" in results["error"]


def test_a_failure_that_cannot_be_written_is_still_reported(tmp_path, monkeypatch):
    from src.runs import run_folder

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_text", full)  # also for write_json
    monkeypatch.setattr(run_folder, "write_text", full)
    with pytest.raises(UserError, match="The disk is full"):
        run_training(tmp_path, *SMALL)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes."), "not enough memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "not enough memory",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x/a.csv"), "/x/a.csv cannot be"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "Read-only"),
        (OSError(errno.EDQUOT, "Quota exceeded", "/x/best.ckpt"), "disk is full: /x/best.ckpt"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), "loader process"),
        (MisconfigurationException("`devices` is\n  wrong"), "`devices` is wrong"),
    ],
)
def test_failures_of_the_machine_and_of_settings_have_a_remedy(error, words, tmp_path):
    reported = reported_error(error, tmp_path)
    assert isinstance(reported, UserError)
    assert words in reported.problem and reported.remedy


def test_the_remedy_of_a_failure_names_the_command_that_continues(tmp_path):
    (tmp_path / "a b" / "checkpoints").mkdir(parents=True)
    (tmp_path / "a b" / "checkpoints" / "last.ckpt").touch()
    reported = reported_error(MemoryError(), tmp_path / "a b")
    command = f"python train.py 'resume={tmp_path}/a b/checkpoints/last.ckpt'"
    assert reported.remedy.endswith(f"continue with: {command}")


def test_a_failure_in_a_step_is_recorded_as_it_is_reported(tmp_path, monkeypatch):
    def fail(self, *args):
        raise MemoryError

    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    with pytest.raises(UserError, match="not enough memory"):
        run_training(tmp_path, *SMALL)
    assert "not enough memory" in read_results(tmp_path)["error"]


def test_a_mistake_in_code_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(self, *args):
        return [1, 2][7]

    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    with pytest.raises(IndexError, match="list index out of range") as caught:
        run_training(tmp_path, *SMALL)
    assert caught.value.__cause__ is None
    assert caught.traceback[-1].path.name == "test_failures.py"
    assert read_results(tmp_path)["error"] == "IndexError: list index out of range"


def test_sigterm_before_the_training_is_recorded(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    cfg = composed(["seed=7"])
    with pytest.raises(Interrupted) as caught, recorded_failures(cfg, tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == {"status": "interrupted", "error": "stopped by SIGTERM", "seed": 7}


def test_without_a_failure_nothing_is_written(tmp_path):
    with recorded_failures(composed([]), tmp_path):
        pass
    assert not list(tmp_path.iterdir())
