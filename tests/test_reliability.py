"""Runs that are killed, stopped, cut short by a full disk or by nonsense: what stays, what is said, and that they go on exactly."""

import csv
import errno
import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
from conftest import assert_two_lines, composed, run_script, run_training

from src import checkpoint as ckpt
from src.callbacks import LastCheckpoint, StepSeed
from src.errors import UserError
from src.loggers import EpochTable
from src.repetition import repeat
from src.run_folder import RunFolder
from src.training import explained

SMALL = ["model=lenet", "data.image_size=16", "data/augment=crop_flip", "trainer.limit_train_batches=12", "trainer.max_epochs=3"]
forks = pytest.mark.skipif(sys.platform != "linux", reason="starts its runs by fork")


class Cut(BaseException):
    """Stands for a kill inside this process."""


def cut_behind(batches: int, monkeypatch) -> None:
    original = StepSeed.on_train_batch_end

    def cut(self, trainer, *args, **kwargs):
        original(self, trainer, *args, **kwargs)
        if self.batches == batches:
            raise Cut

    monkeypatch.setattr(StepSeed, "on_train_batch_end", cut)


# Resuming


@pytest.mark.slow
@forks
def test_killed_runs_go_on_bit_equal(script, tmp_path):
    """Once at a random step, once in the middle of writing a checkpoint."""
    options = [*SMALL, "callbacks.last.every_n_train_steps=5", "model=simple_v3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert script.whole_run(whole, options) == 0
    assert script.killed_run(killed, options, lambda steps: steps >= 9)
    resumed = [*options, f"resume={killed}/checkpoints/last.ckpt"]
    writing = lambda steps: steps > 2 and any(name.endswith(".part") for name in os.listdir(killed / "checkpoints"))  # noqa: E731
    script.killed_run(killed, resumed, writing)
    assert all(script.checkpoint_readable(path) for path in (killed / "checkpoints").glob("*.ckpt"))
    assert script.whole_run(killed, resumed) == 0
    assert script.differences(whole, killed) == []


def test_a_checkpoint_due_in_front_of_a_validation_waits(script, tmp_path, monkeypatch):
    """Lightning would leave that validation out when it goes on."""
    options = [*SMALL, "callbacks.last.every_n_train_steps=4", "trainer.val_check_interval=0.5"]
    run_training(tmp_path / "whole", *options)
    steps = []
    original = LastCheckpoint.save
    monkeypatch.setattr(LastCheckpoint, "save", lambda self, trainer: (steps.append(trainer.global_step), original(self, trainer)))
    with monkeypatch.context() as patch:
        cut_behind(27, patch)
        with pytest.raises(Cut):
            run_training(tmp_path / "parts", *options)
    assert steps == [4, 8, 16, 20]  # 12 and 24 are ends of epochs, which are kept anyway
    run_training(tmp_path / "parts", *options, f"resume={tmp_path}/parts/checkpoints/last.ckpt")
    assert script.differences(tmp_path / "whole", tmp_path / "parts") == []


def test_the_table_has_no_hole_where_a_run_died_between_checkpoint_and_table(script, tmp_path, monkeypatch):
    run_training(tmp_path / "whole", *SMALL)

    def die(self, *args):
        raise Cut

    with monkeypatch.context() as patch:
        original = EpochTable.write
        patch.setattr(EpochTable, "write", lambda self: die(self) if 1 in self.rows else original(self))
        with pytest.raises(Cut):
            run_training(tmp_path / "parts", *SMALL)
    with open(tmp_path / "parts" / "metrics.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0"]
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert ckpt.read(last)["epoch"] == 1
    run_training(tmp_path / "parts", *SMALL, f"resume={last}")
    assert script.differences(tmp_path / "whole", tmp_path / "parts") == []


def test_a_resumed_run_keeps_what_it_began_with(tmp_path):
    run_training(tmp_path, *SMALL, "trainer.max_epochs=1")
    before = (tmp_path / "results.json").read_text()
    last = f"resume={tmp_path}/checkpoints/last.ckpt"
    for change in ("optimizer.lr=0.5", "model=quick", "seed=3", "data.batch_size=16", "scheduler.gamma=0.3", "optimizer=adam"):
        with pytest.raises(UserError, match="when this run began"):
            run_training(tmp_path, *SMALL, last, change)
    with pytest.raises(UserError, match=r"trainer\.max_epochs=x"):
        run_training(tmp_path, *SMALL, last, "trainer.max_epochs=x")
    assert (tmp_path / "results.json").read_text() == before  # a mistake costs a finished run nothing


def test_a_damaged_last_checkpoint_names_the_command_that_goes_on(tmp_path):
    run_training(tmp_path / "runs" / "a b", *SMALL, "trainer.max_epochs=1")
    checkpoints = tmp_path / "runs" / "a b" / "checkpoints"
    (checkpoints / "last.ckpt").write_bytes((checkpoints / "last.ckpt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged") as caught:
        run_training(tmp_path / "runs" / "a b", *SMALL, f"resume='{checkpoints}/last.ckpt'")
    assert caught.value.remedy.endswith(f"python train.py 'resume={checkpoints}/best.ckpt'")
    results = run_training(tmp_path / "runs" / "a b", *SMALL, "trainer.max_epochs=2", f"resume='{checkpoints}/best.ckpt'")
    assert results["epochs"] == 2


# Signals


@forks
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_marks_the_run_and_gives_its_code(script, number, code, tmp_path):
    options = [*SMALL, "trainer.max_epochs=4"]
    context = multiprocessing.get_context("fork")
    steps = context.Value("q", 0, lock=False)
    process = context.Process(target=script.train_in, args=(tmp_path / "parts", options, steps))
    process.start()
    while steps.value < 15 and process.is_alive():
        time.sleep(0.001)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == code
    for name in ("results.json", "run.json"):
        assert json.loads((tmp_path / "parts" / name).read_text())["status"] == "interrupted"
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert ckpt.read(last)["global_step"] >= 15
    assert script.whole_run(tmp_path / "whole", options) == 0
    assert script.whole_run(tmp_path / "parts", [*options, f"resume={last}"]) == 0
    assert script.differences(tmp_path / "whole", tmp_path / "parts") == []


@forks
def test_a_second_interrupt_stops_at_once(script, tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def endless(folder):
        from src.callbacks import Progress

        def wait(self, *args):
            ready.set()
            time.sleep(60)

        Progress.on_train_batch_end = wait
        script.train_in(folder, SMALL)

    process = context.Process(target=endless, args=(tmp_path,))
    process.start()
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGINT)
    while json.loads((tmp_path / "run.json").read_text())["status"] == "running":
        time.sleep(0.01)
    time.sleep(0.2)  # the sleep goes on: only the second one ends it
    assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == -signal.SIGINT
    assert json.loads((tmp_path / "results.json").read_text())["status"] == "interrupted"


# Failures


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    calls = []
    original = os.fsync

    def full(number):
        calls.append(number)
        if len(calls) == 5:  # file and folder of the first best.ckpt and of the first last.ckpt come before
            raise OSError(errno.ENOSPC, "No space left on device")
        original(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="The disk is full") as caught:
        run_training(tmp_path, *SMALL)
    assert "resume=" in caught.value.remedy
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}  # and no half file
    for name in ("best", "last"):
        assert ckpt.read(tmp_path / "checkpoints" / f"{name}.ckpt")["epoch"] == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["status"] == "failed" and "disk is full" in results["error"]


def test_where_not_even_the_failure_can_be_written_it_is_still_told(tmp_path, monkeypatch):
    from src import run_folder

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "write_text", full)
    with pytest.raises(UserError, match="The disk is full"):
        run_training(tmp_path, *SMALL)


