"""A nine-layer residual network for small images.

David Page, How to Train Your ResNet, myrtle.ai, 2018.
"""

import torch
from torch import nn


class ResNet9(nn.Module):
    """Eight 3x3 convolutions with batch normalization, two residual blocks, and a linear head.

    For images of 28 to 64 pixels.

    Args:
        width: channels of the first convolution; the others have two, four and eight times as
            many. 64 is the original.
        scale: factor of the logits; 0.125 in the original, which keeps early steps small.
    """

    suggest_image_size = True

    def __init__(self, in_channels: int, num_classes: int, width: int = 64, scale: float = 0.125):
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(
            _conv(in_channels, width),
            _conv(width, 2 * width, pool=True),
            _Residual(2 * width),
            _conv(2 * width, 4 * width, pool=True),
            _conv(4 * width, 8 * width, pool=True),
            _Residual(8 * width),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, num_classes) of float images (N, C, H, W)."""
        return self.head(self.layers(images)) * self.scale


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.branch(images)


def _conv(in_channels: int, out_channels: int, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
