"""A trained network to be asked: `src.load(path)` gives one. What it is given is brought to the size and colours of its training."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from src import checkpoint as ckpt
from src.decode import decode, to_8_bit, to_array
from src.errors import UserError


class Classifier(nn.Module):
    """A trained network with all that it needs to be asked: `classes`, input size, normalisation.

    Called with uint8 images (N, C, image_size, image_size) it gives logits (N, num_classes).
    """

    mean: torch.Tensor  # (1, C, 1, 1), of pixels scaled to 0..1
    std: torch.Tensor

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
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std  # not in place: torch 2.6 cannot export that

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
    kind = f"array {images.shape}"
    pixels: Any = images
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
    stored = ckpt.read(path)
    return Classifier(ckpt.network(stored, model), stored["description"]).eval()
