"""What happens beside the training: progress, seeds, pictures, averaged weights. Lightning's own are named in `conf/callbacks`."""

from src.callbacks.pictures import Pictures
from src.callbacks.progress import Progress
from src.callbacks.step_seed import StepSeed
from src.callbacks.weight_averaging import EMA, SWA

__all__ = ["EMA", "SWA", "Pictures", "Progress", "StepSeed"]
