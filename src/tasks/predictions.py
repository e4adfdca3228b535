"""What a network answered for each picture of a split, kept small: the classes it held likely, never a row of all probabilities."""

from typing import NamedTuple

import torch
from torchmetrics import Metric


class Predictions(NamedTuple):
    """One row a picture, in the order of the split's evaluation, on the CPU."""

    positions: torch.Tensor  # int64 (N,) place of the picture in the split
    labels: torch.Tensor  # int64 (N,) true class
    predicted: torch.Tensor  # int64 (N,) most probable class
    likely: torch.Tensor  # int64 (N, min(5, num_classes)) classes by falling probability
    confidence: torch.Tensor  # float32 (N,) probability of `predicted`
    true_probability: torch.Tensor  # float32 (N,) probability of `labels`


class PredictionCollector(Metric):
    """Collects `Predictions` over a pass and over all processes, without waiting for the device. A few dozen bytes a picture.

    Args:
        num_classes: how many logits there are a picture.
    """

    full_state_update = False
    numbers: list[torch.Tensor]
    probabilities: list[torch.Tensor]

    def __init__(self, num_classes: int):
        super().__init__()
        self.k = min(5, num_classes)
        self.add_state("numbers", default=[], dist_reduce_fx="cat")
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        super().reset()
        # A process that gets no pictures still takes part in the gathering, with rows of the same shape.
        self.numbers.append(torch.empty(0, 3 + self.k, dtype=torch.int32, device=self.device))
        self.probabilities.append(torch.empty(0, 2, device=self.device))

    def update(self, positions: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """(N,) places of the pictures in the split, (N,) true classes, (N, num_classes) logits."""
        probabilities = logits.float().softmax(1)
        predicted = logits.argmax(1)  # not the first of topk: at a tie the two may differ, and the confusion matrix takes argmax
        columns = [positions[:, None], labels[:, None], predicted[:, None], logits.topk(self.k).indices]
        self.numbers.append(torch.cat(columns, 1).int())
        self.probabilities.append(probabilities.gather(1, torch.stack([predicted, labels], 1)))

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of all processes, in no order. (torchmetrics takes the dimension from what has one element: no columns here.)"""
        # Gathered over several processes they are one tensor each.
        numbers, probabilities = (torch.cat(x) if isinstance(x, list) else x for x in (self.numbers, self.probabilities))
        return numbers, probabilities

    def predictions(self) -> Predictions:
        """What was collected, in the order of the split."""
        numbers, probabilities = self.compute()
        order = numbers[:, 0].argsort()
        numbers, probabilities = numbers[order].long().cpu(), probabilities[order].cpu()
        positions, labels, predicted = numbers[:, :3].T.contiguous()
        confidence, true_probability = probabilities.T.contiguous()
        return Predictions(positions, labels, predicted, numbers[:, 3:], confidence, true_probability)
