"""`last.ckpt`: the newest state of a run, saved where a run can be resumed exactly."""

from pathlib import Path
from typing import Annotated, Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from pydantic import Field

from .base import EpochCallback


class LastCheckpoint(Checkpoint, EpochCallback):
    """Saves the newest state at the end of every epoch and, optionally, every some steps.

    Args:
        every_n_train_steps: optimizer steps between two checkpoints inside an epoch; None saves
            none there.
        dirpath: the folder; None is `checkpoints` in the trainer's root folder.
    """

    def __init__(
        self,
        every_n_train_steps: Annotated[int, Field(ge=1)] | None = None,
        dirpath: str | Path | None = None,
    ):
        self.every_n_train_steps = every_n_train_steps
        self.dirpath = dirpath
        self._saved_step = 0
        self._stop_error: BaseException | None = None
        if every_n_train_steps:
            self.on_train_batch_end = self._save_if_due

    @property
    def path(self) -> Path:
        return Path(self.dirpath or "checkpoints") / "last.ckpt"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.dirpath = self.dirpath or Path(trainer.default_root_dir) / "checkpoints"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save the current state."""
        self._saved_step = trainer.global_step
        if trainer.fast_dev_run:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)

    def save_and_stop(self, error: BaseException) -> None:
        """Save after the next step that can be resumed exactly, then raise `error`."""
        self._stop_error = error
        self.on_train_batch_end = self._save_if_due

    def _save_if_due(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if not _resumes_exactly(trainer, index):
            return
        every = self.every_n_train_steps
        due = every and trainer.global_step // every > self._saved_step // every
        if due or self._stop_error is not None:
            self.save(trainer)
        if self._stop_error is not None:
            raise self._stop_error


def _resumes_exactly(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a run that is resumed after this batch equals one that never stopped.

    Not while gradients are being accumulated, which a checkpoint does not hold. Nor before a
    validation or the end of an epoch, which Lightning would treat as if they were done.
    """
    between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    counts = (batch_idx + 1, trainer.fit_loop.total_batch_idx + 1)
    validation_follows = trainer.enable_validation and any(
        count % trainer.val_check_batch == 0 for count in counts
    )
    return between_steps and not validation_follows and not trainer.is_last_batch
