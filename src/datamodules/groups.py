"""Splits that keep the images of a patient, camera or burst together (`data.group_by`)."""

import re
import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch

from ..errors import UserError

Groups = Sequence[str]  # the group of each image


def match_groups(pattern: str, names: Sequence[str]) -> list[str]:
    """The group of each name: the first group of the match of a regular expression, or all of it.

    Raises:
        UserError: no regular expression, or a name in which it finds nothing.
    """
    try:
        matches = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise UserError(
            f"data.group_by={pattern} is not a regular expression: {error}.",
            "Give one in quotes, such as 'data.group_by=\"patient(\\d+)\"'.",
        ) from None
    groups = [match and (match.group(1) if match.re.groups else match.group()) for match in matches]
    missing = [name for name, group in zip(names, groups, strict=True) if not group]
    if missing:
        raise UserError(
            f"data.group_by={pattern} finds no group in {len(missing)} of {len(names)} names, such "
            f"as {missing[0]}.",
            "Give a regular expression that matches the path of every image.",
        )
    return [str(group) for group in groups]


def _folds(labels: torch.Tensor, groups: Groups, count: int, seed: int) -> list[np.ndarray]:
    """Positions of the images of each fold, stratified by class as well as the groups allow.

    Raises:
        UserError: fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(set(groups)) < count:
        raise UserError(
            f"data.group_by finds {len(set(groups))} groups, too few for {count} parts.",
            "Give another data.group_by, or fewer and larger parts.",
        )
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of classes with fewer images than folds
        warnings.simplefilter("ignore", UserWarning)
        try:
            return [fold for _, fold in splitter.split(labels, labels, groups)]
        except ValueError as error:  # more folds than any class has images
            raise UserError(
                f"The images cannot be split into {count} parts: {error}",
                "Give fewer and larger parts.",
            ) from None


def k_fold_groups(
    labels: torch.Tensor, groups: Groups, num_folds: int, seed: int
) -> list[np.ndarray]:
    """Positions of the images of each fold; no group is divided.

    Raises:
        UserError: too few groups, or a class that has no image in one of the folds.
    """
    folds = _folds(labels, groups, num_folds, seed)
    everything = set(labels.tolist())
    if any(set(labels[fold].tolist()) != everything for fold in folds):
        raise UserError(
            f"data.num_folds={num_folds} leaves a fold without one of the classes, since no group "
            "of data.group_by is divided.",
            "Give data.num_folds at most the number of groups of the smallest class, or another "
            "data.split_seed.",
        )
    return folds


def hold_out_groups(
    labels: torch.Tensor, groups: Groups, setting: str, size: float, seed: int, least: int
) -> torch.Tensor:
    """Whether each image is held out: whole groups, about `size` of the images.

    Args:
        labels: int64 (N,).
        setting, size, least: as in `splits.hold_out`.

    Raises:
        UserError: no such division was found that leaves each class in both parts.
    """
    share = size / len(labels) if isinstance(size, int) else size
    most = len(set(groups))
    part = Fraction(share).limit_denominator(min(10, most))
    if share and part < Fraction(1, 10):
        part = Fraction(1, min(round(1 / share), most))
    folds = _folds(labels, groups, max(part.denominator, 2), seed)
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    found = []
    for first in range(len(folds)):
        chosen = [folds[(first + i) % len(folds)] for i in range(part.numerator)]
        held = np.zeros(len(labels), dtype=bool)
        held[np.concatenate([np.empty(0, dtype=int), *chosen])] = True
        if _has_all(labels.numpy(), numbers, held, least):
            found.append((abs(held.mean() - share), first, held))
    if not found:
        raise UserError(
            f"{setting}={size} finds no division of the {len(set(groups))} groups of data.group_by "
            "that leaves each class in both parts.",
            f"Give another {setting} or data.split_seed; each class needs at least {least} groups.",
        )
    return torch.as_tensor(min(found, key=lambda candidate: candidate[:2])[2])


def _has_all(labels: np.ndarray, groups: np.ndarray, held: np.ndarray, least: int) -> bool:
    """Whether each class is held out, and keeps `least - 1` groups that are not."""
    for label in np.unique(labels):
        kept = np.unique(groups[~held & (labels == label)])
        if len(kept) < least - 1 or not (held & (labels == label)).any():
            return False
    return True
