"""Which layer of a network fails, where it is called, and what shapes it got and expects."""

import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .tracebacks import own_frames

# Attributes of layers that say what input they are built for: name, unit, axis of the input.
BUILT_FOR = (
    ("in_features", "features", -1),
    ("in_channels", "channels", 1),
    ("num_features", "channels", 1),
)


@contextmanager
def layer_notes(model: nn.Module) -> Iterator[None]:
    """Add a note on the layer to an exception that a call of the network raises."""
    names = {module: name for name, module in model.named_modules() if name}
    entered: list[tuple[str, nn.Module, tuple]] = []  # layers that are being called
    returned: list[tuple[str, Any]] = []  # layers that have returned, with their outputs

    def enter(module: nn.Module, inputs: tuple) -> None:
        entered.append((names[module], module, inputs))

    def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
        entered.pop()
        returned[:] = [(names[module], output)]

    hooks = [module.register_forward_pre_hook(enter) for module in names]
    hooks += [module.register_forward_hook(leave) for module in names]
    try:
        yield
    except Exception as error:
        place = _place(error)
        if place is None:  # such as a forward without self, or none at all
            error.add_note(f"{type(model).__name__} is defined in {location(type(model))}.")
        elif entered:
            name, layer, inputs = entered[-1]
            error.add_note(f"{place}, self.{name}: {_got(layer, inputs)}.")
        elif returned:
            name, output = returned[-1]
            error.add_note(f"{place}: the layer before, self.{name}, returned {_shape(output)}.")
        raise
    finally:
        for hook in hooks:
            hook.remove()


def _place(error: Exception) -> str | None:
    """File and line of the last frame in code that people write."""
    lines = dict(traceback.walk_tb(error.__traceback__))
    frames = list(own_frames(error))
    if not frames:
        return None
    return f"{os.path.basename(frames[-1].f_code.co_filename)}:{lines[frames[-1]]}"


def _got(layer: nn.Module, inputs: tuple) -> str:
    """What a layer got and what it expects."""
    shape = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], torch.Tensor) else ()
    for attribute, unit, axis in BUILT_FOR:
        expected = getattr(layer, attribute, None)
        if isinstance(expected, int) and len(shape) > 1 and shape[axis] != expected:
            return f"got {shape[axis]} {unit} in {shape}, expects {expected}"
    return f"got {_shape(inputs[0] if inputs else None)}"


def _shape(value: Any) -> str:
    return (
        f"{tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
    )


def location(target: Callable) -> str:
    """File and line of a class or function."""
    try:
        file, line = inspect.getsourcefile(target), inspect.getsourcelines(target)[1]
        return f"{os.path.relpath(file or '')}:{line}"
    except (OSError, TypeError):  # written in C, or in a notebook
        return target.__module__
