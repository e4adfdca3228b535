"""Checkpoints that describe themselves: written whole, read safely, and the allow-list of classes.

A checkpoint is data. It is loaded with `weights_only=True`, nothing in it is interpolated, and
the only objects built from it are networks and data sets of this package.
"""

import importlib
import inspect
import os
import pickle
import shlex
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ..errors import UserError
from .files import atomic_write

PACKAGE = __package__.rpartition(".")[0]  # of the project, whatever a fork calls it
# What torch raises for damaged files.
DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
MAX_CHANNELS = 1024
MAX_IMAGE_SIZE = 16_384
# Settings of the data that a network does not need: those of training, and the paths of a machine.
TRAINING_KEYS = ("augment", "mixup", "cutmix", "cache_dir", "cache_gb")


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: no such file, damaged, hostile, or not written by this project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"There is no checkpoint {path}.",
            "Give the path of a .ckpt file, such as runs/NAME/checkpoints/best.ckpt.",
        )
    content = _load(path)
    described = isinstance(content, dict) and isinstance(content.get("description"), dict)
    if not described or not isinstance(content.get("state_dict"), dict):
        raise UserError(
            f"{path} was not written by this project.",
            "Give a best.ckpt or last.ckpt from a run folder.",
        )
    problem = next(_find_problems(content), None)
    if problem is not None:
        raise UserError(
            f"{path} is not loaded: {problem}.",
            "Give a file that train.py has written, and check where this one comes from.",
        )
    return content


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that torch then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is not loaded: it is damaged, or holds more than tensors and plain values.",
            _suggest_sibling(path),
        ) from None
    except DAMAGED as error:
        raise UserError(
            f"{path} is damaged or cut short ({path.stat().st_size:,} bytes).",
            _suggest_sibling(path),
        ) from error


def _suggest_sibling(path: Path) -> str:
    for name in ("best.ckpt", "last.ckpt"):
        sibling = path.with_name(name)
        if sibling.is_file() and sibling != path:
            command = shlex.quote(f"resume={sibling}")
            return f"Use {sibling} instead; to resume from it: python train.py {command}"
    return "Get the file again from where it was written."


def _find_problems(content: Mapping[str, Any]) -> Iterator[str]:
    """What this project never writes and what could harm a reader who relies on it."""
    for name, tensor in content["state_dict"].items():
        yield from _tensor_problems(str(name), tensor)
    description = content["description"]
    yield from _input_problems(description)
    config = description.get("config") or {}
    parts = ("data", "task", "trainer")
    if not isinstance(config, Mapping) or not all(_is_mapping(config.get(part)) for part in parts):
        yield "its config is not a mapping"
    if not _is_mapping(description.get("data")):
        yield "its record of the data is not a mapping"


def _tensor_problems(name: str, tensor: Any) -> Iterator[str]:
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        yield f"{name} is not a plain tensor"
    elif tensor.nbytes > tensor.untyped_storage().nbytes():  # a view that repeats its values
        yield f"{name} of {tuple(tensor.shape)} is larger than the file"


def _input_problems(description: Mapping[str, Any]) -> Iterator[str]:
    classes = description.get("classes")
    if not isinstance(classes, list) or not classes or not _all_of(classes, str):
        yield "its class names are not a list of names"
    channels, size = description.get("channels"), description.get("image_size")
    if not _is_count(channels, MAX_CHANNELS):
        yield f"it expects images of {channels} channels"
    if size is not None and not _is_count(size, MAX_IMAGE_SIZE):
        yield f"it expects images of {size}x{size} pixels"
    for name in ("mean", "std"):
        values = description.get(name)
        complete = isinstance(values, list) and len(values) == channels
        if not complete or not _all_of(values, (int, float)):
            yield f"its {name} is not one number per channel"


def _is_mapping(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _all_of(values: Any, kind: type | tuple[type, ...]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_count(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= limit


def save(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a checkpoint beside its place and rename it once the disk has it.

    Lightning's own writer goes through the temporary folder of the system, from where a file on
    another disk is copied and not renamed.

    Raises:
        OSError: it cannot be written; the file that was there before is whole.
    """
    with atomic_write(path, "wb", sync=True) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what the zip writer makes of a failed write
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from None


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin, writing through `save`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        save(checkpoint, path)


def construct(spec: Mapping[str, Any], room: str, base: type, **overrides: Any) -> Any:
    """Build the class that `spec["_target_"]` names, with the rest of `spec` as its arguments.

    Only classes below `<this package>.<room>` are built. The first part of the target, the name
    of the package, is ignored: a fork that renames the package still loads its old checkpoints.

    Args:
        spec: plain values, as they are stored in a checkpoint.
        room: `models` or `datamodules`.
        base: what the class must derive from.
        overrides: arguments that replace those of `spec`.

    Raises:
        UserError: another target, or arguments that do not fit it.
    """
    target = str(spec.get("_target_"))
    cls = _find_class(target, room, base)
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    try:
        return cls(**(arguments | overrides))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{target} cannot be built with the arguments in the checkpoint: {error}.",
            "Use the version of the project that wrote it.",
        ) from error


def _find_class(target: str, room: str, base: type) -> type:
    remedy = f"Only classes of {PACKAGE}.{room} are built from a checkpoint; check its origin."
    parts = target.split(".")
    if len(parts) < 3 or parts[1] != room or not all(part.isidentifier() for part in parts):
        raise UserError(f"The checkpoint names {target!r} as a class to build.", remedy)
    name = parts[-1]
    try:
        module = importlib.import_module(".".join([PACKAGE, *parts[1:-1]]))
        cls = getattr(module, name)
    except (ImportError, AttributeError):
        raise UserError(
            f"The checkpoint needs {target}, which this project does not have.",
            f"Add the file of {name} to {PACKAGE}/{room}, or build the object yourself.",
        ) from None
    inside = getattr(cls, "__module__", "").startswith(f"{PACKAGE}.{room}")
    if not (inspect.isclass(cls) and issubclass(cls, base) and inside):
        problem = (
            f"The checkpoint names {target!r}, which is not a {base.__name__} of this project."
        )
        raise UserError(problem, remedy)
    return cls


def to_plain(value: Any) -> Any:
    """Nested values as plain Python types, which is all that a checkpoint may hold."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic | torch.Tensor):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
