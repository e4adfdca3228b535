"""Several trained networks that predict as one."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from .classifier import Classifier


class Ensemble(nn.Module):
    """Networks whose mean probability counts, also over mirrored images where `flip` is set.

    Args:
        members: classifiers of images of the same size.
        classes: the order of the predictions; every member has been trained on all of them.
    """

    def __init__(self, members: Sequence[Classifier], classes: Sequence[str], flip: bool):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.orders = [[member.classes.index(name) for name in classes] for member in members]
        self.flip = flip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W) from 0 to 1 -> logarithms of the mean probabilities (N, classes)."""
        views = [images, images.flip(3)] if self.flip else [images]
        outputs = []
        for member, order in zip(self.members, self.orders, strict=True):
            net = cast(Classifier, member)
            for view in views:
                logits = net.model((view - net.mean) / net.std) / net.calibration.temperature
                outputs.append(logits.float().log_softmax(1)[:, order])
        return torch.stack(outputs).logsumexp(0) - math.log(len(outputs))
