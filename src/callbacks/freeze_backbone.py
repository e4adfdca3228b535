"""Training the head of a network while its backbone is frozen."""

from typing import Annotated, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from pydantic import Field

from ..errors import UserError
from .base import EpochCallback


class FreezeBackbone(EpochCallback):
    """Freezes all but the last layer (`head` of the task), for the whole run or its first epochs.

    Frozen layers stay in evaluation mode, batch norm included.

    Args:
        epochs: number of first epochs; None is the whole run.

    Raises:
        UserError: several processes, which cannot release layers during a run.
    """

    def __init__(self, epochs: Annotated[int, Field(ge=1)] | None = None):
        self.epochs = epochs
        self.freezes_whole_run = epochs is None
        self._frozen = False

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if self.freezes_whole_run:
            self._freeze(pl_module)  # before the optimizer is built: it gets the head alone
        elif trainer.world_size > 1:
            raise UserError(
                f"callbacks.freeze_backbone.epochs={self.epochs} releases the backbone during the "
                "run, which is not possible on several processes.",
                "Use callbacks.freeze_backbone.epochs=null, or one process.",
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning skips on_train_epoch_start for an epoch that is resumed in the middle.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        freeze = self.epochs is None or trainer.current_epoch < self.epochs
        if freeze and not self._frozen:
            self._freeze(pl_module)  # the optimizer has all parameters by now
        elif self._frozen and not freeze:
            self._release(trainer, pl_module)

    def _freeze(self, pl_module: Any) -> None:
        BaseFinetuning.freeze(pl_module.model, train_bn=False)
        BaseFinetuning.make_trainable(pl_module.head)
        # Lightning restores the modes of all layers after each validation.
        pl_module.model.eval()
        pl_module.head.train()
        self._frozen = True

    def _release(self, trainer: L.Trainer, pl_module: Any) -> None:
        BaseFinetuning.make_trainable(pl_module.model)
        pl_module.model.train()
        self._frozen = False
        for optimizer in trainer.optimizers:
            _fill_in_momentum(optimizer)


def _fill_in_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give the released parameters a momentum of 0: fused SGD needs one for all or for none."""
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD) and group["momentum"] and group["fused"]:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                state.setdefault("momentum_buffer", torch.zeros_like(parameter))
