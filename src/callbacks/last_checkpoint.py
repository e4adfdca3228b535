"""`last.ckpt`: the newest state of a run, taken at moments from which the run goes on exactly as if it had never stopped."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest state, at the end of every epoch and every some steps.

    Lightning takes a state saved between a batch and the validation behind it for one saved behind both, and leaves that validation
    out when it goes on. A step checkpoint that falls due there waits for the next batch, or for the epoch's end.

    Args:
        every_n_train_steps: steps of the optimizer between two checkpoints inside an epoch; None takes none there.
        dirpath: the folder.
    """

    def __init__(self, every_n_train_steps: int | None = None, dirpath: str | Path | None = None):
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps is a number of steps above 0 or null, got {every_n_train_steps}")
        super().__init__(dirpath, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False)
        self.every = every_n_train_steps
        self._saved_step = 0

    @staticmethod
    def exact(trainer: L.Trainer, batch_idx: int) -> bool:
        """Whether a run that goes on from behind this batch is the same as one that never stopped."""
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # else gradients are under way, which no file holds
        done = (batch_idx + 1, trainer.fit_loop.total_batch_idx + 1)
        validation_follows = trainer.enable_validation and any(count % trainer.val_check_batch == 0 for count in done)
        return between_steps and not validation_follows and not trainer.is_last_batch

    def save(self, trainer: L.Trainer) -> None:
        """Write the state as it is."""
        self._saved_step = trainer.global_step
        self._save_checkpoint(trainer, self.format_checkpoint_name({}))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.every and trainer.global_step // self.every > self._saved_step // self.every and self.exact(trainer, batch_idx):
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_step = trainer.global_step
        super().on_train_epoch_end(trainer, pl_module)
