"""Warnings about splits before training: shared images, and classes with none or few images."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from .splits import Names, class_names

log = logging.getLogger(__name__)

UNEQUAL = 10  # times as many images of one class as of another, from which on a hint is given
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


def warn_of_classes(data: Any) -> None:
    """Log classes without training or validation images, and classes of very different sizes.

    Args:
        data: an `ImageDataModule` with both splits.
    """
    if data.new_labels is not None:  # another data set than that of the training
        return
    names = class_names(data)
    counts = {
        split: torch.bincount(data.labels(split), minlength=len(names))
        for split in ("train", "val")
    }
    warn_of_missing_classes(counts["train"], names)
    if getattr(getattr(data.trainer, "state", None), "fn", None) in ("validate", "test"):
        return  # the results say it
    absent = (counts["val"] == 0) & (counts["train"] > 0)
    missing = [names[label] for label in absent.nonzero()[:, 0].tolist()]
    if missing:
        log.warning(
            "%s of %s classes have no validation images: %s. Their accuracy and the balanced "
            "accuracy are not known.",
            *(len(missing), len(names), ", ".join(missing[:10])),
        )
    if data.balance == "none":
        hint_at_balance(counts["train"], names)


def hint_at_balance(counts: torch.Tensor, names: Names) -> None:
    """Log the choices for classes that differ in size by a factor of `UNEQUAL` or more."""
    known = counts[counts > 0]
    if known.max() >= UNEQUAL * known.min():
        largest, smallest = int(counts.argmax()), int((counts == known.min()).nonzero()[0])
        log.warning(
            "%s has %s training images and %s has %s: data.balance=sampler draws all classes "
            "equally often, data.balance=loss weighs their losses.",
            *(names[largest], f"{counts[largest]:,}", names[smallest], f"{counts[smallest]:,}"),
        )


def warn_of_missing_classes(counts: torch.Tensor, names: Names) -> None:
    """Log the classes of which no training image is known.

    Args:
        counts: int64 (num_classes,), training images by label.
        names: of the classes.
    """
    labels = (counts == 0).nonzero()[:, 0].tolist()
    if labels:
        log.warning(
            "%s of %s classes have no training images: %s.%s",
            *(len(labels), len(names), ", ".join(names[label] for label in labels[:10])),
            " Labels count from 0." if labels[0] == 0 else "",
        )
