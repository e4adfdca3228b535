"""LeNet as the PyTorch tutorials use it.

LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
"""

import torch
from torch import nn

from ..errors import UserError


class LeNet(nn.Module):
    """Two 5x5 convolutions and three linear layers, with ReLU and max pooling.

    62,006 parameters for 3x32x32 and ten classes (the 60-minute tutorial's Net), 44,426 for 1x28x28
    (GarmentClassifier).

    Args:
        image_size: height and width of the (square) input, in pixels; at least 16.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: int = 32):
        super().__init__()
        if image_size < 16:
            raise UserError(
                f"LeNet needs images of at least 16x16 pixels, got {image_size}x{image_size}.",
                "Set data.image_size=16 or larger.",
            )
        # Each convolution removes 4 pixels, each pooling halves.
        side = ((image_size - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.classifier(self.features(images))
