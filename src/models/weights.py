"""Trained weights from a file, and what to say when they do not fit. Networks use it; it builds none."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights: a state dict, as `torch.save(net.state_dict(), path)` or torchvision's downloads hold it.

    Raises:
        OSError, ValueError: no such file; or one that is damaged or holds more than tensors. The second line says what to do.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file of weights {path}\nGive a file of the network's state dict, a name such as DEFAULT, or model.weights=null."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not loaded: {str(error).splitlines()[0]}\nGive a file that holds a state dict and nothing but tensors."
        ) from None
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict\nSave the weights with torch.save(net.state_dict(), path).")
    return dict(content)


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """`model.load_state_dict`, behind `check_weights`."""
    check_weights(model, weights)
    model.load_state_dict(weights)


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Whether weights are those of a network, by their names and shapes; the error names the first differences.

    Raises:
        ValueError: weights of another architecture. The second line says what to do.
    """
    own = model.state_dict()
    differences = [f"{name} is missing" for name in own if name not in weights]
    differences += [f"{name} is not in the network" for name in weights if name not in own]
    differences += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and getattr(weights[name], "shape", None) != tensor.shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"the weights are of another architecture than {type(model).__name__}: {'; '.join(differences[:3])}{more}\n"
            "Build the network with the arguments that it was trained with."
        )
