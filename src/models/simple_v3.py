"""CIFAR10_Net_Simple_v3: a small VGG-like network with batch normalization after each ReLU.

Ioffe & Szegedy, Batch Normalization, 2015; Srivastava et al., Dropout, 2014.
"""

import torch
from torch import nn

from ..errors import UserError


class SimpleV3(nn.Module):
    """Three blocks of two 3x3 convolutions with max pooling, then a 64-unit head with dropout.

    419,690 parameters for 3x32x32 and ten classes.

    Args:
        image_size: height and width of the (square) input, in pixels; at least 8.
        dropout: fraction of features dropped before each of the two linear layers, 0 to 1.
    """

    suggest_image_size = True  # where images are too small, a larger size is proposed

    def __init__(
        self, in_channels: int, num_classes: int, image_size: int = 32, dropout: float = 0.4
    ):
        super().__init__()
        if image_size < 8:
            raise UserError(
                f"SimpleV3 needs images of at least 8x8 pixels, got {image_size}x{image_size}.",
                "Set data.image_size=8 or larger.",
            )
        side = image_size // 8
        self.features = nn.Sequential(
            *_block(in_channels, 32),
            *_block(32, 64),
            *_block(64, 128),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128 * side * side, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.classifier(self.features(images))


def _block(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(out_channels),
        nn.MaxPool2d(2),
    ]
