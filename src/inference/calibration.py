"""What a checkpoint stores about how far predictions can be trusted; evaluate.py measures it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import get_ident
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, InstanceOf, TypeAdapter, ValidationError
from torch import nn
from torch.nn import functional as F
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from ..errors import UserError
from ..tasks.optim import find_head

NEIGHBOR = 5  # the distance of an image is that to its fifth nearest training image
Probability = Annotated[float, Field(ge=0, le=1)]


class KnownImages(nn.Module):
    """Recognizes images that are unlike those of the training, by their features.

    Method: Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, 2022.

    Args:
        features: float (M, D), inputs of the network's last layer for M training images.
        threshold: the distance above which an image counts as unknown.
    """

    features: torch.Tensor

    def __init__(self, features: torch.Tensor, threshold: float = 1.0):
        super().__init__()
        self.register_buffer("features", F.normalize(features.float()), persistent=False)
        self.threshold = threshold

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """float (N, D) -> distances (N,) in units of the threshold: above 1 is unknown."""
        distances = torch.cdist(F.normalize(features.float()), self.features)
        nearest = distances.topk(min(NEIGHBOR, len(self.features)), largest=False).values
        return nearest[:, -1] / self.threshold


@dataclass
class Calibration:
    """What `evaluate.py calibrate=true` stores; the default is that of every other checkpoint.

    Args:
        temperature: the logits are divided by it (Guo et al., On Calibration of Modern Neural
            Networks, 2017).
        confidences: quantiles, evenly spaced from 0 to 1, of the confidence on validation images.
        known: None where the network has no features to compare.
    """

    temperature: float = 1.0
    confidences: list[float] = field(default_factory=list)
    known: KnownImages | None = None

    def threshold(self, coverage: float) -> float:
        """The confidence that the fraction `coverage` of the validation images reaches."""
        positions = np.linspace(0, 1, len(self.confidences))
        return float(np.interp(1 - coverage, positions, self.confidences))

    def to_plain(self) -> dict[str, Any]:
        """What a checkpoint holds under `calibration`."""
        known = None
        if self.known is not None:
            features = self.known.features.half().cpu()
            known = {"features": features, "threshold": self.known.threshold}
        values = {"temperature": self.temperature, "confidences": self.confidences}
        return {**values, "known": known}


class _Known(TypedDict):
    features: InstanceOf[torch.Tensor]
    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Stored(TypedDict):
    temperature: Annotated[float, Field(ge=0.01, le=100)]
    confidences: Annotated[list[Probability], Field(min_length=2, max_length=1001)]
    known: _Known | None


def read_calibration(checkpoint: Mapping[str, Any]) -> Calibration:
    """The calibration of a checkpoint, which may come from a stranger.

    Raises:
        UserError: it holds what evaluate.py does not write.
    """
    stored = checkpoint.get("calibration")
    if stored is None:
        return Calibration()
    try:
        values = TypeAdapter(_Stored).validate_python(stored, strict=True)
    except ValidationError as error:
        detail = error.errors()[0]
        raise _refused(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None
    known = values["known"]
    if known is None:
        return Calibration(values["temperature"], values["confidences"])
    features = known["features"]
    is_table = features.ndim == 2 and features.numel() and features.is_floating_point()
    if not is_table or not features.isfinite().all():
        raise _refused("known.features is not a table of finite numbers")
    images = KnownImages(features, known["threshold"])
    return Calibration(values["temperature"], values["confidences"], images)


def check_width(known: KnownImages, net: Any) -> None:
    """Raise a `UserError` where a classifier does not have the features that `known` compares."""
    head = linear_head(net)
    if head is None or head.in_features != known.features.shape[1]:
        raise _refused("known.features does not fit the network")


def _refused(problem: str) -> UserError:
    return UserError(
        f"The calibration in the checkpoint cannot be used: {problem}.",
        "Measure it again with evaluate.py calibrate=true, and check where the file comes from.",
    )


def linear_head(net: Any) -> nn.Linear | None:
    """The linear layer that ends the network of a classifier; None where it is of another kind."""
    try:
        head = find_head(net.model, len(net.classes))
    except UserError:
        return None
    return head if isinstance(head, nn.Linear) else None


def features_and_logits(net: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images, as a classifier takes them -> inputs (N, D) of its head, and its logits."""
    thread, inputs = get_ident(), []

    def keep(module: nn.Module, args: tuple) -> None:
        if get_ident() == thread:  # a server predicts in several threads
            inputs.append(args[0])

    head = find_head(net.model, len(net.classes))
    with head.register_forward_pre_hook(keep):
        logits = net(images)
    return inputs[-1], logits
