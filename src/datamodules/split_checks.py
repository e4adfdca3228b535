"""Warnings about splits before training: shared images, and classes without training images."""

import logging
from collections.abc import Mapping, Sequence
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
    if images.get("val") is images.get("train"):  # validation images are taken from train
        images.pop("val", None)
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
    known = {hash(row.tobytes()) for row in others.numpy()}
    return sum(hash(row.tobytes()) in known for row in images.numpy())


def warn_of_missing_classes(labels: torch.Tensor, classes: Sequence[str]) -> None:
    """Log the classes of which no training image is known.

    Args:
        labels: int64 (N,) of the training images.
        classes: all names.
    """
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        log.warning(
            "%s of %s classes have no training images: %s.%s",
            *(len(missing), len(classes), ", ".join(map(str, missing[:10]))),
            " Labels count from 0." if missing[0] == classes[0] else "",
        )
