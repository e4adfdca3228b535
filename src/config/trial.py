"""A trial of the network, the optimizer and the loss before any data are read.

The network takes two empty images. It is first built on the meta device, without memory for its
weights: VGG's 138 million need not be drawn to find that the images are too small. What cannot run
there is tried for real. An exception of the network's own code is not changed, it gets a note.
"""

import inspect
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..errors import UserError
from ..tasks import optim
from .factory import guarded
from .layers import layer_notes, location
from .plain import resolved
from .settings import is_enabled
from .tracebacks import own_frames
from .validate import parameters

IMAGES = 2  # of a trial
SIZES = (32, 64, 96, 128, 224, 299)  # proposed where images are too small


def check_signature(
    network: Callable, settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Whether a network takes what follows from the data, and gets all that it needs.

    Args:
        settings: the arguments that its YAML file gives.
        facts: the arguments that follow from the data, such as `in_channels`.
    """
    try:
        inspect.signature(network).bind_partial(**facts)
    except TypeError as error:
        raise UserError(
            f"{location(network)}: {network.__name__} {error}.",
            "Write def __init__(self, in_channels, num_classes, ...): both come from the data.",
        ) from None
    known, _ = parameters(network)
    for name, attribute in (("in_channels", "channels"), ("num_classes", "classes")):
        needed = name in known and known[name].default is inspect.Parameter.empty
        if needed and name not in facts and name not in settings:
            raise UserError(
                f"{network.__name__} needs {name}, but the data module has no {attribute}.",
                f"Set self.{attribute} in its __init__, or +model.{name}=... on the command line.",
            )


def try_on_meta(
    build: Callable[[], nn.Module], channels: int, image_size: int, num_classes: int
) -> bool:
    """Build a network on the meta device and try it there.

    Args:
        build: makes the network; what it prints is lost, since it is built again for real.

    Returns:
        Whether that was possible; False means that the network has to be tried for real.

    Raises:
        UserError: settings that the network refuses, or another number of outputs than classes;
            for a network with the attribute `suggest_image_size`, images that are too small.
    """
    model: nn.Module | None = None
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        try:
            with _undisturbed(), torch.device("meta"):
                model = build()
            if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
                return False
            output = _forward(model, channels, image_size, "meta")
        except UserError:
            raise
        except Exception as error:  # the real network raises it again
            if model is not None and getattr(model, "suggest_image_size", False):
                _suggest_image_size(model, channels, image_size, error)
            return False
    _check_output(model, output, num_classes)
    return True


def check_model(model: nn.Module, channels: int, image_size: int, num_classes: int) -> None:
    """Try a network on the CPU.

    Raises:
        UserError: another number of outputs than classes.
        Exception: whatever its own code raises, with notes on the layer and the images.
    """
    try:
        with layer_notes(model):
            output = _forward(model, channels, image_size, "cpu")
    except Exception as error:
        shape = f"{channels}x{image_size}x{image_size}"
        error.add_note(f"Raised in a trial with {IMAGES} empty images of {shape}.")
        raise
    _check_output(model, output, num_classes)


def _forward(model: nn.Module, channels: int, image_size: int, device: str) -> Any:
    """The output for empty images, in evaluation mode."""
    training = model.training
    model.eval()
    try:
        with _undisturbed():
            return model(torch.zeros(IMAGES, channels, image_size, image_size, device=device))
    finally:
        model.train(training)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without an effect on random numbers; breakpoints wait for a batch of real images."""
    hook = sys.breakpointhook
    sys.breakpointhook = lambda *args, **kwargs: None
    try:
        with isolate_rng(include_cuda=False):
            yield
    finally:
        sys.breakpointhook = hook


def _check_output(model: nn.Module, output: Any, num_classes: int) -> None:
    """Raise a `UserError` where the output is not one logit per image and class."""
    name = type(model).__name__
    if not isinstance(output, torch.Tensor):
        kind = "nothing" if output is None else f"a {type(output).__name__}"
        raise UserError(
            f"{name} returns {kind} instead of logits.",
            "Return one tensor of shape (N, num_classes) from forward.",
        )
    if output.ndim == 2 and output.shape[0] != IMAGES and output.shape[1] == num_classes:
        raise UserError(
            f"{name} returns logits of {output.shape[0]} images for {IMAGES} images.",
            "Keep the first axis in forward: x.flatten(1), or x.view(x.shape[0], -1).",
        )
    if tuple(output.shape) != (IMAGES, num_classes):
        raise UserError(
            f"{name} returns a tensor of shape {tuple(output.shape)} for {IMAGES} images, "
            f"but the data have {num_classes} classes.",
            "Return logits of shape (N, num_classes): end the network with num_classes outputs.",
        )
    if not output.requires_grad:
        frozen = not any(parameter.requires_grad for parameter in model.parameters())
        reason = (
            "none has requires_grad=True" if frozen else "detach, item or no_grad cuts them off"
        )
        raise UserError(
            f"The output of {name} does not depend on parameters that can be trained: {reason}.",
            f"Correct {location(type(model))}.",
        )


def _suggest_image_size(model: nn.Module, channels: int, image_size: int, error: Exception) -> None:
    for size in SIZES:
        if size > image_size:
            try:
                _forward(model, channels, size, "meta")
            except Exception:  # too small as well
                continue
            shape = f"{channels}x{image_size}x{image_size}"
            raise UserError(
                f"{type(model).__name__} does not take images of {shape}.",
                f"Add data.image_size={size}.",
            ) from error


def check_monitors(cfg: DictConfig, task: Any, datamodule: Any) -> None:
    """Whether everything that watches a metric watches one that the task logs."""
    if not hasattr(task, "metric_names"):
        return
    names = set(task.metric_names)
    if getattr(datamodule, "mixup", 0) or getattr(datamodule, "cutmix", 0):
        names.discard("train/acc")  # mixed labels have no accuracy
    watching = {"scheduler": resolved(cfg.get("scheduler")) or {}}
    for name, node in (resolved(cfg.get("callbacks")) or {}).items():
        if is_enabled(node):
            watching[f"callbacks.{name}"] = node
    for path, node in watching.items():
        monitor = node.get("monitor")
        if monitor is not None and monitor not in names:
            raise UserError(
                f"{path}.monitor={monitor} is not a metric of this run.",
                f"Choose one of {', '.join(sorted(names))}.",
            )


def try_optimizer(optimizer: Callable | None, scheduler: Callable | None) -> None:
    """One step of both with one parameter, so that refused values show before data are read."""
    if optimizer is None:
        return
    made = guarded("optimizer", optimizer, [nn.Parameter(torch.zeros(1, 1))])
    if scheduler is not None:
        length = 1_000_000  # it is not known yet: long enough for any warm-up
        schedule = guarded("scheduler", optim.build_scheduler, scheduler, made, lambda: length)
        metric = [0.0] if isinstance(schedule, ReduceLROnPlateau) else []
        with warnings.catch_warnings(action="ignore"):  # it steps before its optimizer
            guarded("scheduler", schedule.step, *metric)


def try_loss(loss: Callable, datamodule: Any) -> None:
    """One call of the loss, with mixed labels where the data have them."""
    num_classes = len(datamodule.classes)
    labels = torch.arange(num_classes + 1) % num_classes  # a number that cannot be broadcast
    if getattr(datamodule, "mixup", 0) or getattr(datamodule, "cutmix", 0):
        labels = torch.eye(num_classes)[labels]
    outputs = torch.zeros(len(labels), num_classes)
    try:
        with warnings.catch_warnings(action="ignore"):
            loss(outputs, labels)
    except Exception as error:
        if _runs(loss, labels, outputs):
            raise UserError(
                f"task.loss: {type(loss).__name__} takes (labels, logits), and is called with "
                "(logits, labels).",
                f"Swap the arguments of forward in {location(type(loss))}.",
            ) from None
        if labels.ndim == 1 and _runs(loss, outputs, torch.zeros_like(outputs)):
            raise UserError(
                f"task.loss: {type(loss).__name__} takes one number per class and image as labels, "
                "and the labels are class indices.",
                "Use torch.nn.CrossEntropyLoss, or a loss of your own with "
                "torch.nn.functional.one_hot(labels, num_classes).float().",
            ) from None
        if any(own_frames(error)):
            error.add_note("The loss was called as loss(logits, labels): float (N, C), int64 (N,).")
            raise
        guarded("task.loss", loss, outputs, labels)


def _runs(function: Callable, *args: torch.Tensor) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            function(*args)
    except Exception:
        return False
    return True
