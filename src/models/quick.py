"""The "CIFAR-10 quick" network of three convolutions, as PyTorch primers use it.

After cifar10_quick of Caffe (Jia et al., 2014).
"""

import torch
from torch import nn

from ..errors import UserError


class Quick(nn.Module):
    """Three 5x5 convolutions, each followed by max pooling, and two linear layers.

    145,578 parameters for 3x32x32 and ten classes. There is no activation function: it is meant for
    comparison with `simple_v3`.

    Args:
        image_size: height and width of the (square) input, in pixels; at least 8.
    """

    suggest_image_size = True

    def __init__(self, in_channels: int, num_classes: int, image_size: int = 32):
        super().__init__()
        if image_size < 8:
            raise UserError(
                f"Quick needs images of at least 8x8 pixels, got {image_size}x{image_size}.",
                "Set data.image_size=8 or larger.",
            )
        side = image_size // 8
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 32, 5, padding=2),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 5, padding=2),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * side * side, 64),
            nn.Linear(64, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.layers(images)
