"""Random brightness, contrast and saturation of each image of a batch."""

import torch
from pydantic import NonNegativeFloat

CPU_CHUNK = 4  # images whose float copies stay in the cache of a CPU: 4 times as fast
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in torchvision


class ColorJitter:
    """Brightness, then contrast, then saturation, each times a random factor for each image.

    All three are one product of matrices, so values are limited to 0..255 once, at the end. The
    hue of torchvision's transform of this name is missing: it is slow.

    Args:
        brightness, contrast, saturation: x draws factors between max(0, 1 - x) and 1 + x.
    """

    def __init__(
        self,
        brightness: NonNegativeFloat = 0.4,
        contrast: NonNegativeFloat = 0.4,
        saturation: NonNegativeFloat = 0.4,
    ):
        self.strengths = (brightness, contrast, saturation)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> the same shape and type; saturation is that of RGB alone."""
        n, device = len(images), images.device
        factors = [torch.empty(n).uniform_(max(0, 1 - x), 1 + x) for x in self.strengths]
        chunk = CPU_CHUNK if device.type == "cpu" else n
        chunks = zip(*(each.split(chunk) for each in (images, *factors)), strict=True)
        return torch.cat([adjust(part, *(f.to(device) for f in own)) for part, *own in chunks])


def adjust(
    images: torch.Tensor,
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
) -> torch.Tensor:
    """uint8 (N, C, H, W) and factors (N,) -> uint8 (N, C, H, W).

    With grey(x) the luma, m its mean over the image, and b, c, s the factors, this is
    b c (s x + (1 - s) grey(x)) + b (1 - c) m.
    """
    channels = images.shape[1]
    if channels != len(LUMA):
        saturation = torch.ones_like(saturation)
    luma = LUMA if channels == len(LUMA) else (1 / channels,) * channels
    weights = torch.tensor(luma, device=images.device)
    pixels = images.flatten(2).float()
    mean = pixels.mean(2) @ weights
    keep = (brightness * contrast * saturation)[:, None, None]
    grey = (brightness * contrast * (1 - saturation))[:, None, None]
    matrices = keep * torch.eye(channels, device=images.device) + grey * weights
    offset = (brightness * (1 - contrast) * mean)[:, None, None]
    adjusted = torch.baddbmm(offset, matrices, pixels).round_().clamp_(0, 255)
    return adjusted.to(torch.uint8).view(images.shape)
