"""What happens beside the training: progress, seeds, signals, the newest state. Lightning's own callbacks are named in `conf/callbacks`."""

from src.callbacks.last_checkpoint import LastCheckpoint
from src.callbacks.progress import Progress
from src.callbacks.step_seed import StepSeed
from src.callbacks.stop_signals import Interrupted, StopSignals

__all__ = ["Interrupted", "LastCheckpoint", "Progress", "StepSeed", "StopSignals"]
