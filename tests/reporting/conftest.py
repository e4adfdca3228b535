"""A task that has been evaluated on the digits, without a trainer."""

import pytest
import torch

from src.datamodules import DigitsDataModule
from src.models import LeNet
from src.tasks.classification import ClassificationTask
from src.tasks.metrics import Evaluation, EvaluationMetrics


def make_evaluation(logits: torch.Tensor, labels: torch.Tensor) -> Evaluation:
    """The evaluation of these logits (N, num_classes) and labels (N,)."""
    metrics = EvaluationMetrics(logits.shape[1])
    metrics.update(logits, labels, torch.tensor(1.0), torch.arange(len(labels)))
    return metrics.compute()


@pytest.fixture(scope="session")
def evaluation():
    """`make_evaluation`, for tests."""
    return make_evaluation


@pytest.fixture(scope="session")
def evaluated():
    """A function that gives a task, evaluated on the validation digits, and its data."""

    def make(classes: list[str], model: torch.nn.Module | None = None, **options):
        torch.manual_seed(0)
        data = DigitsDataModule(image_size=16, **options)
        data.setup()
        task = ClassificationTask(
            model or LeNet(1, len(classes), 16), classes, data.mean, data.std
        ).eval()
        labels = data.labels("val")
        with torch.inference_mode():
            logits = task(data.images("val", torch.arange(len(labels))))
        task.evaluations["val"] = make_evaluation(logits, labels)
        return task, data

    return make
