"""Which pictures train, validate and test: stratified by class, by a seed of its own, whatever the run's seed."""

import torch

from src.errors import UserError


def check_share(name: str, size: float) -> None:
    """Refuse a size that is neither a share (below 1) nor a number of pictures with a `UserError`."""
    if not (size >= 0 and (size < 1 or size == int(size))):
        raise UserError(f"{name}={size} is neither a share nor a number of pictures.", "Give it a share below 1 or a whole number.")


def hold_out(labels: torch.Tensor, name: str, size: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two parts of a split, the second one of `size`.

    Args:
        labels: int64 (N,).
        name: the setting that `size` comes from, for errors.
        size: share (below 1) or number of pictures.

    Returns:
        Sorted positions of what stays and of what is held out.

    Raises:
        UserError: a size that leaves a class without a picture on one of the sides.
    """
    from sklearn.model_selection import train_test_split  # 0.8 s to import: only where it is needed

    try:
        size = int(size) if size >= 1 else float(size)
        parts = train_test_split(range(len(labels)), test_size=size, random_state=seed, stratify=labels.cpu().numpy())
    except ValueError as error:
        raise UserError(
            f"{len(labels)} training pictures cannot be split with {name}={size}: {error}",
            f"Give {name} a share between 0 and 1 or a number that leaves every class a picture on both sides.",
        ) from None
    stays, held = (torch.tensor(part).sort().values for part in parts)
    return stays, held


def k_fold(labels: torch.Tensor, num_folds: int, fold: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sorted positions of the other folds and of fold `fold`, which counts from 0, of int64 (N,) labels.

    Raises:
        UserError: more folds than a class has pictures.
    """
    from sklearn.model_selection import StratifiedKFold

    try:
        folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(labels.cpu(), labels.cpu())
        others, own = list(folds)[fold]
    except ValueError as error:
        raise UserError(
            f"{len(labels)} training pictures cannot be split with data.num_folds={num_folds}: {error}",
            "Give data.num_folds at most as many as the smallest class has pictures.",
        ) from None
    return torch.as_tensor(others), torch.as_tensor(own)


def mixed(indices: torch.Tensor, seed: int) -> torch.Tensor:
    """Sorted positions in a fixed order that mixes the classes, so that a part of a split (limit_val_batches) is a fair sample."""
    return indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))]
