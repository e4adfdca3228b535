"""Learning-rate schedules that torch does not have; `conf/scheduler` names torch's own."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from ..errors import UserError


def constant(optimizer: Optimizer) -> LRScheduler:
    """The learning rate of the optimizer throughout."""
    return LambdaLR(optimizer, lambda _: 1.0)


def warmup_cosine(
    optimizer: Optimizer,
    total_iters: int,
    warmup: float = 0.05,
    start_factor: float = 0.01,
    eta_min: float = 0.0,
) -> LRScheduler:
    """Linear warm-up (Goyal et al., 2017), then a cosine (Loshchilov & Hutter, 2016).

    Args:
        total_iters: steps or epochs of the whole run, depending on the interval.
        warmup: fraction (below 1) or number of them spent on the warm-up.
        start_factor: the first learning rate, as a fraction of the optimizer's.
        eta_min: the last learning rate.

    Raises:
        UserError: a warm-up longer than the run.
    """
    rise = round(warmup * total_iters) if warmup < 1 else int(warmup)
    if not 0 <= rise < total_iters:
        raise UserError(
            f"scheduler.warmup={warmup}: a warm-up of {rise} does not fit into {total_iters}.",
            "Choose a shorter warm-up, or a longer run.",
        )
    cosine = CosineAnnealingLR(optimizer, total_iters - rise, eta_min)
    if rise == 0:
        return cosine
    linear = LinearLR(optimizer, start_factor, total_iters=rise)
    return SequentialLR(optimizer, [linear, cosine], [rise])
