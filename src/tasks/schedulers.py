"""Learning-rate schedules that torch does not have ready-made. All others are torch's own classes, named in `conf/scheduler`."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR


def constant(optimizer: Optimizer) -> LRScheduler:
    """The optimizer's own rate throughout."""
    return LambdaLR(optimizer, lambda _: 1.0)


def warmup_cosine(
    optimizer: Optimizer, total_iters: int, warmup: float = 0.05, start_factor: float = 0.01, eta_min: float = 0.0
) -> LRScheduler:
    """Linear warm-up, then a cosine down to `eta_min` (Goyal et al., 2017; Loshchilov & Hutter, SGDR, 2016).

    Args:
        total_iters: steps or epochs of the whole run, whichever the schedule counts in.
        warmup: share (below 1) or number of them spent warming up.
        start_factor: rate of the first one, as a share of the optimizer's.
        eta_min: last rate.
    """
    rise = round(warmup * total_iters) if warmup < 1 else int(warmup)
    if not 0 <= rise < total_iters:
        raise ValueError(f"a warm-up of {rise} does not fit into a run of {total_iters}")
    cosine = CosineAnnealingLR(optimizer, total_iters - rise, eta_min)
    if rise == 0:
        return cosine
    return SequentialLR(optimizer, [LinearLR(optimizer, start_factor, total_iters=rise), cosine], [rise])
