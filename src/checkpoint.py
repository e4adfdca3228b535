"""Checkpoints that describe themselves: reading and writing them safely, and rebuilding networks and data from the file alone.

A checkpoint is data. It is loaded with `weights_only=True`, nothing in it is interpolated, and the only things that its text can
have built are networks below `src.models` and data sets below `src.datamodules`.
"""

import importlib
import inspect
import os
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.errors import UserError
from src.models.weights import check_weights, load_weights

# Of the settings of its data that a checkpoint tells: what is of no use behind the training, and where that machine kept its files.
OF_TRAINING = ("augment", "mixup", "cutmix", "cache_dir", "cache_gb")


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: no such file, damaged, hostile, or not written by this project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.", "Give the path of a .ckpt file, such as runs/.../checkpoints/best.ckpt.")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's remarks about pickles that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if "Unsupported" in str(error) or "GLOBAL" in str(error) else "it is damaged"
        if "Weights only load failed" in str(error):
            reason = "it holds more than tensors and plain values, or is damaged"
        raise UserError(f"{path} is not loaded: {reason}.", _remedy(path)) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged or cut short ({path.stat().st_size:,} bytes).", _remedy(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict) or not isinstance(content.get("description"), dict):
        raise UserError(f"{path} was not written by this project.", "Give a best.ckpt or last.ckpt from a run folder.")
    if wrong := next(_oddities(content), None):
        raise UserError(f"{path} is not loaded: {wrong}.", "Give a file that train.py has written, and check where this one comes from.")
    return content


def _oddities(content: Mapping[str, Any]) -> Iterator[str]:
    """What this project never writes, and what could hurt whoever takes it at its word."""
    for name, tensor in content["state_dict"].items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            yield f"{name} is no plain tensor"
        elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            yield f"{name} of {tuple(tensor.shape)} is larger than the file"  # a view that repeats its numbers
    facts = content["description"]
    classes, channels, size = facts.get("classes"), facts.get("channels"), facts.get("image_size")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        yield "its class names are no list of names"
    if not isinstance(channels, int) or not 0 < channels <= 1024 or not (size is None or (isinstance(size, int) and 0 < size <= 16_384)):
        yield f"it asks for pictures of {channels}x{size}x{size}"
    for name in ("mean", "std"):
        values = facts.get(name)
        if not isinstance(values, list) or len(values) != channels or not all(isinstance(value, int | float) for value in values):
            yield f"its {name} is not one number a channel"
    config = facts.get("config") or {}
    if not isinstance(config, Mapping) or not all(isinstance(config.get(part, {}), Mapping) for part in ("data", "task", "trainer")):
        yield "its config is no mapping"
    if not isinstance(facts.get("data") or {}, Mapping):
        yield "what it says of its data is no mapping"


def _remedy(path: Path) -> str:
    for other in ("best.ckpt", "last.ckpt"):
        if (sibling := path.with_name(other)).is_file() and sibling != path:
            return f"Use {sibling} instead; a run goes on from it with: python train.py {shlex.quote(f'resume={sibling}')}"
    return "Get the file again from where it was written."


def save(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a checkpoint beside its place and rename it once the disk has it, so that no moment finds half a file under its name.

    (Lightning's own goes by the system's temporary folder, from where a file on another disk is copied, not renamed.)

    Raises:
        OSError: it cannot be written; the file that was there before is whole.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # the zip writer's word for a write that failed
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    if os.name == "posix":  # the new name itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def construct(spec: Mapping[str, Any], package: str, base: type, **overrides: Any) -> Any:
    """Build the class that `spec["_target_"]` names, with the rest of `spec` as its arguments.

    Args:
        spec: plain values only, as they stand in a checkpoint.
        package: `models` or `datamodules`, the only places that are looked in.
        base: what the class must derive from.
        overrides: arguments that replace those of `spec`.

    Raises:
        UserError: another target, or arguments that do not fit it.
    """
    target = str(spec.get("_target_"))
    remedy = f"Only classes of src.{package} are built from a checkpoint; check where the file comes from."
    if not re.fullmatch(rf"src\.{package}(\.[A-Za-z_]\w*)+", target):
        raise UserError(f"The checkpoint asks for {target!r}.", remedy)
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(
            f"The checkpoint needs {target}, which is not here.", f"Add the file of {name} to src/{package}, or give the object yourself."
        ) from None
    if not (inspect.isclass(cls) and issubclass(cls, base) and cls.__module__.startswith(f"src.{package}")):
        raise UserError(f"The checkpoint asks for {target!r}, which is no {base.__name__} of this project.", remedy)
    arguments = {key: value for key, value in spec.items() if key != "_target_"} | overrides
    try:
        return cls(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{target} cannot be built with the arguments in the checkpoint: {error}.",
            "Use the version of the project that wrote it.",
        ) from None


def network(checkpoint: Mapping[str, Any], model: nn.Module | None = None) -> nn.Module:
    """The trained network of a checkpoint, without fetching any weights.

    Args:
        checkpoint: from `read`.
        model: the network to load the weights into, for a checkpoint whose task was composed by hand.

    Raises:
        UserError: no description of the network and no `model`, or weights of another architecture.
    """
    if model is None:
        spec = checkpoint["description"].get("model")
        if not isinstance(spec, dict) or checkpoint["description"].get("image_size") is None:
            raise UserError(
                "This checkpoint was written by a task composed by hand: it does not say how its network is built.",
                "Build the network yourself and pass it: src.load(path, model=net).",
            )
        without_weights = {"weights": None} if "weights" in spec else {}
        _try_on_paper(spec, checkpoint["state_dict"], without_weights)
        model = construct(spec, "models", nn.Module, **without_weights)
    with _two_lines():
        load_weights(model, _of_the_network(checkpoint["state_dict"]))
    return model


@contextmanager
def _two_lines() -> Iterator[None]:
    """What does not fit, told with what to do, which stands in the second line of a network's error."""
    try:
        yield
    except ValueError as error:
        problem, _, remedy = str(error).partition("\n")
        raise UserError(f"{problem[0].upper()}{problem[1:]}.", remedy) from None


def _of_the_network(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The network's part of a task's weights, by the names that it knows itself."""
    return {name.removeprefix("model.").replace("_orig_mod.", ""): tensor for name, tensor in state.items() if name.startswith("model.")}


def _try_on_paper(spec: Mapping[str, Any], state: Mapping[str, torch.Tensor], overrides: Mapping[str, Any]) -> None:
    """Build the network without memory and compare its weights with the file's: a spec that asks for the moon never gets it."""
    try:
        with torch.device("meta"):
            model = construct(spec, "models", nn.Module, **overrides)
    except NotImplementedError:  # a network that looks at its own numbers while it is built
        return
    with _two_lines():
        check_weights(model, _of_the_network(state))


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
