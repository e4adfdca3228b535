"""Class weights in the training loss."""

from typing import Any

import lightning as L
from torch import nn

from ..errors import UserError
from .base import EpochCallback


class ClassWeights(EpochCallback):
    """Gives the datamodule's `class_weights` (`data.balance=loss`) to the loss of the task."""

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        weights = getattr(trainer.datamodule, "class_weights", None)
        if stage != "fit" or weights is None:
            return
        loss = pl_module.loss
        learned = isinstance(getattr(loss, "weight", None), nn.Parameter)
        if not hasattr(loss, "weight") or learned:
            raise UserError(
                f"data.balance=loss needs a loss with class weights; {type(loss).__name__} has no "
                "attribute `weight`.",
                "Use task.loss._target_=torch.nn.CrossEntropyLoss, or data.balance=sampler.",
            )
        del loss.weight
        # A buffer moves with the module; not persistent, since it belongs to the data.
        loss.register_buffer("weight", weights.to(pl_module.device), persistent=False)
