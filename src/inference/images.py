"""What `Classifier.predict` accepts as images."""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from ..datamodules.decode import ImageSource, to_8_bit
from ..errors import UserError

PIXEL_TYPES = (torch.uint8, torch.uint16, np.uint8, np.uint16)


def name_of(source: ImageSource) -> str:
    """What an error calls a file: its path, where it has one."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", None) or "The content that was given")


def to_list(images: Any) -> list[Image.Image | ImageSource]:
    """All that `Classifier.predict` accepts as Pillow images, paths and contents of files."""
    if isinstance(images, Image.Image | str | os.PathLike | bytes) or hasattr(images, "read"):
        return [images]
    if isinstance(images, list | tuple):
        return [image for item in images for image in to_list(item)]
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise UserError(
            f"{type(images).__name__} is not an image.",
            "Give paths, bytes or open files, Pillow images, arrays or tensors.",
        )
    if images.dtype not in PIXEL_TYPES:
        raise UserError(
            f"The pixels are {images.dtype}, whose range is not known.",
            "Give uint8 from 0 to 255; for floats from 0 to 1: (255 * pixels).round() as uint8.",
        )
    if images.ndim == 4:
        return [_to_pillow(image) for image in images]
    return [_to_pillow(images)]


def _to_pillow(pixels: torch.Tensor | np.ndarray) -> Image.Image:
    """A tensor (H, W) or (C, H, W), or an array (H, W) or (H, W, C), as a Pillow image."""
    kind = f"{type(pixels).__name__} {tuple(pixels.shape)}"
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.cpu().numpy()
        if pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels > 4 or 0 in pixels.shape:
        raise UserError(
            f"The {kind} is not an image.",
            "Arrays are (H, W), (H, W, C) or (N, H, W, C), tensors (H, W), (C, H, W) or "
            "(N, C, H, W), with 1 to 4 channels.",
        )
    return to_pil_image(to_8_bit(pixels) if pixels.dtype == np.uint16 else pixels)
