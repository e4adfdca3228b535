"""A task that has been evaluated on the digits, without a trainer."""

import pytest
import torch

from src.datamodules import DigitsDataModule
from src.models import LeNet
from src.tasks.classification import ClassificationTask
from src.tasks.metrics import Evaluation, Predictions


def make_evaluation(logits: torch.Tensor, labels: torch.Tensor) -> Evaluation:
    """The evaluation of these logits (N, num_classes) and labels (N,)."""
    n, num_classes = logits.shape
    probabilities = logits.float().softmax(1)
    predicted = logits.argmax(1)
    predictions = Predictions(
        torch.arange(n),
        labels,
        predicted,
        logits.topk(min(5, num_classes)).indices,
        probabilities.gather(1, predicted[:, None])[:, 0],
        probabilities.gather(1, labels[:, None])[:, 0],
    )
    cells = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    accuracy = float((predicted == labels).float().mean())
    metrics = {"loss": 1.0, "acc": accuracy}
    return Evaluation(metrics, cells.view(num_classes, num_classes), predictions)


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
