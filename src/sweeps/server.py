"""What the server of `processes.py` imports: what a run imports. Nothing else may import it."""

import os

# Imported by a run when it needs them.
import sklearn.datasets
import sklearn.model_selection
import torch._dynamo
import torch.utils.tensorboard

from ..engine import train
from ..reporting import html
from . import worker

__all__ = ["html", "sklearn", "torch", "train", "worker"]

os.setsid()  # signals to the terminal or the group of the supervisor do not end the server
