"""What happens beside the training: progress, seeds, pictures. Lightning's own callbacks are named in `conf/callbacks`."""

from src.callbacks.pictures import Pictures
from src.callbacks.progress import Progress
from src.callbacks.step_seed import StepSeed

__all__ = ["Pictures", "Progress", "StepSeed"]
