"""A check of the first batches: what the network gets and gives, its gradients, and the loss."""

import logging
from typing import Any

import lightning as L
import torch
from torch import nn

from ..tasks import ClassificationTask
from .base import EpochCallback

log = logging.getLogger(__name__)

MANY = 20  # outputs that are not between 0 and 1, or above 0, by chance


class OutputCheck(EpochCallback):
    """Warns once where network, task and loss do not fit one another."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, ClassificationTask):
            self._hook = pl_module.register_forward_pre_hook(self._check_images)
            self.on_after_backward = self._check_gradients
            self.on_train_batch_end = self._check_outputs
            self.on_validation_batch_start = self._check_repeatability

    def _check_images(self, pl_module: Any, inputs: tuple) -> None:
        self._hook.remove()
        images = inputs[0]
        if not isinstance(images, torch.Tensor):
            return  # a task with batches of its own
        if images.is_floating_point() and images.ndim == 4 and 0 < images.max() <= 1:
            log.warning(
                "The images of the first batch run from 0 to 1, but the task takes 0 to 255 and "
                "normalizes by itself: neither divide nor normalize in data.augment or "
                "training_step."
            )

    def _check_gradients(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.on_after_backward = None
        parameters = pl_module.model.named_parameters()
        names = [name for name, p in parameters if p.requires_grad and p.grad is None]
        if names:
            log.warning(
                "%s parameters of the network get no gradient and are not trained: %s. "
                "forward does not use them, or no_grad or detach cuts them off.",
                *(len(names), ", ".join(names[:3]) + ", ..." * (len(names) > 3)),
            )

    def _check_outputs(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.on_train_batch_end = None
        if isinstance(outputs, dict) and "loss" in outputs:
            problem = find_problem(outputs.get("logits"), outputs["loss"], pl_module.loss)
            if problem is not None:
                log.warning("%s", problem)

    def _check_repeatability(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int, *args: int
    ) -> None:
        self.on_validation_batch_start = None
        is_compiled = getattr(pl_module.model, "_compiled_call_impl", None) is not None
        if is_compiled or not isinstance(batch, list | tuple):
            return  # it would be compiled again for two images; or a batch of another form
        images = batch[0][:2]
        once, twice = pl_module(images), pl_module(images)
        if not torch.allclose(once, twice, rtol=1e-2, atol=1e-3, equal_nan=True):
            log.warning(
                "In evaluation mode the network gives other outputs for the same images: layers "
                "are made in forward, or dropout is applied without training=self.training. A "
                "checkpoint will not give these metrics again."
            )


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
    if logits is not None and is_cross_entropy and logits.numel() >= MANY and logits.max() > 0:
        name = _activation(logits)
        if name is not None:
            return (
                f"The outputs of the network look like those of {name}, but CrossEntropyLoss takes "
                "any numbers: end the network with its last linear layer."
            )
    if loss < 0:
        return (
            f"The loss of the first batch is negative ({float(loss):.4f}). NLLLoss expects "
            "log-probabilities: use torch.nn.CrossEntropyLoss with logits, or log_softmax."
        )
    return None


def _activation(outputs: torch.Tensor) -> str | None:
    """The activation whose outputs these may be."""
    if _sums_to_one(outputs.T):
        return "softmax over the images"
    if outputs.min() >= 0 and outputs.max() <= 1:
        return "sigmoid"
    if outputs.min() == 0:
        return "relu"
    return None


def _sums_to_one(values: torch.Tensor) -> bool:
    sums = values.float().sum(1)
    return bool((values >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-2))
