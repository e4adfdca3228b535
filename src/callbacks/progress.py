"""One quiet line on the screen while an epoch runs, and how fast it runs."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar


class Progress(ProgressBar):
    """Rewrites one line twice a second, on a terminal only, and logs `images_per_second` and `seconds` of each epoch.

    `images_per_second` counts training alone; `seconds` is the epoch with its validation. Lightning's own bars redraw by the
    batch, which costs more than a small network's whole step.
    """

    def __init__(self, interval: float = 0.5):
        super().__init__()
        self.interval = interval
        self.enabled = True
        self.train_seconds = 0.0  # of finished epochs, validation included
        self.trained_seconds = 0.0  # of finished epochs, training alone
        self.images = 0
        self._drawn = 0.0
        self._validating = 0.0

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_epoch()  # Lightning leaves out on_train_epoch_start for an epoch that is resumed in its middle

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._start = time.monotonic()
        self._validating = 0.0
        self._epoch_images = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self._epoch_images += len(batch[1])
        now = time.monotonic()
        if now - self._drawn >= self.interval:
            self._drawn = now
            speed = self._epoch_images * trainer.world_size / max(now - self._start - self._validating, 1e-9)
            total = trainer.num_training_batches
            self._draw(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {batch_idx + 1}/{total}  {speed:,.0f} images/s")

    def _draw(self, text: str) -> None:
        if self.enabled and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_start = time.monotonic()
        if not trainer.sanity_checking:
            self._draw("validating ...")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating += time.monotonic() - self._validation_start
        self._draw("")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw("testing ...")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw("")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = time.monotonic() - self._start
        training = max(seconds - self._validating, 1e-9)
        images = self._epoch_images * trainer.world_size
        self.train_seconds += seconds
        self.trained_seconds += training
        self.images += images
        self._draw("")
        pl_module.log_dict({"images_per_second": images / training, "seconds": seconds}, rank_zero_only=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._draw("")

    def state_dict(self) -> dict[str, Any]:
        return {"train_seconds": self.train_seconds, "trained_seconds": self.trained_seconds, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_seconds, self.trained_seconds = state_dict["train_seconds"], state_dict["trained_seconds"]
        self.images = state_dict["images"]

    def get_metrics(self, trainer, pl_module) -> dict:  # the base class would read metrics from the device
        return {}
