"""Checks of classes that users write: layers in plain lists, unknown hooks, missing bases."""

import logging
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from torch import nn

from ..errors import UserError
from .hydra_errors import closest, did_you_mean
from .layers import location
from .tracebacks import is_library

log = logging.getLogger(__name__)


def check_registered(model: nn.Module) -> None:
    """Whether the network knows all of its layers.

    Raises:
        UserError: a list or dict of layers that are neither trained nor saved.
    """
    known = set(map(id, model.parameters()))
    for module in model.modules():
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            layers = value.values() if isinstance(value, dict) else value
            unregistered = [layer for layer in layers if isinstance(layer, nn.Module)]
            parameters = {id(p) for layer in unregistered for p in layer.parameters()}
            if parameters - known:
                kind = "ModuleDict" if isinstance(value, dict) else "ModuleList"
                raise UserError(
                    f"{location(type(module))}: self.{name} is a {type(value).__name__} of layers, "
                    "which are neither trained nor saved.",
                    f"Write self.{name} = nn.{kind}(...).",
                )


def check_callbacks(callbacks: list[Any]) -> list[L.Callback]:
    """The callbacks that the trainer takes: without the usual progress where another one is added.

    Raises:
        UserError: an object that is no callback.
    """
    for callback in callbacks:
        if not isinstance(callback, L.Callback):
            raise UserError(
                f"{location(type(callback))}: {type(callback).__name__} is not a callback.",
                "Inherit lightning.Callback.",
            )
        warn_of_unknown_hooks(callback, L.Callback)
    bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    if len(bars) > 1:  # Lightning takes one
        callbacks = [c for c in callbacks if c not in bars[:-1]]
    return callbacks


def warn_of_unknown_hooks(instance: Any, base: type) -> None:
    """Log methods that are named as hooks and are none, such as `on_epoch_end`."""
    for name in _own_methods(type(instance)):
        if name.startswith("on_") and not hasattr(base, name):
            near = closest(name, (hook for hook in dir(base) if hook.startswith("on_")))
            log.warning(
                "%s.%s is not a hook of Lightning and is never called. %s",
                *(type(instance).__name__, name, did_you_mean(near) if near else ""),
            )


def _own_methods(cls: type) -> Iterator[str]:
    """Names that are defined outside of libraries."""
    for part in cls.__mro__:
        for name, value in vars(part).items():
            code = getattr(value, "__code__", None)
            if code is not None and not is_library(code.co_filename):
                yield name
