"""How fast a run trains."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.utilities.data import extract_batch_size

from .base import EpochCallback


class Throughput(EpochCallback):
    """Logs `images_per_second` and `seconds` of each epoch.

    `images_per_second` counts training alone; `seconds` includes validation.

    Attributes:
        train_seconds: of all finished epochs, with validation.
        trained_seconds: of all finished epochs, without validation.
        images: number of training images in all finished epochs.
    """

    def __init__(self) -> None:
        self.train_seconds = 0.0
        self.trained_seconds = 0.0
        self.images = 0
        self._start = self._validation_start = time.monotonic()
        self._validating = 0.0
        self._epoch_images = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.monotonic()
        self._validating = 0.0
        self._epoch_images = 0

    on_train_epoch_start = on_train_start  # Lightning skips it for an epoch resumed in the middle

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._epoch_images += extract_batch_size(batch)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating += time.monotonic() - self._validation_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = time.monotonic() - self._start
        training = max(seconds - self._validating, 1e-9)
        images = self._epoch_images * trainer.world_size
        self.train_seconds += seconds
        self.trained_seconds += training
        self.images += images
        speed = {"images_per_second": images / training, "seconds": seconds}
        pl_module.log_dict(speed, logger=bool(trainer.loggers), rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        names = ("train_seconds", "trained_seconds", "images")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)
