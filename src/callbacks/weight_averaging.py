"""Averages of the weights over the training, on Lightning's `WeightAveraging`.

With either of these on, validation looks at the averaged weights, and so `best.ckpt` and `last.ckpt` hold them as `state_dict`; the
weights that the optimizer works on lie beside them, for resuming. The batch norm statistics are averaged as well.
"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging


class EMA(WeightAveraging):
    """Exponential moving average of the weights, behind every optimizer step.

    Early on the average is shorter, so that it does not hang on the random start: the decay of step t is
    min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage.

    Args:
        decay: share of the average that stays at each step, 0 to 1.

    Raises:
        ValueError: a decay outside 0 to 1.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is a share from 0 to 1, got {decay}")
        self.decay = decay
        super().__init__(avg_fn=self._average)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self._average_model is not None
        steps = int(self._average_model.n_averaged)  # here, not for each tensor: a GPU is waited for
        self._share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _average(self, average: torch.Tensor, current: torch.Tensor, num_averaged: torch.Tensor | int) -> torch.Tensor:
        return _towards(average, current, self._share)


def _towards(average: torch.Tensor, current: torch.Tensor, share: float | torch.Tensor) -> torch.Tensor:
    """In this form what never changes stays what it is, to the last bit. Whole numbers are not averaged."""
    return average + (current - average) * share if average.is_floating_point() else current


class SWA(WeightAveraging):
    """Stochastic weight averaging (Izmailov et al., 2018): the plain mean of the weights at the end of each of the last epochs.

    Until it starts the weights are what the optimizer made them. Use a schedule that keeps the rate up, such as `scheduler=constant`.

    Args:
        start: share of the epochs after which it starts, 0 to 1.

    Raises:
        ValueError: a start outside 0 to 1.
    """

    def __init__(self, start: float = 0.75):
        if not 0 <= start < 1:
            raise ValueError(f"start is a share from 0 to 1, got {start}")
        self.start = start
        super().__init__(avg_fn=self._average)  # torch's own cannot take whole numbers on a GPU, such as batch norm's count of batches

    def _average(self, average: torch.Tensor, current: torch.Tensor, num_averaged: torch.Tensor | int) -> torch.Tensor:
        return _towards(average, current, 1 / (num_averaged + 1))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._trainer = trainer

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """At the last step of an epoch, before it is validated."""
        trainer = self._trainer
        begun = trainer.current_epoch >= self.start * (trainer.max_epochs or 0)
        return step_idx is not None and begun and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        if self._average_model is not None and int(self._average_model.n_averaged) > 0:  # else there is no average yet
            super()._swap_models(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_model is not None and int(self._average_model.n_averaged) == 0:
            checkpoint["state_dict"] = checkpoint["current_model_state"]
