"""Images and labels as a data set gives them -> uint8 (N, C, H, W) and int64 (N,)."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import UserError

log = logging.getLogger(__name__)

NUMBERS = "biuf"  # numpy's kinds: truth values, integers, unsigned integers, floats
# What a class of data has to say about its images, with examples.
FACTS = {
    "classes": '["cat", "dog"]',
    "native_size": "32  # height and width in pixels",
    "mean": "(0.5,)  # of pixel values from 0 to 1, one per channel",
    "std": "(0.25,)  # of pixel values from 0 to 1, one per channel",
}
DARK = 32  # a data set without a brighter pixel has probably another range than 0 to 255
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


def check_labels(labels: Any, where: str) -> torch.Tensor:
    """A tensor, array or list of class numbers, maybe as floats, as int64 (N,).

    Raises:
        UserError: `where`, such as "train labels", are something else.
    """
    array = labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.shape[1:] == (1,):
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in NUMBERS:
        example = f", such as {array.flat[0]!r}" if array.size else ""
        raise UserError(
            f"The {where} are {array.dtype} of shape {array.shape}{example}.", LABELS_REMEDY
        )
    numbers = array.astype(np.int64)
    if not np.array_equal(numbers, array):
        raise UserError(f"The {where} are not whole numbers.", LABELS_REMEDY)
    return torch.from_numpy(numbers)


def check_images(images: Any, where: str, channels: int = 3) -> torch.Tensor:
    """Images as uint8 (N, C, H, W) with `channels`, where 1 and 3 may stand for one another.

    Args:
        images: a tensor or array (N, C, H, W), (N, H, W) or (N, H, W, C) of integers from 0 to
            255, of floats from 0 to 1, or of truth values.
        where: what they are, for errors: "train images".

    Raises:
        UserError: they are something else.
    """
    array = as_array(images, where)
    if array.ndim == 3:
        array = array[:, None]
    allowed = {1, 3} if channels in (1, 3) else {channels}
    if array.ndim == 4 and array.shape[3] in allowed and array.shape[1] not in allowed:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in allowed or array.size == 0:
        raise _unusable(array, where)
    if array.dtype != np.uint8:
        chunks = range(0, len(array), CHUNK)
        array = np.concatenate([_to_uint8(array[i : i + CHUNK], where) for i in chunks])
    if 0 < array.max() < DARK:
        log.warning(
            "The values of the %s run from %s to %s, of 255: multiply them if white is not 255.",
            *(where, array.min(), array.max()),
        )
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # contiguous and writable


def as_array(values: Any, where: str) -> np.ndarray:
    """A tensor or numeric array as an array; see `check_images`."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in NUMBERS:
        kind = getattr(values, "dtype", type(values).__name__)
        raise UserError(f"The {where} are of type {kind}.", IMAGES_REMEDY)
    return values


def _to_uint8(pixels: np.ndarray, where: str) -> np.ndarray:
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    is_float = pixels.dtype.kind == "f"
    if not (pixels.min() >= 0 and pixels.max() <= (1 if is_float else 255)):  # NaN is neither
        raise _unusable(pixels, where)
    if is_float:
        pixels = (pixels.astype(np.float32) * 255).round()
    return pixels.astype(np.uint8)


def _unusable(array: np.ndarray, where: str) -> UserError:
    text = f"{array.dtype} of shape {array.shape}"
    if array.size:
        text += f" with values from {array.min().item():g} to {array.max().item():g}"
    return UserError(f"The {where} are {text}.", IMAGES_REMEDY)


def numbers_of(names: Sequence[str], classes: Sequence[str]) -> torch.Tensor:
    """int64 (len(names),): the places of names in `classes`.

    Raises:
        UserError: a name that is not there.
    """
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise UserError(
            f"The network does not know {len(unknown)} of the classes of these data: "
            f"{', '.join(unknown[:20])}.",
            f"Leave them out, or name them as the network does: {', '.join(classes[:20])}.",
        )
    return torch.tensor([list(classes).index(name) for name in names])
