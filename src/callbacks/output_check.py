"""A check of the first training batch: outputs that are no logits, and a negative loss."""

import logging
from typing import Any

import lightning as L
import torch
from torch import nn

from .base import EpochCallback

log = logging.getLogger(__name__)


class OutputCheck(EpochCallback):
    """Warns once where the outputs of the network do not fit the loss."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_batch_end = self._check

    def _check(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.on_train_batch_end = None
        if isinstance(outputs, dict):
            criterion = getattr(pl_module, "loss", None)
            problem = find_problem(outputs.get("logits"), outputs["loss"], criterion)
            if problem is not None:
                log.warning("%s", problem)


def find_problem(logits: torch.Tensor | None, loss: torch.Tensor, criterion: Any) -> str | None:
    """What does not fit, and what to do; None where all is well.

    Args:
        logits: outputs of the network, (N, num_classes), or None.
        loss: of the batch.
        criterion: the function that computed it.
    """
    is_cross_entropy = isinstance(criterion, nn.CrossEntropyLoss)
    if logits is not None and is_cross_entropy and _sums_to_one(logits):
        return (
            "The outputs of the network sum to one for each image, but CrossEntropyLoss applies "
            "softmax itself: leave softmax out of forward."
        )
    if logits is not None and is_cross_entropy and _sums_to_one(logits.float().exp()):
        return (
            "The outputs of the network are log-probabilities, but CrossEntropyLoss applies "
            "log_softmax itself: leave log_softmax out of forward."
        )
    if loss < 0:
        return (
            f"The loss of the first batch is negative ({float(loss):.4f}). NLLLoss expects "
            "log-probabilities: use torch.nn.CrossEntropyLoss with logits, or log_softmax."
        )
    return None


def _sums_to_one(values: torch.Tensor) -> bool:
    sums = values.float().sum(1)
    return bool((values >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-2))
