"""What is counted while a network trains and while it is measured. Counts pictures, so no figure hangs on the batch size."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from src.errors import UserError


class Sums:
    """Loss and hits of the training pictures seen in this epoch, added up on the device without waiting for it.

    A mark is a stretch of some steps; closing it is the only moment that reads from the device.
    """

    def __init__(self):
        self.resume: dict[str, Any] | None = None
        self.rate: float | torch.Tensor = math.nan  # of the last step
        self.start_epoch(torch.device("cpu"))

    def start_epoch(self, device: torch.device) -> None:
        self.mark = torch.zeros(2, device=device)
        self.loss, self.hits = self.mark.unbind()  # views: adding to them fills the mark
        self.count = 0
        self.epoch = [0.0, 0.0, 0.0]  # loss, hits, pictures of the closed marks
        if self.resume is not None:
            self.mark.copy_(torch.tensor(self.resume["mark"]))
            self.count, self.epoch = self.resume["count"], list(self.resume["epoch"])
            self.rate = self.resume.get("rate", math.nan)
            self.resume = None

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.loss.add_(loss, alpha=len(labels))
        self.hits.add_((logits.argmax(1) == labels).sum())
        self.count += len(labels)

    def close_mark(self, strategy) -> float:
        """Mean loss since the last mark, over all processes."""
        totals = torch.cat([self.mark, self.mark.new_tensor([self.count])])
        loss, hits, count = strategy.reduce(totals, reduce_op="sum").tolist()
        self.epoch = [self.epoch[0] + loss, self.epoch[1] + hits, self.epoch[2] + count]
        self.mark.zero_()
        self.count = 0
        return loss / count

    def epoch_means(self) -> tuple[float, float]:
        """Mean loss and accuracy over the epoch."""
        loss, hits, count = self.epoch
        return loss / max(count, 1), hits / max(count, 1)

    def state(self) -> dict[str, Any]:
        return {"mark": self.mark.tolist(), "count": self.count, "epoch": list(self.epoch), "rate": float(self.rate)}


TAKEN = ("acc_low", "acc_high", "acc_top2", "acc_top3", "acc_top4", "acc_top5", "ece", "per_class", "most_confused")  # in results.json


class Metrics(nn.Module):
    """Loss, accuracies and confusion matrix of one pass over a split. Counts pictures, so nothing hangs on the batch size.

    Args:
        num_classes: how many logits there are a picture.
        further: metrics by name, each giving one number from probabilities (N, num_classes) and labels (N,).

    Raises:
        UserError: names that are taken or cannot be one; a metric that gives something else.
    """

    def __init__(self, num_classes: int, further: Mapping[str, Metric] | None = None):
        super().__init__()
        self.loss = SumMetric(nan_strategy="disable")  # a loss that is not a number must show
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.top5 = MulticlassAccuracy(num_classes, top_k=5, average="micro", validate_args=False) if num_classes > 5 else None
        self.own = ["loss", "acc", "acc_balanced"] + (["acc_top5"] if self.top5 is not None else [])
        for name, metric in (further or {}).items():
            self._try(name, metric, num_classes)
        # In groups metrics would be merged by what they have counted in the first batch, which may be equal by chance.
        self.further = MetricCollection({name: metric.clone() for name, metric in (further or {}).items()}, compute_groups=False)

    @property
    def names(self) -> list[str]:
        """Of the figures that `compute` gives."""
        return [*self.own, *self.further]

    def _try(self, name: str, metric: Metric, num_classes: int) -> None:
        if name in {*self.own, *TAKEN} or hasattr(MetricCollection, name) or not name.isidentifier():
            raise UserError(
                f"metrics.{name}: a further metric cannot have this name.",
                f"Choose one of letters, digits and _ that is not taken: {', '.join(self.own)} are measured anyway.",
            )
        if not isinstance(metric, Metric):
            raise UserError(
                f"metrics.{name} is a {type(metric).__name__}, no metric.", "Name a class of torchmetrics, or one derived from Metric."
            )
        try:
            with warnings.catch_warnings(action="ignore"):  # of classes that have no picture among these two
                float(metric.clone()(torch.zeros(2, num_classes).softmax(1), torch.tensor([0, 1])))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"metrics.{name} gives no single number for probabilities and labels: {error}.",
                f"Set metrics.{name}.average=macro, or choose another metric.",
            ) from error

    def update(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """(N, num_classes), (N,), and the mean loss of the batch."""
        self.loss.update(loss * len(labels))
        self.confusion.update(logits, labels)
        if self.top5 is not None:
            self.top5.update(logits, labels)
        if len(self.further):
            self.further.update(logits.float().softmax(1), labels)

    def compute(self) -> tuple[dict[str, float], torch.Tensor]:
        """Figures by name, and the (true, predicted) counts. Gathers over all processes."""
        counts = self.confusion.compute().cpu()
        total = max(int(counts.sum()), 1)
        support = counts.sum(1)
        recall = counts.diagonal()[support > 0].double() / support[support > 0]
        values = {
            "loss": float(self.loss.compute()) / total,
            "acc": int(counts.diagonal().sum()) / total,
            "acc_balanced": float(recall.mean()) if len(recall) else 0.0,
        }
        if self.top5 is not None:
            values["acc_top5"] = float(self.top5.compute())
        return values | {name: float(value) for name, value in self.further.compute().items()}, counts

    def reset(self) -> None:
        for metric in self.children():
            if isinstance(metric, Metric | MetricCollection):
                metric.reset()
