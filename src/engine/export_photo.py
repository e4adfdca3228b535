"""An exported network with the resize of `decode` inside its graph: photos of any size."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..datamodules.decode import to_array
from ..errors import UserError
from ..inference.classifier import Classifier
from .export_formats import Network, read_onnx, write_onnx
from .export_precision import HalfClassifier

ROUNDED = 2**22  # Pillow rounds weights to multiples of 1 / 2**22
TOLERANCE = 1e-2  # between probabilities: a few pixels are rounded to the level beside Pillow's
TOLERANCE_HALF = 1e-1


class PhotoClassifier(nn.Module):
    """A uint8 photo (H, W, C) of any size -> probabilities (num_classes,).

    Pillow's bilinear resize with antialiasing, as two products with matrices of weights. ONNX's
    Resize does not round between columns and rows as Pillow does, and cannot cut half pixels.
    Where Pillow 13 takes the rows first, as of some tall photos, levels may differ by 1.

    Args:
        classifier: decides size, channels and the way of resizing.
        network: uint8 (1, C, size, size) -> logits (1, num_classes); None: the classifier.
    """

    fill: torch.Tensor  # (C, 1, 1)

    def __init__(self, classifier: Classifier, network: nn.Module | None = None):
        super().__init__()
        assert classifier.image_size is not None  # `build_network` accepts no checkpoint without it
        self.size = classifier.image_size
        self.resize = classifier.resize
        self.network = network or classifier
        self.register_buffer("fill", (255 * classifier.mean[0]).round())

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        """uint8 (H, W, C) -> (num_classes,)."""
        return self.network(self.prepare(photo)).softmax(1)[0]

    def prepare(self, photo: torch.Tensor) -> torch.Tensor:
        """uint8 (H, W, C) -> uint8 (1, C, size, size), as `to_array` does it."""
        rows = self._weights(photo.shape[0], photo.shape[1])
        columns = self._weights(photo.shape[1], photo.shape[0])
        pixels = (photo.permute(2, 0, 1).float() @ columns.T + 0.5).floor()
        pixels = (rows @ pixels + 0.5).floor()
        is_photo = rows.sum(1)[:, None] * columns.sum(1) > 0.5
        return torch.where(is_photo, pixels, self.fill).clamp(0, 255).to(torch.uint8)[None]

    def _weights(self, length: int, other: int) -> torch.Tensor:
        """Weights of the pixels along a side of the photo, (size, length); 0 in the padding.

        Args:
            other: the length of the other side.
        """
        whole, across = (torch.scalar_tensor(n, dtype=torch.float64) for n in (length, other))
        taken, size = whole, torch.scalar_tensor(self.size, dtype=torch.float64)
        filled = size
        if self.resize == "crop":
            taken = torch.minimum(whole, across)
        elif self.resize == "pad":
            filled = (whole * (size / torch.maximum(whole, across))).round().clamp(min=1)
        row = torch.arange(self.size)[:, None] - ((size - filled) / 2).floor()
        scale = taken / filled
        center = (whole - taken) / 2 + (row + 0.5) * scale
        distance = (torch.arange(length) + 0.5 - center).abs() / scale.clamp(min=1)
        weights = (1 - distance).clamp(min=0)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
        weights = (weights * ROUNDED + 0.5).floor() / ROUNDED
        return (weights * ((row >= 0) & (row < filled))).float()


def put_resize_inside(
    classifier: Classifier, part: Path, metadata: dict[str, Any]
) -> dict[str, Any]:
    """Replace a graph by one that takes photos; return what changes in its metadata.

    Args:
        part: the graph.
        metadata: have a key `fp16` where it is of half precision.

    Raises:
        UserError: its probabilities differ by more than `TOLERANCE` from those of the classifier.
    """
    is_half = "fp16" in metadata
    changes: dict[str, Any] = {
        "input": "uint8 (height, width, channels) of any size, 0 to 255, not normalized",
        "output": "probabilities (classes,)",
        "resize_inside": {},
    }
    any_size = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    size = classifier.image_size or 1
    example = torch.zeros(size + 5, size + 3, classifier.channels, dtype=torch.uint8)
    network = PhotoClassifier(classifier, HalfClassifier(classifier) if is_half else None)
    names = ("photo", "probabilities")
    write_onnx(network.eval(), example, part, metadata | changes, names, any_size)
    difference = _largest_difference(classifier, read_onnx(part))
    allowed = TOLERANCE_HALF if is_half else TOLERANCE
    if not difference <= allowed:  # also where it is NaN
        raise UserError(
            f"With the resize in its graph, the network's probabilities differ by {difference:.1e} "
            f"on random photos; {allowed:g} is allowed.",
            "No file was written. Export without resize=true.",
        )
    return changes | {"resize_inside": {"max_probability_difference": difference}}


@torch.inference_mode()
def _largest_difference(classifier: Classifier, exported: Network) -> float:
    """Return the largest difference of probabilities on random photos of several sizes."""
    size = classifier.image_size or 1
    random = np.random.default_rng(0)
    largest = 0.0
    for shape in ((size, size), (2 * size + 7, 3 * size), (size // 2 + 1, size // 3 + 1)):
        pixels = random.integers(0, 256, (*shape, classifier.channels), np.uint8)
        image = Image.fromarray(pixels.squeeze(2) if classifier.channels == 1 else pixels)
        fill = classifier.mean.flatten().tolist()
        resized = to_array(image, size, classifier.channels, classifier.resize, fill)
        expected = classifier(torch.from_numpy(resized)[None]).softmax(1)[0]
        difference = (exported(torch.from_numpy(pixels)) - expected).abs().max()
        largest = max(largest, difference.item())
    return largest
