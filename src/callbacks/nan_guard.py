"""Stops a run that has diverged before it overwrites a good checkpoint."""

import math
from typing import Any

import lightning as L
import torch

from ..errors import UserError
from .base import EpochCallback


class NaNGuard(EpochCallback):
    """Stops at a training loss or at weights that are not finite.

    The loss is the mean of a log interval, which the task has read from the device anyway.

    Raises:
        UserError: the run has diverged.
    """

    def _check_loss(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        loss = getattr(getattr(pl_module, "running", None), "last_loss", None)
        if loss is not None and not math.isfinite(loss):
            raise _diverged(f"train/loss became {loss}", trainer)

    on_train_batch_end = on_train_epoch_start = on_train_end = _check_loss

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict) -> None:
        self._check_loss(trainer, pl_module)
        # Where weights are averaged, those of the optimizer are under another key.
        states = [checkpoint["state_dict"], checkpoint.get("current_model_state", {})]
        for value in (value for state in states for value in state.values()):
            if isinstance(value, torch.Tensor) and not value.isfinite().all():
                raise _diverged("The weights became nan or infinite", trainer)


def _diverged(problem: str, trainer: L.Trainer) -> UserError:
    return UserError(
        f"{problem} in epoch {trainer.current_epoch}, step {trainer.global_step}.",
        "Lower optimizer.lr, or limit the gradients with trainer.gradient_clip_val=1; "
        "the last good checkpoint is kept.",
    )
