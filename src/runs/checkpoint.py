"""Checkpoints that describe themselves: what is believed of them, and what is built from them.

A checkpoint is data. It is loaded with `weights_only=True`, nothing in it is interpolated, and
the only objects built from it are networks and data sets of this package.
"""

import importlib
import inspect
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from ..errors import UserError
from . import hub_folder
from .checkpoint_file import load

PACKAGE = __package__.rpartition(".")[0]  # of the project, whatever a fork calls it
# Settings of the data that are not taken from a checkpoint: those of training, ...
TRAINING_KEYS = ("augment", "mixup", "cutmix", "drop_last", "balance")
# ... and those that belong to the machine.
MACHINE_KEYS = (
    *("root", "csv", "path", "cache_dir", "cache_gb", "bad_files"),
    *("batch_size", "eval_batch_size", "num_workers", "pin_memory", "device_resident"),
)
# 21,843 classes of ImageNet-21k; the square of the number is that of the confusion matrix.
MAX_CLASSES = 25_000
ClassName = Annotated[str, Field(max_length=1000)]
ImageSize = Annotated[int, Field(gt=0, le=2048)]  # pixels


class _Config(TypedDict, total=False):
    data: dict | None
    task: dict | None
    trainer: dict | None


class _Description(TypedDict):
    """What the readers of a checkpoint rely on."""

    classes: Annotated[list[ClassName], Field(min_length=1, max_length=MAX_CLASSES)]
    channels: Annotated[int, Field(gt=0, le=1024)]
    image_size: NotRequired[ImageSize | None]
    mean: list[float]
    std: list[float]
    config: NotRequired[_Config | None]
    data: NotRequired[dict | None]
    fitted_on: NotRequired[list[str]]


def find(path: str | os.PathLike) -> Path:
    """The file itself, the best checkpoint of a run folder, or the weights of a hub folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    weights = path / hub_folder.WEIGHTS
    return weights if weights.is_file() else path / "checkpoints" / "best.ckpt"


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, or of the one that `find` names, on the CPU.

    Raises:
        UserError: no such file, damaged, hostile, or not written by this project.
    """
    path = find(path)
    is_hub = path.suffix == hub_folder.SUFFIX
    return check(path, hub_folder.read(path) if is_hub else read_state(path))


def check(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint file, if it describes a network of this project.

    Raises:
        UserError: it does not, or it holds what could harm a reader.
    """
    if "description" not in content and "run_record" in content:
        raise UserError(
            f"{path} is of a task that is not derived from ClassificationTask.",
            "Load it with load_from_checkpoint of its class; train.py resume=... continues it.",
        )
    if not isinstance(content.get("description"), dict):
        raise _foreign(path)
    problem = find_problem(content["description"])
    if problem is not None:
        raise _refused(path, problem)
    return content


def read_state(path: Path) -> dict[str, Any]:
    """The content of the checkpoint file of any task, on the CPU.

    Raises:
        UserError: no such file, damaged, or more than plain tensors and values.
    """
    if not path.is_file():
        raise UserError(
            f"There is no checkpoint {path}.",
            "Give a .ckpt file, or the folder of a run that has checkpoints/best.ckpt.",
        )
    try:
        content = load(path)
    except (ValueError, OSError) as error:
        size = f"{path.stat().st_size:,} bytes"
        raise UserError(f"{path} {error} ({size}).", _other_file(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise _foreign(path)
    for name, tensor in content["state_dict"].items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise _refused(path, f"{name} is not a tensor with a name")
    return content


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path} was not written by this project.",
        "Give a best.ckpt or last.ckpt from a run folder.",
    )


def _refused(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path} is not loaded: {problem}.",
        "Give a file that train.py has written, and check where this one comes from.",
    )


def _other_file(path: Path) -> str:
    for name in ("best.ckpt", "last.ckpt"):
        sibling = path.with_name(name)
        if sibling.is_file() and sibling != path:
            command = shlex.quote(f"resume={sibling}")
            return f"Use {sibling} instead; to resume from it: python train.py {command}"
    return "Get the file again from where it was written."


def find_problem(description: Mapping[str, Any]) -> str | None:
    """What this project never writes and what could harm a reader who relies on it."""
    try:
        TypeAdapter(_Description).validate_python(description, strict=True)
    except ValidationError as error:
        detail = error.errors()[0]
        return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
    if not len(description["mean"]) == len(description["std"]) == description["channels"]:
        return "mean and std are not one number per channel"
    return None


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
    cls = find_class(target, room, base)
    arguments = {key: value for key, value in spec.items() if key != "_target_"}
    try:
        return cls(**(arguments | overrides))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{target} cannot be built with the arguments in the checkpoint: {error}.",
            "Use the version of the project that wrote it.",
        ) from error


def find_class(target: str, room: str, base: type) -> type:
    """The class that a target names, if `construct` may build it.

    Raises:
        UserError: it names anything else.
    """
    remedy = f"Only classes of {PACKAGE}.{room} are built from a checkpoint; check its origin"
    remedy += ", or type the data set: data=NAME." if room == "datamodules" else "."
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
        kind = f"a {base.__name__} of this project"
        raise UserError(f"The checkpoint names {target!r}, which is not {kind}.", remedy)
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
