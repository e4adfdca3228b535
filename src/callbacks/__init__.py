"""What happens beside the training: progress, seeds, signals, pictures, the best and the newest state, averaged weights.

Lightning's own callbacks are named in `conf/callbacks`.
"""

from src.callbacks.best_checkpoint import BestCheckpoint
from src.callbacks.last_checkpoint import LastCheckpoint
from src.callbacks.pictures import Pictures
from src.callbacks.progress import Progress
from src.callbacks.step_seed import StepSeed
from src.callbacks.stop_signals import Interrupted, StopSignals
from src.callbacks.weight_averaging import EMA, SWA

__all__ = ["EMA", "SWA", "BestCheckpoint", "Interrupted", "LastCheckpoint", "Pictures", "Progress", "StepSeed", "StopSignals"]
