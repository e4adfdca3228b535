"""Random numbers that depend on the seed and the batch alone, so that a resumed run draws what the undisturbed one draws."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch


class StepSeed(L.Callback):
    """Seeds torch, numpy and random behind every training batch, for the next one.

    With it nothing about random states needs storing but a count, and a run cut off in the middle of an epoch goes on exactly.

    Args:
        seed: the run's seed; 0 is a seed.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.batches = 0

    def _seed(self, trainer: L.Trainer) -> None:
        value = hash((self.seed, self.batches, trainer.global_rank)) & 0x7FFFFFFFFFFFFFFF
        torch.default_generator.manual_seed(value)  # torch.manual_seed also asks every backend, a hundred times slower
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(value)
        elif device.type == "mps":
            torch.mps.manual_seed(value)
        random.seed(value)
        np.random.seed(value & 0xFFFFFFFF)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seed(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seed(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self.batches += 1
        self._seed(trainer)

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches = state_dict["batches"]
