"""Colour jitter: the factors of torchvision, drawn for each image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from src.datamodules import ColorJitter
from src.datamodules.color_jitter import adjust

IMAGES = torch.randint(
    40, 120, (3, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.mark.parametrize("channels", [3, 1])
def test_factors_adjust_each_image_as_in_torchvision(channels):
    images = IMAGES[:, :channels]
    factors = (
        torch.tensor([0.6, 1.0, 1.4]),
        torch.tensor([1.3, 0.7, 1.0]),
        torch.tensor([0.5, 1, 2]),
    )
    out = adjust(images, *factors)
    for image, found, brightness, contrast, saturation in zip(images, out, *factors, strict=True):
        expected = tv.adjust_brightness(image, float(brightness))
        expected = tv.adjust_contrast(expected, float(contrast))
        expected = tv.adjust_saturation(expected, float(saturation))
        assert (found.int() - expected.int()).abs().max() <= 3  # torchvision rounds three times


def test_each_image_has_its_own_draw():
    torch.manual_seed(0)
    same = IMAGES[:1].expand(50, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in ColorJitter()(same)}) == 50
    assert torch.equal(ColorJitter(0, 0, 0)(same), same)
