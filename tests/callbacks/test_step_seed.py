"""Random numbers depend on the seed and the batch alone."""

import random

import lightning as L
import numpy as np
import torch

from src.callbacks import StepSeed


class Draws(L.Callback):
    """What each step draws."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))


def test_every_step_has_its_own_numbers(fit):
    draws, again, other = Draws(), Draws(), Draws()
    fit(StepSeed(0), draws, max_epochs=2)
    fit(StepSeed(0), again, max_epochs=2)
    fit(StepSeed(1), other, max_epochs=2)
    assert len(set(draws.drawn)) == 12
    assert draws.drawn == again.drawn and not set(draws.drawn) & set(other.drawn)


def test_a_resumed_run_continues_the_numbers(fit, tmp_path):
    whole, first, second = Draws(), Draws(), Draws()
    fit(StepSeed(0), whole, max_epochs=2)
    run = fit(StepSeed(0), first)
    run.trainer.save_checkpoint(tmp_path / "end.ckpt")
    fit(StepSeed(0), second, max_epochs=2, resume=tmp_path / "end.ckpt")
    assert first.drawn + second.drawn == whole.drawn
