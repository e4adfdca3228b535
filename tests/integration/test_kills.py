"""Runs that are killed at any moment continue to the same end."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from helpers import run_training
from run_helpers import SMALL, differences, forks, start_training

pytestmark = [forks, pytest.mark.slow]
SETTINGS = {
    "checkpoints every 5 steps": ["callbacks.last.every_n_train_steps=5"],
    "two validations in an epoch": [
        "callbacks.last.every_n_train_steps=4",
        "trainer.val_check_interval=0.5",
    ],
    "two batches in a step, two loader processes, a plateau schedule": [
        "trainer.accumulate_grad_batches=2",
        "data.num_workers=2",
        "scheduler=plateau",
        "scheduler.patience=0",
    ],
    "one cycle, an average of the weights": [
        "callbacks.last.every_n_train_steps=5",
        "scheduler=onecycle",
        "callbacks.ema.enabled=true",
    ],
}


def kill(folder, options, moment):
    """Kill a run as soon as `moment(steps so far)` is true; returns whether it still ran."""
    steps = multiprocessing.get_context("fork").Value("q", 0, lock=False)
    process = start_training(folder, *options, steps=steps)
    while process.is_alive() and not moment(steps.value):
        time.sleep(1e-4)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("name", SETTINGS)
def test_killed_runs_end_bit_equal(name, tmp_path):
    """Once in a step, once while a checkpoint is being written."""
    options = [*SMALL, "model=simple_v3", "data/augment=crop_flip", "trainer.max_epochs=4"]
    options += SETTINGS[name]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(whole, *options)
    assert kill(killed, options, lambda steps: steps >= 14)
    checkpoints = killed / "checkpoints"
    resumed = [*options, f"resume={checkpoints}/last.ckpt"]

    def writing(steps):
        return any(file.endswith(".part") for file in os.listdir(checkpoints))

    kill(killed, resumed, writing)
    for path in checkpoints.glob("*.ckpt"):
        torch.load(path, weights_only=True)
    run_training(killed, *resumed)
    assert differences(whole, killed) == []
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_of_single_images_repeat_after_a_kill(workers, tmp_path):
    options = [*SMALL, "data/augment=rand_augment", f"data.num_workers={workers}"]
    options += ["trainer.max_epochs=2", "callbacks.last.every_n_train_steps=5"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(whole, *options)
    assert kill(killed, options, lambda steps: steps >= 8)
    run_training(killed, *options, f"resume={killed}/checkpoints/last.ckpt")
    assert differences(whole, killed) == []
