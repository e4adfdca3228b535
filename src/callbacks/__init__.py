"""What happens beside the steps of a training, one callback in each file.

`conf/callbacks/default.yaml` lists them. Each can be removed on its own.
"""

from .base import EpochCallback
from .best_checkpoint import BestCheckpoint
from .cache_features import CacheFeatures
from .class_weights import ClassWeights
from .compile import Compile
from .freeze_backbone import FreezeBackbone
from .image_logger import ImageLogger
from .label_check import LabelCheck
from .last_checkpoint import LastCheckpoint
from .logistic_head import LogisticHead
from .memory_format import MemoryFormat
from .nan_guard import NaNGuard
from .onednn import OneDNN
from .output_check import OutputCheck
from .progress import Progress
from .report import Report
from .run_recorder import RunRecorder
from .step_seed import StepSeed
from .stop_signals import StopSignals
from .throughput import Throughput
from .weight_averaging import EMA, SWA

__all__ = [
    "EMA",
    "SWA",
    "BestCheckpoint",
    "CacheFeatures",
    "ClassWeights",
    "Compile",
    "EpochCallback",
    "FreezeBackbone",
    "ImageLogger",
    "LabelCheck",
    "LastCheckpoint",
    "LogisticHead",
    "MemoryFormat",
    "NaNGuard",
    "OneDNN",
    "OutputCheck",
    "Progress",
    "Report",
    "RunRecorder",
    "StepSeed",
    "StopSignals",
    "Throughput",
]
