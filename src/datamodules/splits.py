"""Division into training, validation and test images: stratified, by a seed of its own."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt

from ..errors import UserError

SplitSize = Annotated[float, Field(ge=0, lt=1)] | NonNegativeInt  # a fraction or a number of images


def hold_out(
    labels: torch.Tensor, name: str, size: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted positions of the remaining images and of those held out, stratified by class.

    Args:
        labels: int64 (N,).
        name: the setting that `size` comes from, for errors.
        size: fraction (a float below 1) or number (an int) of images that are held out.

    Raises:
        UserError: a size that leaves a class without an image in one of the parts.
    """
    from sklearn.model_selection import train_test_split  # imported here: it takes 0.8 s

    try:
        remaining, held_out = train_test_split(
            range(len(labels)), test_size=size, random_state=seed, stratify=labels.cpu().numpy()
        )
    except ValueError as error:
        raise UserError(
            f"{len(labels)} training images cannot be split with {name}={size}: {error}",
            f"Give {name} a fraction between 0 and 1, or a number of images that leaves every "
            "class an image in both parts.",
        ) from None
    return torch.tensor(remaining).sort().values, torch.tensor(held_out).sort().values


def k_fold(
    labels: torch.Tensor, num_folds: int, fold: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted positions of the other folds and of `fold` in stratified k-fold cross-validation.

    Raises:
        UserError: more folds than a class has images, or no such fold.
    """
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    try:
        others, held_out = list(splitter.split(labels.cpu(), labels.cpu()))[fold]
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{len(labels)} training images cannot be split with data.num_folds={num_folds} and "
            f"data.fold={fold}: {error}",
            "Give data.num_folds at most the number of images of the smallest class, and data.fold "
            "a number from 0 to num_folds - 1.",
        ) from None
    return torch.as_tensor(others), torch.as_tensor(held_out)


def shuffle(indices: torch.Tensor, seed: int) -> torch.Tensor:
    """Indices in a fixed random order."""
    generator = torch.Generator().manual_seed(seed)
    return indices[torch.randperm(len(indices), generator=generator)]
