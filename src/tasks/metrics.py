"""Metrics of validation and test. They count images, whatever the size of a batch."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from ..errors import UserError
from .predictions import Predictions, PredictionStore

# Names in results.json that an extra metric cannot have.
RESERVED = {"acc_low", "acc_high", "acc_top2", "acc_top3", "acc_top4", "acc_top5", "ece"}
RESERVED |= {"per_class", "most_confused"}


@dataclass
class Evaluation:
    """One pass over a split."""

    metrics: dict[str, float]  # loss, acc, ... in full precision; NaN where one is not defined
    confusion: torch.Tensor  # int64 (num_classes, num_classes), true class first
    predictions: Predictions


class EvaluationMetrics(nn.Module):
    """Loss, accuracies, confusion matrix and predictions of one pass over a split.

    Args:
        num_classes: logits per image.
        extra: metrics by name, each giving one number for probabilities (N, num_classes) and
            labels (N,); they are copied.

    Raises:
        UserError: a reserved or impossible name; a metric that gives something else.
    """

    def __init__(self, num_classes: int, extra: Mapping[str, Metric] | None = None):
        super().__init__()
        self.loss = SumMetric(nan_strategy="disable")  # a loss that is not a number must show
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.predictions = PredictionStore(num_classes)
        self.top5 = None
        self.own_names = ["loss", "acc", "acc_balanced"]
        if num_classes > 5:
            self.own_names.append("acc_top5")
            self.top5 = MulticlassAccuracy(num_classes, 5, "micro", validate_args=False)
        for name, metric in (extra or {}).items():
            _check_extra_metric(name, metric, num_classes, self.own_names)
        # Compute groups would merge metrics whose counts of the first batch are equal by chance.
        self.extra = MetricCollection(
            {name: metric.clone() for name, metric in (extra or {}).items()}, compute_groups=False
        )

    @property
    def names(self) -> list[str]:
        """Names of the metrics that `compute` gives."""
        return [*self.own_names, *self.extra]

    def update(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        loss: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:
        """Count a batch: (N, num_classes), (N,), its mean loss, and (N,) places in the split."""
        self.loss.update(loss * len(labels))
        self.confusion.update(logits, labels)
        self.predictions.update(positions, labels, logits)
        if self.top5 is not None:
            self.top5.update(logits, labels)
        if len(self.extra):
            self.extra.update(logits.float().softmax(1), labels)

    def compute(self) -> Evaluation:
        """The metrics over all processes."""
        confusion = self.confusion.compute().cpu()
        total = max(int(confusion.sum()), 1)
        support = confusion.sum(1)
        recall = confusion.diagonal().double() / support
        metrics = {
            "loss": float(self.loss.compute()) / total,
            "acc": int(confusion.diagonal().sum()) / total,
            # Without images of a class nothing is known of it: the mean over the others misleads.
            "acc_balanced": float(recall.mean()) if support.all() else math.nan,
        }
        if self.top5 is not None:
            metrics["acc_top5"] = float(self.top5.compute())
        extra = {name: float(value) for name, value in self.extra.compute().items()}
        return Evaluation(metrics | extra, confusion, self.predictions.to_predictions())

    def reset(self) -> None:
        """Start another pass."""
        for metric in self.children():
            if isinstance(metric, Metric | MetricCollection):
                metric.reset()


def _check_extra_metric(name: str, metric: Any, num_classes: int, own_names: list[str]) -> None:
    taken = name in own_names or name in RESERVED or hasattr(MetricCollection, name)
    if taken or not name.isidentifier():
        raise UserError(
            f"metrics.{name}: an extra metric cannot have this name.",
            "Choose a name of letters, digits and _ that is not reserved: "
            f"{', '.join(own_names)} are computed in any case.",
        )
    if not isinstance(metric, Metric):
        raise UserError(
            f"metrics.{name} is a {type(metric).__name__} and not a metric.",
            "Name a class of torchmetrics, or one derived from torchmetrics.Metric.",
        )
    probabilities = torch.zeros(2, num_classes).softmax(1)
    with warnings.catch_warnings(action="ignore"):  # of classes without images among these two
        value = metric.clone()(probabilities, torch.tensor([0, 1]))
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise UserError(
            f"metrics.{name} gives more than one number.",
            f"Set metrics.{name}.average=macro, or choose another metric.",
        )
