"""Several augmentations as one, and the parts of an augmentation by where they run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .transforms import PerImage, per_image


class Compose:
    """Several augmentations, each by a name of its own in YAML.

    Those that work per image come first, in the loader; the others follow on the device.

    Args:
        transforms: augmentations by name, in this order; None for none.
    """

    def __init__(self, **transforms: Any):
        self.transforms = [per_image(part) for part in transforms.values() if part]
        self.per_image = _joined([part for part in self.transforms if isinstance(part, PerImage)])
        self.store_scale = max(map(store_scale, self.transforms), default=1.0)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> uint8 of the size that the transforms give, without `per_image`."""
        for transform in self.transforms:
            images = device_part(transform)(images)
        return images


def _joined(parts: list[PerImage]) -> PerImage | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    from torchvision.transforms import v2  # imported here: it takes about a second

    return PerImage(v2.Compose([part.transform for part in parts]))


def loader_part(augment: Any) -> PerImage | None:
    """The part of an augmentation that works image by image, in the loader."""
    return augment if isinstance(augment, PerImage) else getattr(augment, "per_image", None)


def device_part(augment: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The part of an augmentation that works on batches, on the device."""
    return nn.Identity() if augment is None or isinstance(augment, PerImage) else augment


def store_scale(augment: Any) -> float:
    """How many times larger than `data.image_size` an augmentation needs the training images."""
    return getattr(augment, "store_scale", 1.0)