def test_nan_never_replaces_a_good_checkpoint(tmp_path, monkeypatch):
    """The weights turn to nan in a step whose loss is still fine, right in front of a checkpoint."""
    original = StepSeed.on_train_batch_end

    def spoil(self, trainer, module, *args, **kwargs):
        original(self, trainer, module, *args, **kwargs)
        if self.batches == 10:
            next(module.model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(StepSeed, "on_train_batch_end", spoil)
    with pytest.raises(UserError, match="nan") as caught:
        run_training(tmp_path, *SMALL, "callbacks.last.every_n_train_steps=5")
    assert "optimizer.lr" in caught.value.remedy
    assert ckpt.read(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/metrics.csv"), "/x/metrics.csv cannot be written"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "Read-only"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), "loader process was killed"),
    ],
)
def test_failures_of_the_machine_are_told_with_what_to_do(error, words, tmp_path, monkeypatch):
    from src.tasks import ClassificationTask

    def fail(self, *args):
        raise error

    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    with pytest.raises(UserError, match=words) as caught:
        run_training(tmp_path, *SMALL)
    assert caught.value.remedy and words in json.loads((tmp_path / "results.json").read_text())["error"]


def test_a_mistake_in_the_code_is_left_as_it_is(tmp_path):
    bug = IndexError("list index out of range")
    assert explained(bug, tmp_path) is bug


# Repeating


def test_a_run_repeats_from_its_folder_and_differences_are_named(finished_run, tmp_path):
    from src.stored_config import stored_config

    config = stored_config(finished_run / "config.yaml")
    assert repeat(finished_run, composed_from(config), tmp_path / "again") == []
    results = json.loads((finished_run / "results.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    results["val"]["loss"] += 1e-6
    (other / "results.json").write_text(json.dumps(results))
    (other / "metrics.csv").write_bytes((finished_run / "metrics.csv").read_bytes())
    assert [text.split()[0] for text in repeat(other, composed_from(config), tmp_path / "once_more")] == ["val.loss"]


def composed_from(config):
    from omegaconf import OmegaConf

    return OmegaConf.create(config)


def test_rerun_from_the_shell_wants_a_finished_run(tmp_path):

    assert_two_lines(run_script("rerun.py", "run=nowhere", cwd=tmp_path), "nowhere")
    assert composed(["run=x"], "rerun").run == "x"


@forks
def test_a_run_is_not_gone_on_with_while_it_runs(script, tmp_path):
    """Two processes in one folder would write over one another's checkpoints; the first one does not notice the second."""
    folder = tmp_path / "run"
    options = ["model=lenet", "data.image_size=16", "logger=none", "trainer.accelerator=cpu"]
    typed = [*options, "trainer.max_epochs=1000", "data.num_workers=1"]
    first = multiprocessing.get_context("fork").Process(target=script.train_in, args=(folder, typed))
    first.start()
    try:
        last = folder / "checkpoints" / "last.ckpt"
        deadline = time.monotonic() + 120
        while not last.is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        with pytest.raises(UserError, match="Another process is writing into"):
            run_training(folder, *options[:2], f"resume={last}", "trainer.max_epochs=1000")
        assert first.is_alive() and json.loads((folder / "run.json").read_text())["status"] == "running"
        assert not (folder / "results.json").exists()
    finally:
        first.kill()
        first.join()
    RunFolder(folder).release()  # the lock went with its process
