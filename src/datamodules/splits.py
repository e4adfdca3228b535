"""Division into training, validation and test images: stratified, by a seed of its own.

A split in which a class has no image measures nothing about that class, so every class gets one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt

from ..errors import UserError
from .groups import Groups, hold_out_groups, k_fold_groups

SplitSize = Annotated[float, Field(ge=0, lt=1)] | NonNegativeInt  # a fraction or a number of images


Names = Mapping[int, str]  # of the classes, by label


def class_names(data: Any) -> Names:
    """The names of the classes of a data module by label; see `ImageDataModule.remap_labels`."""
    names = [str(name) for name in data.classes]
    numbers = range(len(names)) if data.new_labels is None else data.new_labels.tolist()
    return dict(zip(numbers, names, strict=True))


def hold_out(
    labels: torch.Tensor,
    setting: str,
    size: float,
    seed: int,
    names: Names,
    least: int = 2,
    groups: Groups | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted positions of the remaining images and of those held out, stratified by class.

    Args:
        labels: int64 (N,).
        setting: what `size` comes from, for errors.
        size: fraction (a float below 1) or number (an int) of images that are held out. At least
            one of each class is.
        names: of the classes.
        least: images that each class needs: 2, or 3 where the rest is divided again.
        groups: of the images; none is divided, so that `size` is met about.

    Raises:
        UserError: a class with fewer images; a size that leaves a class without an image in one of
            the parts.
    """
    from sklearn.model_selection import train_test_split  # imported here: it takes 0.8 s

    _check_counts(labels, names, least, setting, "Add images of it, or remove the class")
    if groups is not None:
        is_held = hold_out_groups(labels.cpu(), groups, setting, size, seed, least)
        return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]
    try:
        _, held_out = train_test_split(
            range(len(labels)), test_size=size, random_state=seed, stratify=labels.cpu().numpy()
        )
    except ValueError as error:
        count = len(labels.unique())
        raise UserError(
            f"{len(labels)} training images cannot be split with {setting}={size}: {error}",
            f"Give {setting} a fraction between 0 and 1, or a number of images from {count} to "
            f"{len(labels) - count}, so that each class has one in both parts.",
        ) from None
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    is_held[torch.tensor(held_out)] = True
    _complete(labels.cpu(), is_held, least - 1, torch.Generator().manual_seed(seed))
    return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]


def _check_counts(
    labels: torch.Tensor, names: Names, least: int, setting: str, remedy: str
) -> None:
    """Raise a `UserError` for a class that has images, but fewer than are needed."""
    numbers, counts = labels.unique(return_counts=True)
    small = [
        f"{names.get(label, label)} ({count})"
        for label, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        if count < least
    ]
    if small:
        more = f" and {len(small) - 10} more" if len(small) > 10 else ""
        raise UserError(
            f"Too few images to split with {setting}: {', '.join(small[:10])}{more}; each class "
            f"needs at least {least}.",
            f"{remedy}.",
        )


def _complete(
    labels: torch.Tensor, is_held: torch.Tensor, kept: int, generator: torch.Generator
) -> None:
    """Exchange images until each class has one that is held out, and `kept` that are not.

    A stratified draw rounds the share of a small class to zero. The sizes of the parts stay; where
    nothing is missing, nothing changes.
    """

    def counts(part: torch.Tensor) -> torch.Tensor:
        return torch.bincount(labels[part], minlength=int(labels.max()) + 1)

    def move(label: int, held: bool) -> None:
        """Move a random image of a class into or out of the part that is held out."""
        candidates = ((labels == label) & (is_held != held)).nonzero()[:, 0]
        is_held[candidates[torch.randint(len(candidates), (1,), generator=generator)]] = held

    for held, needed in ((True, 1), (False, kept)):
        for label in labels.unique().tolist():
            while True:
                found = counts(is_held == held)
                giver = int(found.argmax())
                if found[label] >= needed or found[giver] <= needed:
                    break
                move(label, held)
                move(giver, not held)


def k_fold(
    labels: torch.Tensor,
    num_folds: int,
    fold: int,
    seed: int,
    names: Names,
    groups: Groups | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted positions of the other folds and of `fold` in stratified k-fold cross-validation.

    Raises:
        UserError: more folds than a class has images, or no such fold.
    """
    from sklearn.model_selection import StratifiedKFold

    setting = f"data.num_folds={num_folds}"
    remedy = "Give data.num_folds at most the number of images of the smallest class"
    _check_counts(labels, names, num_folds, setting, remedy)
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    try:
        if groups is None:
            folds = [held_out for _, held_out in splitter.split(labels.cpu(), labels.cpu())]
        else:
            folds = k_fold_groups(labels.cpu(), groups, num_folds, seed)
        held_out = folds[fold]
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{len(labels)} training images cannot be split with {setting} and "
            f"data.fold={fold}: {error}",
            f"{remedy}, and data.fold a number from 0 to num_folds - 1.",
        ) from None
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    is_held[torch.as_tensor(held_out)] = True
    return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]


def divide(data: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted positions of the training and validation images by the settings of a data module."""
    names, seed = class_names(data), data.split_seed
    if data.num_folds is not None:
        return k_fold(labels, data.num_folds, data.fold, seed, names, data.groups)
    return hold_out(labels, "data.val_size", data.val_size, seed, names, groups=data.groups)


def hash_of(parts: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Identifies splits, each its positions (N,) and the labels of its set (M,)."""
    digest = hashlib.sha256()
    for positions, labels in parts:
        digest.update(positions.numpy().tobytes())
        digest.update(labels.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def shuffle(indices: torch.Tensor, seed: int) -> torch.Tensor:
    """Indices in a fixed random order."""
    generator = torch.Generator().manual_seed(seed)
    return indices[torch.randperm(len(indices), generator=generator)]
