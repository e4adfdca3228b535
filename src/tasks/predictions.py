"""Predictions for the images of a split: the most probable classes, not all probabilities."""

from typing import NamedTuple

import torch
from torchmetrics import Metric


class Predictions(NamedTuple):
    """One row per image, in the order of the split's evaluation, on the CPU."""

    positions: torch.Tensor  # int64 (N,) place of the image in the split
    labels: torch.Tensor  # int64 (N,) true class
    predicted: torch.Tensor  # int64 (N,) most probable class
    topk: torch.Tensor  # int64 (N, min(5, num_classes)) classes, the most probable first
    confidence: torch.Tensor  # float32 (N,) probability of `predicted`
    true_probability: torch.Tensor  # float32 (N,) probability of `labels`


class PredictionStore(Metric):
    """Collects `Predictions` over a pass and over all processes, without waiting for the device.

    It takes a few dozen bytes per image.

    Args:
        num_classes: logits per image.
    """

    full_state_update = False
    integers: list[torch.Tensor]
    probabilities: list[torch.Tensor]

    def __init__(self, num_classes: int):
        super().__init__()
        self.k = min(5, num_classes)
        self.add_state("integers", default=[], dist_reduce_fx="cat")
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        super().reset()
        # A process without images takes part in the gathering with rows of the same shape.
        self.integers.append(torch.empty(0, 3 + self.k, dtype=torch.int32, device=self.device))
        self.probabilities.append(torch.empty(0, 2, device=self.device))

    def update(self, positions: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """(N,) places in the split, (N,) true classes, (N, num_classes) logits."""
        probabilities = logits.float().softmax(1)
        # argmax and not the first of topk, since the confusion matrix takes argmax at a tie too.
        predicted = logits.argmax(1)
        topk = logits.topk(self.k).indices
        columns = [positions[:, None], labels[:, None], predicted[:, None], topk]
        self.integers.append(torch.cat(columns, 1).int())
        pairs = torch.stack([predicted, labels], 1)
        self.probabilities.append(probabilities.gather(1, pairs))

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of all processes, in no order."""
        return _concatenate(self.integers), _concatenate(self.probabilities)

    def to_predictions(self) -> Predictions:
        """The rows of all processes, in the order of the split."""
        integers, probabilities = self.compute()
        order = integers[:, 0].argsort()
        integers = integers[order].long().cpu()
        probabilities = probabilities[order].cpu()
        positions, labels, predicted = integers[:, :3].T.contiguous()
        confidence, true_probability = probabilities.T.contiguous()
        return Predictions(
            positions, labels, predicted, integers[:, 3:], confidence, true_probability
        )


def _concatenate(rows: list[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """One tensor of the batches, which is what torchmetrics makes of several processes."""
    return torch.cat(rows) if isinstance(rows, list) else rows
