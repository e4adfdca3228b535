"""SIGTERM and Ctrl-C for whole runs."""

import multiprocessing
import os
import signal
import time

import pytest
from helpers import run_training
from run_helpers import (
    SMALL,
    differences,
    forks,
    read_checkpoint,
    read_results,
    start_training,
)

from src.runs.run_folder import status

pytestmark = forks
OPTIONS = [*SMALL, "data/augment=crop_flip", "trainer.max_epochs=3"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_run_which_ends_equal_when_resumed(number, code, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = multiprocessing.get_context("fork").Value("q", 0, lock=False)
    process = start_training(parts, *OPTIONS, steps=steps)
    while steps.value < 15 and process.is_alive():
        time.sleep(0.001)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    for name in ("results.json", "run.json"):
        assert read_results(parts, name)["status"] == "interrupted"
    assert read_results(parts)["error"] == f"stopped by {signal.Signals(number).name}"
    assert read_checkpoint(parts)["global_step"] >= 15
    run_training(whole, *OPTIONS)
    run_training(parts, *OPTIONS, f"resume={parts}/checkpoints/last.ckpt")
    assert differences(whole, parts) == []


def _train_endlessly(folder, ready, received):
    from run_helpers import _train

    from src.callbacks import Progress, StopSignals

    receive = StopSignals._receive
    StopSignals._receive = lambda self, *args: (receive(self, *args), received.set())

    def wait(self, *args):
        ready.set()
        time.sleep(60)

    Progress.on_train_batch_start = wait
    _train(folder, tuple(OPTIONS), None)


def test_a_second_interrupt_stops_at_once(tmp_path):
    import src.engine.train  # noqa: F401 - before the fork

    context = multiprocessing.get_context("fork")
    ready, received = context.Event(), context.Event()
    process = context.Process(target=_train_endlessly, args=(tmp_path, ready, received))
    process.start()
    try:
        assert ready.wait(60)
        os.kill(process.pid, signal.SIGINT)
        assert received.wait(30)
        time.sleep(0.2)  # the step goes on: only a second signal ends it
        assert process.is_alive()
        os.kill(process.pid, signal.SIGINT)
        process.join(10)
        assert process.exitcode == -signal.SIGINT
    finally:
        process.kill()
        process.join()
    assert status(tmp_path) == "running"  # what every killed run looks like


def _train_and_interrupt(folder, hook):
    from run_helpers import _train

    from src.callbacks import Progress

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
    setattr(Progress, hook, lambda self, *args: os.kill(os.getpid(), signal.SIGINT))
    _train(folder, tuple(OPTIONS), None)


@pytest.mark.parametrize("hook", ["on_validation_batch_start", "on_test_batch_start"])
def test_an_interrupt_outside_of_the_training(tmp_path, hook):
    import src.engine.train  # noqa: F401 - before the fork

    context = multiprocessing.get_context("fork")
    process = context.Process(target=_train_and_interrupt, args=(tmp_path, hook))
    process.start()
    process.join(60)
    assert process.exitcode == 130
    assert status(tmp_path) == "interrupted"
