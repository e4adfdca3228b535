"""Averages of the weights over the training, on Lightning's WeightAveraging.

Validation and checkpoints use the averaged weights (`state_dict`); those of the optimizer are
stored beside them (`current_model_state`) for resume. Batch norm statistics are averaged too.
"""

from typing import Annotated, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from pydantic import Field

from .base import EpochCallback

Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Averaging(WeightAveraging, EpochCallback):
    """WeightAveraging that acts during `fit` only, and only once there is an average.

    Lightning's would replace the weights of the checkpoint that is evaluated after the training.
    A subclass calls `_next` in `should_update`.
    """

    def __init__(self) -> None:
        # torch's own averages cannot take integers on a GPU, such as batch norm's count of batches.
        super().__init__(avg_fn=self._average)
        self.num_averaged = 0
        self._fraction = 1.0

    def _next(self, fraction: float) -> bool:
        """Announce an update that gives the current weights this fraction of the average."""
        self._fraction = fraction
        self.num_averaged += 1
        return True

    def _average(
        self, average: torch.Tensor, current: torch.Tensor, num_averaged: torch.Tensor | int
    ) -> torch.Tensor:
        # In this form equal values stay equal to the last bit. Integers are not averaged.
        if not average.is_floating_point():
            return current
        return average + (current - average) * self._fraction

    def _is_active(self, trainer: L.Trainer) -> bool:
        return trainer.state.fn == "fit" and self.num_averaged > 0

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._is_active(trainer):
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._is_active(trainer):
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._is_active(trainer):
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict) -> None:
        if trainer.state.fn != "fit":
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self.num_averaged == 0:
            checkpoint["state_dict"] = checkpoint["current_model_state"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict) -> None:
        if trainer.state.fn != "fit":
            return
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if "averaging_state" in checkpoint:
            self.num_averaged = int(checkpoint["averaging_state"]["n_averaged"])


class EMA(_Averaging):
    """Exponential moving average of the weights, updated after every optimizer step.

    The decay of step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage, so that early averages do not depend on the random start. Lightning's
    EMAWeightAveraging has no such warm-up.

    Args:
        decay: fraction of the average that stays at each step.
    """

    def __init__(self, decay: Fraction = 0.999):
        self.decay = decay
        super().__init__()

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every step."""
        if step_idx is None:
            return False
        return self._next(1 - min(self.decay, (1 + step_idx) / (10 + step_idx)))


class SWA(_Averaging):
    """Stochastic weight averaging: the mean of the weights at the end of the last epochs.

    Until it starts, the weights are those of the optimizer. Use a schedule that keeps the learning
    rate up, such as `scheduler=constant` (Izmailov et al., Averaging Weights Leads to Wider Optima,
    2018).

    Args:
        start: fraction of the epochs after which it starts.
    """

    def __init__(self, start: Fraction = 0.75):
        self.start = start
        super().__init__()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._trainer = trainer

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After the last step of an epoch, before it is validated."""
        if step_idx is None or not self._trainer.is_last_batch:
            return False
        if self._trainer.current_epoch < self.start * (self._trainer.max_epochs or 0):
            return False
        return self._next(1 / (self.num_averaged + 1))
