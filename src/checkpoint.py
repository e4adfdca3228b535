"""Checkpoints that describe themselves: reading them safely, and rebuilding network, task and data from the file alone.

A checkpoint is data. It is loaded with `weights_only=True`, nothing in it is interpolated, and the only things that its text can
have built are networks below `src.models` and data sets below `src.datamodules`.
"""

import importlib
import inspect
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from src.errors import UserError


def read(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: no such file, damaged, hostile, or not written by this project.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.", "Give the path of a .ckpt file, such as runs/.../checkpoints/best.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if "Unsupported" in str(error) or "GLOBAL" in str(error) else "it is damaged"
        if "Weights only load failed" in str(error):
            reason = "it holds more than tensors and plain values, or is damaged"
        raise UserError(f"{path} is not loaded: {reason}.", _remedy(path)) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else error!r}.", _remedy(path)) from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict) or not isinstance(content.get("description"), dict):
        raise UserError(f"{path} was not written by this project.", "Give a best.ckpt or last.ckpt from a run folder.")
    return content


def _remedy(path: Path) -> str:
    for other in ("best.ckpt", "last.ckpt"):
        if (sibling := path.with_name(other)).is_file() and sibling != path:
            return f"Use {sibling} instead."
    return "Get the file again from where it was written."


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
        if not isinstance(spec, dict):
            raise UserError(
                "This checkpoint was written by a task composed by hand: it does not say how its network is built.",
                "Build the network yourself and pass it: src.load(path, model=net).",
            )
        without_weights = {"weights": None} if "weights" in spec else {}
        model = construct(spec, "models", nn.Module, **without_weights)
    weights = {
        name.removeprefix("model.").replace("_orig_mod.", ""): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("model.")
    }
    load_weights(model, weights)
    return model


class Classifier(nn.Module):
    """A trained network with all that it needs to be asked: `classes`, input size, normalisation.

    Called with uint8 images (N, C, image_size, image_size) it gives logits (N, num_classes).
    """

    def __init__(self, model: nn.Module, description: Mapping[str, Any]):
        super().__init__()
        self.model = model
        self.classes: list[str] = list(description["classes"])
        self.channels: int = description["channels"]
        self.image_size: int | None = description.get("image_size")
        self.resize: str = description.get("resize", "stretch")
        self.register_buffer("mean", torch.tensor(description["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(description["std"]).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(self.normalize(images))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> float, scaled to 0..1, less `mean`, by `std`."""
        if images.dtype != torch.uint8:
            raise UserError(f"The images are {images.dtype}; this network takes uint8.", "Give pixels from 0 to 255, not normalised.")
        return images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.std)

    @torch.inference_mode()
    def predict(self, images: Any) -> torch.Tensor:
        """Class probabilities (N, num_classes) of pictures of any size and colour, brought to the network's own as in training.

        Args:
            images: the name of a picture file; a Pillow picture; an array (H, W), (H, W, C) or (N, H, W, C); a tensor (H, W), (C, H, W)
                or (N, C, H, W); or a list of such. C is 1, 2 (grey, alpha), 3 or 4 (RGB, alpha). Arrays and tensors hold uint8 or uint16
                pixels.

        Raises:
            UserError: a file that cannot be read, or what is no picture, such as float pixels, of which nobody knows the range.
        """
        shown = [self._show(picture) for picture in to_pictures(images)]
        if not shown:
            return torch.empty(0, len(self.classes))
        return torch.cat([self(batch.to(self.mean.device)).softmax(1) for batch in torch.stack(shown).split(64)])

    def _show(self, picture: Image.Image | str | os.PathLike) -> torch.Tensor:
        """uint8 (C, H, W) of the network's own size."""
        from src.datamodules.decode import decode, to_array

        if isinstance(picture, Image.Image):
            return torch.from_numpy(to_array(picture, self.image_size or picture.height, self.channels, self.resize))
        if self.image_size is None:
            raise UserError("This checkpoint does not say at which size its network takes pictures.", "Give arrays of that size.")
        try:
            return torch.from_numpy(decode(picture, self.image_size, self.channels, self.resize))
        except ValueError as error:
            raise UserError(f"{picture}: {error}.", "Give a picture file that can be read.") from None


def to_pictures(images: Any) -> list[Image.Image | str | os.PathLike]:
    """Whatever `Classifier.predict` takes, as Pillow pictures and names of files."""
    if isinstance(images, Image.Image | str | os.PathLike):
        return [images]
    if isinstance(images, list | tuple):
        return [picture for item in images for picture in to_pictures(item)]
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise UserError(f"{type(images).__name__} is no picture.", "Give names of files, Pillow pictures, arrays or tensors.")
    if images.dtype not in (torch.uint8, torch.uint16, np.uint8, np.uint16):
        raise UserError(
            f"The pixels are {images.dtype}, whose range is not known.",
            "Give uint8 from 0 to 255; for floats from 0 to 1: (255 * pixels).round() as uint8.",
        )
    kind, pixels = f"array {images.shape}", images
    if isinstance(images, torch.Tensor):
        kind = f"tensor {tuple(images.shape)}"
        pixels = images.cpu().numpy()
        pixels = np.moveaxis(pixels, -3, -1) if images.ndim in (3, 4) else pixels
    if pixels.ndim == 4:
        return [picture for item in pixels for picture in to_pictures(item)]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and 1 <= pixels.shape[-1] <= 4)) or 0 in pixels.shape:
        raise UserError(
            f"The {kind} is no picture.",
            "Arrays are (H, W), (H, W, C) or (N, H, W, C), tensors (H, W), (C, H, W) or (N, C, H, W), with 1 to 4 channels.",
        )
    from src.datamodules.decode import to_8_bit

    if pixels.dtype == np.uint16:
        pixels = to_8_bit(pixels)
    return [Image.fromarray(np.ascontiguousarray(pixels.squeeze(-1) if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels))]


def load(path: str | os.PathLike, model: nn.Module | None = None) -> Classifier:
    """The trained network of a checkpoint file, in evaluation mode, on the CPU.

    Args:
        path: a best.ckpt or last.ckpt.
        model: the network to load the weights into, for a task that was composed by hand.

    Raises:
        UserError: the file is missing, damaged or hostile, or does not say how its network is built.
    """
    stored = read(path)
    return Classifier(network(stored, model), stored["description"]).eval()


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """`model.load_state_dict`, with an error that names the first differences."""
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
        raise UserError(
            f"The weights are of another architecture than {type(model).__name__}: {'; '.join(differences[:3])}{more}.",
            "Build the network with the arguments that it was trained with.",
        )
    model.load_state_dict(weights)


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
