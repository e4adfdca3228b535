"""Muon for the hidden weights, NAdamW for all others."""

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import UserError


def muon(params: Sequence[Any], fallback_lr: float = 1e-3, **options: Any) -> torch.optim.Optimizer:
    """timm's Muon, which takes convolutions too (Jordan et al., 2024).

    As its authors advise, the first and the last matrix, that is the first layer and the head, are
    trained by NAdamW, and so are vectors (norm layers and biases).

    Args:
        params: parameters in the order of the network, or groups of them.
        fallback_lr: learning rate of NAdamW; `lr` is that of Muon. A schedule changes both.
        options: arguments of timm.optim.Muon, such as `lr`, `momentum`, `weight_decay`.

    Raises:
        UserError: timm is not installed.
    """
    try:
        from timm.optim import Muon
    except ImportError:
        raise UserError(
            "timm has no Muon, or is not installed.",
            'Install the extra: pip install -U -e ".[timm]"',
        ) from None
    params = list(params)
    given = params if isinstance(params[0], dict) else [{"params": params}]
    matrices = [p for group in given for p in group["params"] if p.ndim > 1]
    hidden = {id(p) for p in matrices[1:-1]}
    groups = []
    for group in given:
        for by_muon in (True, False):
            part = [p for p in group["params"] if (id(p) in hidden) == by_muon]
            lr = {} if by_muon else {"lr": fallback_lr, "use_fallback": True}
            groups.append({**group, "params": part, **lr})
    return Muon([group for group in groups if group["params"]], **options)
