"""LightningModules around a network: what is trained and what is evaluated. They know no data."""

from .classification import ClassificationTask

__all__ = ["ClassificationTask"]
