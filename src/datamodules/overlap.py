"""Images that two splits share."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

log = logging.getLogger(__name__)

MAX_BYTES = 500_000_000  # of a split; `check=data` compares larger folders of images


def is_comparable(images: Any) -> bool:
    """Whether images are in memory and few enough to be compared at the start of every run."""
    return isinstance(images, torch.Tensor) and images.nbytes <= MAX_BYTES


def warn_of_overlap(sets: Mapping[str, tuple[Any, torch.Tensor]]) -> None:
    """Log how many images of `val` and `test` are in another split too, pixel by pixel.

    Args:
        sets: images and labels by split.
    """
    images = {name: loaded[0] for name, loaded in sets.items() if is_comparable(loaded[0])}
    for split, other in (("val", "train"), ("test", "train"), ("test", "val")):
        if split not in images or other not in images:
            continue
        count = count_equal(images[split], images[other])
        if count:
            total = len(images[split])
            log.warning(
                "%s of %s %s images are also %s images: metrics on %s are overestimated.",
                *(f"{count:,}", f"{total:,}", split, other, split),
            )


def count_equal(images: torch.Tensor, others: torch.Tensor) -> int:
    """How many of the images (N, ...) are among the others (M, ...)."""
    known = {hash(row.numpy().tobytes()) for row in others}
    return sum(hash(row.numpy().tobytes()) in known for row in images)
