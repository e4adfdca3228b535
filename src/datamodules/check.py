"""Images and labels as a data set gives them -> uint8 (N, C, H, W) and int64 (N,)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import UserError

NUMBERS = "biuf"  # numpy's kinds: truth values, integers, unsigned integers, floats
# What a class of data has to say about its images, with examples.
FACTS = {
    "classes": '["cat", "dog"]',
    "native_size": "32  # height and width in pixels",
    "mean": "(0.5,)  # of pixel values from 0 to 1, one per channel",
    "std": "(0.25,)  # of pixel values from 0 to 1, one per channel",
}
CHUNK = 4096  # images that are converted at a time, to bound the memory for copies
IMAGES_REMEDY = (
    "Give uint8 images (N, C, H, W), values 0 to 255 and 1 or 3 channels, before any normalization "
    "(float images from 0 to 1 are converted)."
)
LABELS_REMEDY = "Give int64 labels (N,): the position of each image's class in `classes`."


def require_facts(datamodule: Any) -> None:
    """Raise a `UserError` for a class of data without one of the facts that every run needs."""
    for fact, example in FACTS.items():
        if fact not in vars(datamodule) and not hasattr(type(datamodule), fact):
            name = type(datamodule).__name__
            raise UserError(
                f"{name} has no {fact}.", f"Write it into the class: {fact} = {example}"
            )


def check_labels(labels: Any, where: str, classes: Sequence[str] | None = None) -> torch.Tensor:
    """A tensor, array or list of class numbers, maybe as floats, as int64 (N,).

    Raises:
        UserError: `where`, such as "train labels", are something else, or not positions in
            `classes`.
    """
    array = labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in NUMBERS:
        example = f", such as {array.flat[0]!r}" if array.size else ""
        raise UserError(
            f"The {where} are {array.dtype} of shape {array.shape}{example}.", LABELS_REMEDY
        )
    numbers = array.astype(np.int64)
    if not np.array_equal(numbers, array):
        raise UserError(f"The {where} are not whole numbers.", LABELS_REMEDY)
    if classes is not None and len(numbers):
        low, high = numbers.min(), numbers.max()
        if low < 0 or high >= len(classes):
            raise UserError(
                f"The {where} run from {low} to {high}, but there are {len(classes)} classes.",
                f"Labels count from 0: with these classes they run from 0 to {len(classes) - 1}.",
            )
    return torch.from_numpy(numbers)


def check_images(images: Any, where: str, channels: int = 3) -> torch.Tensor:
    """Images as uint8 (N, C, H, W) with `channels`, where 1 and 3 may stand for one another.

    Args:
        images: a tensor or array (N, C, H, W), (N, H, W) or (N, H, W, C) of integers from 0 to
            255, of floats from 0 to 1, or of truth values.
        where: what they are, for errors: "train images".
        channels: the number that is wanted.

    Raises:
        UserError: they are something else.
    """
    tensor = as_tensor(images, where)
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    allowed = {1, 3} if channels in (1, 3) else {channels}
    sides = tuple(tensor.shape[1:])
    if len(sides) == 3 and sides[2] in allowed and sides[0] not in allowed:
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.ndim != 4 or tensor.shape[1] not in allowed or 0 in sides:
        raise UserError(f"The {where} are {_describe(tensor)}.", IMAGES_REMEDY)
    if tensor.dtype != torch.uint8:
        tensor = torch.cat([_to_uint8(chunk, where) for chunk in tensor.split(CHUNK)])
    return tensor.contiguous()


def as_tensor(values: Any, where: str) -> torch.Tensor:
    """A tensor or numeric array as a plain tensor; see `check_images`."""
    if isinstance(values, torch.Tensor):
        return values.detach().as_subclass(torch.Tensor)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in NUMBERS:
        kind = getattr(values, "dtype", type(values).__name__)
        raise UserError(f"The {where} are of type {kind}.", IMAGES_REMEDY)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values = values.astype(np.int64)  # torch has few operations on other unsigned integers
    native = values.dtype.newbyteorder("=")
    writable = values.astype(native, copy=not values.flags.writeable)
    return torch.from_numpy(np.ascontiguousarray(writable))


def _to_uint8(pixels: torch.Tensor, where: str) -> torch.Tensor:
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    highest = 1 if pixels.is_floating_point() else 255
    if not (pixels.min() >= 0 and pixels.max() <= highest):  # NaN compares as false
        raise UserError(f"The {where} are {_describe(pixels)}.", IMAGES_REMEDY)
    if pixels.is_floating_point():
        pixels = (pixels.float() * 255).round()
    return pixels.to(torch.uint8)


def _describe(tensor: torch.Tensor) -> str:
    """Type, shape and range of a tensor in words."""
    text = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
    if tensor.numel() == 0:
        return text
    return f"{text} with values from {tensor.min().item():g} to {tensor.max().item():g}"
