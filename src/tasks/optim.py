"""Parameter groups, optimizers and learning-rate schedules of a task."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ..errors import UserError

OptimizerFactory = Callable[..., torch.optim.Optimizer]
SchedulerFactory = Callable[..., LRScheduler]

# Arguments of schedules that stand for the length of the run. Those that are None are filled in.
LENGTH_ARGUMENTS = ("total_steps", "T_max", "total_iters")


def find_head(model: nn.Module, num_classes: int) -> nn.Module:
    """The last layer with parameters, which computes the logits; the rest is the backbone.

    Raises:
        UserError: it does not have one output per class.
    """
    head = [m for m in model.modules() if list(m.parameters(recurse=False))][-1]
    outputs = getattr(head, "out_features", getattr(head, "out_channels", None))
    if outputs != num_classes:
        raise UserError(
            f"{type(model).__name__} has no head of {num_classes} outputs: "
            f"its last layer with parameters is {head}.",
            "Build the network so that its last layer computes the logits, "
            "or use neither callbacks.freeze_backbone nor task.backbone_lr.",
        )
    return head


def parameter_groups(
    model: nn.Module, head: nn.Module | None, decay_norm_and_bias: bool
) -> list[dict[str, Any]]:
    """Trainable parameters in groups: backbone before head, with and without weight decay.

    Args:
        model: parameters that do not require a gradient are left out.
        head: None makes no difference between backbone and head.
        decay_norm_and_bias: False gives vectors (norm layers and biases) a group without weight
            decay (He et al., Bag of Tricks, 2019).

    Returns:
        Groups with `params`, `backbone` (bool) and, where it is 0, `weight_decay`.
    """
    head_ids = {id(p) for p in (model if head is None else head).parameters()}
    groups: list[dict[str, Any]] = []
    for backbone in (True, False):
        part = [p for p in model.parameters() if (id(p) not in head_ids) == backbone]
        part = [p for p in part if p.requires_grad]
        if not decay_norm_and_bias:
            vectors = [p for p in part if p.ndim <= 1]
            groups.append({"params": vectors, "backbone": backbone, "weight_decay": 0.0})
            part = [p for p in part if p.ndim > 1]
        groups.append({"params": part, "backbone": backbone})
    return [group for group in groups if group["params"]]


def build_optimizer(
    factory: OptimizerFactory, groups: Sequence[dict[str, Any]], backbone_lr: float, fused: bool
) -> torch.optim.Optimizer:
    """An optimizer over parameter groups.

    Args:
        factory: called with the parameters.
        groups: from `parameter_groups`.
        backbone_lr: learning rate of the backbone, as a fraction of the optimizer's.
        fused: taken where the factory leaves `fused` at None.

    Raises:
        UserError: an optimizer in place of the factory.
    """
    _require_factory("optimizer", factory)
    left_open = getattr(factory, "keywords", {}).get("fused", True) is None
    options = {"fused": fused} if left_open else {}
    parameters: Any = list(groups)
    if len(groups) == 1 and "weight_decay" not in groups[0]:
        parameters = groups[0]["params"]
    optimizer = factory(parameters, **options)
    for group in optimizer.param_groups:
        if group.get("backbone"):
            group["lr"] *= backbone_lr
    return optimizer


def build_scheduler(
    factory: SchedulerFactory, optimizer: torch.optim.Optimizer, length: Callable[[], int]
) -> LRScheduler:
    """A schedule with the arguments filled in that are None: its length, and `max_lr`.

    Args:
        factory: called with the optimizer.
        length: gives the steps or epochs of the whole run; called where the schedule needs it.

    Raises:
        UserError: the run is too short for the schedule; a schedule in place of the factory.
    """
    _require_factory("scheduler", factory)
    given = getattr(factory, "keywords", {})
    filled: dict[str, Any] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        value = given.get(name, parameter.default)
        if value is not None and value is not inspect.Parameter.empty:
            continue
        if name in LENGTH_ARGUMENTS:
            filled[name] = length()
        elif name == "max_lr":
            filled[name] = [group["lr"] for group in optimizer.param_groups]
    try:
        return factory(optimizer, **filled)
    except ZeroDivisionError as error:  # OneCycleLR over a few steps
        raise UserError(
            f"The schedule does not fit into a run of {length()} steps or epochs.",
            "Train longer, or choose another scheduler.",
        ) from error


def _require_factory(argument: str, factory: Any) -> None:
    if not callable(factory):
        name = type(factory).__name__
        raise UserError(
            f"{argument}= is a {name} that is built already; the task builds it itself.",
            f"Give {argument}=functools.partial({name}, ...) with its settings.",
        )


def run_length(trainer: Any, interval: str) -> int:
    """Steps or epochs of the whole run.

    Raises:
        UserError: the settings of the trainer do not determine it.
    """
    length = trainer.max_epochs if interval == "epoch" else trainer.estimated_stepping_batches
    if length is None or not 0 < length < math.inf:
        raise UserError(
            "The schedule needs the length of the run, and trainer.max_epochs does not give it.",
            "Set trainer.max_epochs, or choose scheduler=step or scheduler=constant.",
        )
    return int(length)


def can_fuse(trainer: Any) -> bool:
    """Whether a fused optimizer works; Lightning refuses one with clipping and mixed precision."""
    clipped = trainer.gradient_clip_val and "mixed" in str(trainer.precision)
    return trainer.strategy.root_device.type in ("cpu", "cuda") and not clipped
