"""Loggers of this project; those of Lightning (CSV, W&B, MLflow) work as well."""

from .tensorboard import TensorBoard

__all__ = ["TensorBoard"]
