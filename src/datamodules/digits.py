"""Handwritten digits that ship inside scikit-learn: 1,797 real 8x8 pictures, no download (Alpaydin & Kaynak, UCI, 1998)."""

import torch

from src.datamodules.image_datamodule import ImageDataModule


class DigitsDataModule(ImageDataModule):
    """Ten classes, one channel, shown at 32x32.

    The set has no official test split: one fifth, stratified, is set apart by a fixed seed that no option changes.
    """

    classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    channels = 1
    native_size = 32
    mean = (0.3053,)
    std = (0.3470,)

    def load(self, split: str):
        if split == "val":
            return None
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        parts = train_test_split(digits.images, digits.target, test_size=360, random_state=0, stratify=digits.target)
        images, labels = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
        images = torch.from_numpy(images * 255 / 16).round().to(torch.uint8)[:, None]  # grey levels run from 0 to 16
        return images, torch.from_numpy(labels).long()
