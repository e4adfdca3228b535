"""What is counted while a network trains and while it is measured. Counts pictures, so no figure hangs on the batch size."""

import math
from typing import Any

import torch
from torch import nn
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix


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


class Metrics(nn.Module):
    """Loss, accuracies and confusion matrix of one pass over a split. Counts pictures, so nothing hangs on the batch size."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.loss = SumMetric(nan_strategy="disable")  # a loss that is not a number must show
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.top5 = MulticlassAccuracy(num_classes, top_k=5, average="micro", validate_args=False) if num_classes > 5 else None

    @property
    def names(self) -> list[str]:
        """Of the figures that `compute` gives. Add a figure here and there, and it is logged, kept, shown and can be monitored."""
        return ["loss", "acc", "acc_balanced"] + (["acc_top5"] if self.top5 is not None else [])

    def update(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """(N, num_classes), (N,), and the mean loss of the batch."""
        self.loss.update(loss * len(labels))
        self.confusion.update(logits, labels)
        if self.top5 is not None:
            self.top5.update(logits, labels)

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
        return values, counts

    def reset(self) -> None:
        for metric in self.children():
            if isinstance(metric, Metric):
                metric.reset()
