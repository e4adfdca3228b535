"""What happens beside the training: progress, seeds, averaged weights. Lightning's own callbacks are named in `conf/callbacks`."""

from src.callbacks.progress import Progress
from src.callbacks.step_seed import StepSeed
from src.callbacks.weight_averaging import EMA, SWA

__all__ = ["EMA", "SWA", "Progress", "StepSeed"]
