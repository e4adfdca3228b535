"""Metrics of hand-made logits, whatever the size of the batches."""

import math

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from src.errors import UserError
from src.tasks.metrics import EvaluationMetrics


def evaluated(metrics, logits, labels, size, loss=None):
    """One pass over the images in batches of `size`."""
    positions = torch.arange(len(labels))
    parts = (logits.split(size), labels.split(size), positions.split(size))
    for part, target, places in zip(*parts, strict=True):
        value = loss if loss is not None else nn.functional.cross_entropy(part, target)
        metrics.update(part, target, value, places)
    evaluation = metrics.compute()
    metrics.reset()
    return evaluation


@pytest.mark.parametrize("size", [4, 3, 1])
def test_loss_accuracies_and_confusion(size):
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [2.0, 0, 0], [0, 0, 2.0]])
    labels = torch.tensor([0, 1, 1, 2])
    evaluation = evaluated(EvaluationMetrics(3), logits, labels, size)
    correct, wrong = math.log(1 + 2 * math.exp(-2)), math.log(math.exp(2) + 2)
    assert evaluation.metrics["loss"] == pytest.approx((3 * correct + wrong) / 4, rel=1e-6)
    assert evaluation.metrics["acc"] == 0.75
    assert evaluation.metrics["acc_balanced"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert evaluation.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert evaluation.predictions.predicted.tolist() == [0, 1, 0, 2]


def test_extra_metrics_are_those_of_torchmetrics():
    """Twice in a row, and not merged by what the first batch shares by chance."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(200, 6, generator=generator) * 1.5
    labels = torch.arange(200) % 6
    logits[:20] = nn.functional.one_hot(labels[:20], 6).float()  # correct for any k
    extra = {
        "top2": MulticlassAccuracy(6, top_k=2, average="micro"),
        "top3": MulticlassAccuracy(6, top_k=3, average="micro"),
        "auroc": MulticlassAUROC(6),
        "f1": MulticlassF1Score(6, average="macro"),
    }
    probabilities = logits.softmax(1)
    expected = {name: float(m.clone()(probabilities, labels)) for name, m in extra.items()}
    metrics = EvaluationMetrics(6, extra)
    assert set(metrics.names) == {"loss", "acc", "acc_balanced", "acc_top5", *extra}
    for size in (1, 20, 200):
        values = evaluated(metrics, logits, labels, size).metrics
        assert {name: values[name] for name in extra} == pytest.approx(expected)


def test_a_loss_that_is_not_a_number_shows():
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    values = evaluated(EvaluationMetrics(2), logits, labels, 2, torch.tensor(float("nan"))).metrics
    assert math.isnan(values["loss"])


def test_the_balanced_accuracy_is_not_defined_without_images_of_a_class():
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0]])
    values = evaluated(EvaluationMetrics(3), logits, torch.tensor([0, 1]), 2).metrics
    assert values["acc"] == 1 and math.isnan(values["acc_balanced"])


def test_values_of_the_tutorial():
    logits = torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    assert evaluated(EvaluationMetrics(2), logits, torch.tensor([0, 0]), 2).metrics["acc"] == 0.5


def test_top5_counts_the_five_highest():
    logits = torch.arange(10.0).repeat(10, 1)
    values = evaluated(EvaluationMetrics(10), logits, torch.arange(10), 10).metrics
    assert values["acc_top5"] == 0.5


@pytest.mark.parametrize(
    ("name", "metric", "problem"),
    [
        ("acc", MulticlassF1Score(3), "cannot have this name"),
        ("ece", MulticlassF1Score(3), "cannot have this name"),
        ("a-b", MulticlassF1Score(3), "cannot have this name"),
        ("mine", nn.Identity(), "not a metric"),
        ("f1", MulticlassF1Score(3, average="none"), "more than one number"),
    ],
)
def test_extra_metrics_that_cannot_be_used(name, metric, problem):
    with pytest.raises(UserError, match=problem):
        EvaluationMetrics(3, {name: metric})
