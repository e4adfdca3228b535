"""What is trained: LightningModules around a network. They know no data set."""

from src.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask"]
