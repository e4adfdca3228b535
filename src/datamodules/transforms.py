"""Augmentation with a random draw for each image, mixing of batches, and changes of format.

`CropFlip` works on whole batches, on the device. `PerImage` runs any torchvision v2 transform in
the loader: it draws once per call, so it has to see images one by one.
"""

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import Field, NonNegativeInt
from torch.nn import functional as F

from ..errors import UserError
from .decode import contained

Pixels = NonNegativeInt
CHUNK = 4096  # images that are resized at a time, to bound the memory for float copies


class CropFlip:
    """Random crop from a zero-padded image, random horizontal flip, and cutout.

    Args:
        padding: pixels added on every side, or `[left, top, right, bottom]`.
        flip: probability of a horizontal flip.
        cutout: side of a black square at a random place (DeVries & Taylor, 2017), in pixels; 0 for
            none.
    """

    def __init__(
        self,
        padding: Pixels | tuple[Pixels, Pixels, Pixels, Pixels] = 4,
        flip: Annotated[float, Field(ge=0, le=1)] = 0.5,
        cutout: Pixels = 0,
    ):
        self.padding = [padding] * 4 if isinstance(padding, int) else list(padding)
        self.flip = flip
        self.cutout = cutout

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) of any type -> the same shape and type."""
        n, channels, height, width = images.shape
        device = images.device
        left, top, right, bottom = self.padding
        padded = F.pad(images, (left, right, top, bottom))
        first_row = torch.randint(0, top + bottom + 1, (n, 1), device=device)
        row = first_row + torch.arange(height, device=device)
        first_column = torch.randint(0, left + right + 1, (n, 1), device=device)
        column = first_column + torch.arange(width, device=device)
        if self.flip:
            flipped = torch.rand(n, 1, device=device) < self.flip
            column = torch.where(flipped, column.flip(1), column)
        # (N, H, W) positions in the flattened padded image
        index = row[:, :, None] * padded.shape[3] + column[:, None, :]
        index = index.view(n, 1, -1).expand(n, channels, -1)
        cropped = padded.view(n, channels, -1).gather(2, index).view(images.shape)
        if self.cutout:
            cropped = cropped.masked_fill(self._squares(n, height, width, device), 0)
        return cropped

    def _squares(self, n: int, height: int, width: int, device: torch.device) -> torch.Tensor:
        """(N, 1, H, W), true in one square per image, which may cross the edge as in the paper."""
        top = torch.randint(0, height, (n, 1), device=device) - self.cutout // 2
        left = torch.randint(0, width, (n, 1), device=device) - self.cutout // 2
        rows = torch.arange(height, device=device) - top
        columns = torch.arange(width, device=device) - left
        in_rows = (rows >= 0) & (rows < self.cutout)
        in_columns = (columns >= 0) & (columns < self.cutout)
        return in_rows[:, None, :, None] & in_columns[:, None, None, :]


class PerImage:
    """Applies a transform such as torchvision's v2.RandAugment to each image, in the loader.

    The transform takes and returns uint8 (C, H, W). The random numbers of torch, numpy and Python
    are seeded for each image.
    """

    def __init__(self, transform: Callable[[torch.Tensor], torch.Tensor]):
        self.transform = transform

    def __call__(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """uint8 (N, C, H, W) and N seeds -> uint8 (N, C, H, W). Global random states are kept."""
        out = []
        with isolate_rng(include_cuda=False):
            for image, seed in zip(images, seeds, strict=True):
                torch.default_generator.manual_seed(seed)  # of the CPU alone, and much faster
                np.random.seed(seed & 0xFFFFFFFF)  # numpy takes 32 bits
                random.seed(seed)
                out.append(self.transform(image))
        return torch.stack(out)


def per_image(transform: Any) -> Any:
    """The transform, wrapped by `PerImage` if it is torchvision's: those draw once per call."""
    modules = (cls.__module__ for cls in type(transform).__mro__)
    if any(module.startswith("torchvision.transforms") for module in modules):
        return PerImage(transform)
    return transform


@cache
def build_mixing(mixup: float, cutmix: float, num_classes: int) -> Callable:
    """MixUp (Zhang et al., 2018), CutMix (Yun et al., 2019), or one of them at random per batch.

    Returns:
        A function: float images (N, C, H, W) and int64 labels (N,) -> mixed images and class
        probabilities (N, num_classes).
    """
    from torchvision.transforms import v2  # imported here: it takes about a second

    choices: list[Callable] = []
    if mixup:
        choices.append(v2.MixUp(alpha=float(mixup), num_classes=num_classes))
    if cutmix:
        choices.append(v2.CutMix(alpha=float(cutmix), num_classes=num_classes))
    return v2.RandomChoice(choices)


def convert_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, channels, H, W): grey as RGB or RGB as grey."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    red, green, blue = images.float().unbind(1)
    # ITU-R 601 luma, as in Pillow and torchvision
    grey = (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8)
    return grey[:, None]


def resize(
    images: torch.Tensor, size: int, mode: str = "stretch", fill: Sequence[float] = (0.5,)
) -> torch.Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, C, size, size), bilinear with antialiasing.

    The mode is `stretch` to the square, `crop` the central square first, or `pad` with the colour
    `fill` from 0 to 1, of one value per channel or one for all.
    """
    if mode == "pad":
        return _pad(images, size, fill)
    if mode == "crop":
        height, width = images.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
    if images.shape[-2:] == (size, size):
        return images
    resized = []
    for chunk in images.split(CHUNK):
        pixels = F.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
        resized.append(pixels.round().to(torch.uint8))
    return torch.cat(resized)


def _pad(images: torch.Tensor, size: int, fill: Sequence[float]) -> torch.Tensor:
    height, width = contained(images.shape[2], images.shape[3], size)
    colour = torch.tensor([round(255 * value) for value in fill], dtype=torch.uint8)
    padded = colour.view(1, -1, 1, 1).repeat(len(images), images.shape[1] // len(fill), size, size)
    top, left = (size - height) // 2, (size - width) // 2
    for start in range(0, len(images), CHUNK):
        pixels = images[start : start + CHUNK].float()
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
        inside = padded[start : start + CHUNK, :, top : top + height, left : left + width]
        inside.copy_(pixels.round())
    return padded


def channel_values(name: str, values: Sequence[float], own: int, wanted: int) -> tuple[float, ...]:
    """The values of the setting `name`, one for each of the `wanted` channels of the batches.

    Values of a data set with `own` channels are repeated (grey as RGB) or averaged (RGB as grey).

    Raises:
        UserError: another number of values.
    """
    result = tuple(float(value) for value in values)
    if len(result) == wanted:
        return result
    if len(result) == own and {own, wanted} == {1, 3}:
        return result * 3 if own == 1 else (sum(result) / 3,)
    raise UserError(
        f"{name} has {len(result)} values for {wanted} channels.",
        f"Give {name} one value per channel, or data.channels=1 for grey or 3 for RGB.",
    )
