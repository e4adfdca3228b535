"""Trained weights: reading files, comparing them with a network, and errors on the way."""

import difflib
import os
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that holds a state dict, as torchvision's downloads do.

    Raises:
        UserError: there is no such file, it is damaged, or it holds more than tensors.
    """
    try:
        content = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error) or "the file ends too early").splitlines()[0]
        raise UserError(
            f"The weights file {path} cannot be loaded: {reason}",
            "Give a file with a state dict, a name such as DEFAULT, or model.weights=null.",
        ) from None
    tensors = content.values() if isinstance(content, Mapping) else [None]
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise UserError(
            f"{path} holds no state dict.",
            "Save the weights with torch.save(net.state_dict(), path).",
        )
    return dict(content)


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load `weights` into `model` after `check_weights`."""
    check_weights(model, weights)
    model.load_state_dict(weights)


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Compare names and shapes of `weights` with those of the network, which may be on "meta".

    Raises:
        UserError: the weights belong to another architecture; names the first differences.
    """
    own = model.state_dict()
    differences = [f"{name} is missing" for name in own if name not in weights]
    differences += [f"{name} is not in the network" for name in weights if name not in own]
    differences += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"The weights belong to another architecture than {type(model).__name__}: "
            f"{'; '.join(differences[:3])}{more}.",
            "Build the network with the arguments that it was trained with.",
        )


def check_name(library: str, name: str, known: Collection[str]) -> None:
    """Raise a `UserError` with similar names unless a library has a classifier of this name."""
    if name not in known:
        similar = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        raise UserError(
            f"{library} has no classifier {name!r}.",
            f"Similar names: {', '.join(similar) or 'none'}.",
        )


def download_error(name: str, source: str, error: OSError) -> UserError:
    """Return the error for trained weights that cannot be downloaded from `source`."""
    reason = str(getattr(error, "reason", error)).splitlines()[0]
    return UserError(
        f"The weights of {name} could not be downloaded from {source}: {reason}",
        "Get the file another way and set model.weights=FILE, or set model.weights=null for random "
        "weights.",
    )
