"""What happens beside the training: progress, seeds, signals. Lightning's own callbacks are named in `conf/callbacks`."""

from src.callbacks.progress import Progress
from src.callbacks.step_seed import StepSeed
from src.callbacks.stop_signals import Interrupted, StopSignals

__all__ = ["Interrupted", "Progress", "StepSeed", "StopSignals"]
