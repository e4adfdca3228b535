"""Images that two splits share."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

log = logging.getLogger(__name__)


def warn_of_overlap(sets: Mapping[str, tuple[Any, torch.Tensor]]) -> None:
    """Log how many images of `val` and `test` are in another split too, pixel by pixel.

    Args:
        sets: images and labels by split; images that are not in memory are not compared.
    """
    images = {name: image for name, (image, _) in sets.items() if isinstance(image, torch.Tensor)}
    for split, other in (("val", "train"), ("test", "train"), ("test", "val")):
        if split in images and other in images:
            count = count_equal(images[split], images[other])
            if count:
                log.warning(
                    "%s of %s %s images are also %s images: metrics on %s are too good.",
                    f"{count:,}",
                    f"{len(images[split]):,}",
                    split,
                    other,
                    split,
                )


def count_equal(images: torch.Tensor, others: torch.Tensor) -> int:
    """How many of the images (N, ...) are among the others (M, ...)."""
    known = {row.numpy().tobytes() for row in others}
    return sum(row.numpy().tobytes() in known for row in images)
