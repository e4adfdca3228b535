"""Reading trained weights from a file and checking that they belong to a network."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that holds a state dict, as torchvision's downloads do.

    Raises:
        UserError: there is no such file, it is damaged, or it holds more than tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            f"There is no weights file {path}.",
            "Give a file with the network's state dict, a name such as DEFAULT, or "
            "model.weights=null.",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error) or "the file ends too early").splitlines()[0]
        raise UserError(
            f"The weights file {path} cannot be loaded: {reason}",
            "Give a file that holds a state dict and nothing but tensors.",
        ) from None
    is_state_dict = isinstance(content, Mapping) and all(
        isinstance(value, torch.Tensor) for value in content.values()
    )
    if not is_state_dict:
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
    for name, tensor in own.items():
        # The extra state of a module need not be a tensor.
        shape = getattr(weights.get(name), "shape", None)
        if name in weights and shape != tensor.shape:
            found = None if shape is None else tuple(shape)
            differences.append(f"{name} is {found} instead of {tuple(tensor.shape)}")
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"The weights belong to another architecture than {type(model).__name__}: "
            f"{'; '.join(differences[:3])}{more}.",
            "Build the network with the arguments that it was trained with.",
        )
