"""Handwritten digits inside scikit-learn: 1,797 images of 8x8 (Alpaydin & Kaynak, UCI, 1998)."""

from typing import Any

import torch

from .base import ImageDataModule


class DigitsDataModule(ImageDataModule):
    """Ten classes, one channel, resized to 32x32; nothing to download.

    The set has no official test split: a stratified fifth is held out by a fixed seed.
    """

    classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    channels = 1
    native_size = 32
    mean = (0.3053,)
    std = (0.3470,)
    reads_root = False  # they come with scikit-learn

    def load(self, split: str) -> Any:
        if split == "val":
            return None
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        labels = digits.target
        parts = train_test_split(range(1797), test_size=360, random_state=0, stratify=labels)
        positions = parts[1] if split == "test" else parts[0]
        pixels = torch.from_numpy(digits.images[positions] * 255 / 16)  # grey levels: 0 to 16
        return pixels.round().to(torch.uint8)[:, None], torch.from_numpy(labels[positions]).long()
