"""Loggers of this project; those of Lightning work as well."""

from .mlflow import MLflow
from .tensorboard import TensorBoard
from .wandb import WandB

__all__ = ["MLflow", "TensorBoard", "WandB"]
