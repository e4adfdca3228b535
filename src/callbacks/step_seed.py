"""Random numbers that depend on the seed and the batch alone."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch

from .base import EpochCallback


class StepSeed(EpochCallback):
    """Seeds torch, numpy and random after every training batch, for the next one.

    A resumed run then draws the same random numbers as one that was never interrupted, also from
    the middle of an epoch, and a checkpoint has to keep only a count.

    Args:
        seed: the seed of the run.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.batches = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seed(trainer)

    on_train_epoch_start = on_train_start

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        self.batches += 1
        self._seed(trainer)

    def _seed(self, trainer: L.Trainer) -> None:
        value = hash((self.seed, self.batches, trainer.global_rank)) & 0x7FFFFFFFFFFFFFFF
        # torch.manual_seed also seeds the backends that are not in use, which is 100 times slower.
        torch.default_generator.manual_seed(value)
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(value)
        elif device.type == "mps":
            torch.mps.manual_seed(value)
        random.seed(value)
        np.random.seed(value & 0xFFFFFFFF)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]
