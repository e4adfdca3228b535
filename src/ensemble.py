"""Several trained networks that answer as one."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from src.classifier import Classifier


class Ensemble(nn.Module):
    """Several networks that answer with the logarithm of the mean of their probabilities, over mirror images too where `flip` says so.

    Args:
        members: classifiers of equally large pictures.
        classes: in the order in which the answers are wanted; every member knows all of them.
        flip: also ask about the mirror image.
    """

    def __init__(self, members: Sequence[Classifier], classes: Sequence[str], flip: bool):
        super().__init__()
        self.members: Sequence[Classifier] = nn.ModuleList(members)  # type: ignore[assignment]  # a list of them, to a type checker
        self.orders = [[member.classes.index(name) for name in classes] for member in members]
        self.flip = flip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, C, H, W), 0..1 -> (N, num_classes)."""
        views = [images, images.flip(3)] if self.flip else [images]
        answers = [
            member.model((view - member.mean) / member.std).float().log_softmax(1)[:, order]
            for member, order in zip(self.members, self.orders, strict=True)
            for view in views
        ]
        return torch.stack(answers).logsumexp(0) - math.log(len(answers))
