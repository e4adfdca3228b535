"""The three-convolution Sequential of the "CIFAR-10 quick" model, as PyTorch primers draw it (after Caffe's cifar10_quick)."""

import torch
from torch import nn


class Quick(nn.Module):
    """Conv 32, 32, 64 (5x5, each followed by max pooling), Linear 64, Linear classes, and no activation anywhere.

    145,578 parameters for 3x32x32 and ten classes. Without a nonlinearity but the pooling it is a study piece: compare it with `simple_v3`.

    Args:
        in_channels: channels of the input images.
        num_classes: number of logits.
        image_size: height and width of the (square) input, in pixels; at least 8.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: int = 32):
        super().__init__()
        if image_size < 8:
            raise ValueError(f"Quick needs pictures of at least 8x8 pixels, got {image_size}x{image_size}")
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
        """(N, C, H, W) float images -> (N, num_classes) logits."""
        return self.layers(images)
