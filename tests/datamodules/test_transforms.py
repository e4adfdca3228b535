"""Augmentation: each image has its own random draw, and the global random states stay."""

import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from src.datamodules import CropFlip, DigitsDataModule, PerImage
from src.datamodules.transforms import channel_values, convert_channels, per_image, resize
from src.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (97, 3, 8, 8), dtype=torch.uint8, generator=GENERATOR)


def windows(padded: torch.Tensor, rows: int, columns: int) -> dict:
    """Every crop of a padded image by its place, upright and flipped."""
    found = {}
    for i in range(rows):
        for j in range(columns):
            crop = padded[:, i : i + 8, j : j + 8]
            found[i, j, False] = crop
            found[i, j, True] = crop.flip(2)
    return found


@pytest.mark.parametrize("padding", [2, [0, 2, 3, 4]])
def test_every_crop_is_a_window_of_the_padded_image_with_its_own_draw(padding):
    torch.manual_seed(0)
    left, top, right, bottom = (padding,) * 4 if isinstance(padding, int) else padding
    padded = F.pad(IMAGES, (left, right, top, bottom))
    places = set()
    for image, out in zip(padded, CropFlip(padding)(IMAGES), strict=True):
        crops = windows(image, top + bottom + 1, left + right + 1)
        matches = [place for place, crop in crops.items() if torch.equal(crop, out)]
        assert matches
        places.update(matches)
    assert len(places) > 20


def test_cutout_is_a_black_square_and_changes_nothing_else():
    torch.manual_seed(0)
    white = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    out = CropFlip(0, flip=0, cutout=4)(white)
    assert set(out.unique().tolist()) == {0, 255}
    assert (out == 0).sum((1, 2, 3)).max() <= 16
    assert (out == 0).any((1, 2, 3)).float().mean() > 0.9


def test_per_image_transforms_draw_by_image_whatever_the_workers():
    batches = []
    for workers in (0, 2):
        data = DigitsDataModule(
            augment=PerImage(v2.RandomInvert()), num_workers=workers, image_size=8
        )
        state = torch.random.get_rng_state()
        batches.append(torch.cat([images for images, _ in data.train_dataloader()]))
        assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(*batches)
    plain = torch.cat([images for images, _ in DigitsDataModule(image_size=8).train_dataloader()])
    assert 500 < (batches[0] != plain).flatten(1).any(1).sum() < 800


def test_per_image_seeds_torch_numpy_and_python_and_restores_them():
    def draw(image):
        numbers = [int(torch.randint(256, ())), np.random.randint(256), random.randrange(256)]
        return torch.tensor(numbers, dtype=torch.uint8)

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = PerImage(draw)(IMAGES[:4], [5, -6, 7, 1 << 62])
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert torch.equal(first, PerImage(draw)(IMAGES[:4], [5, -6, 7, 1 << 62]))
    assert len({tuple(row) for row in first.tolist()}) == 4


def test_resize_stretches_or_crops():
    wide = torch.zeros(1, 3, 10, 30, dtype=torch.uint8)
    wide[..., 10:20] = 200
    assert resize(wide, 10, "crop").float().mean() == 200
    assert resize(wide, 10).shape == (1, 3, 10, 10)
    assert resize(wide, 10).float().mean() < 100


def test_convert_channels_uses_luma():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert convert_channels(red, 1).item() == 76
    assert convert_channels(red[:, :1], 3).flatten().tolist() == [255] * 3


def test_channel_values_are_repeated_or_averaged():
    assert channel_values("x", [0.5], 1, 3) == (0.5, 0.5, 0.5)
    assert channel_values("x", [0.25, 0.5, 0.75], 3, 1) == (0.5,)
    with pytest.raises(UserError, match="x has 2 values for 3 channels"):
        channel_values("x", [1, 2], 3, 3)


def test_transforms_of_torchvision_run_per_image():
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    from src.datamodules import DigitsDataModule

    for transform in (v2.ColorJitter(0.5), v2.Compose([v2.RandomRotation(9)]), v1.RandomErasing()):
        assert isinstance(per_image(transform), PerImage)
    for transform in (CropFlip(), PerImage(v2.RandomRotation(9)), None):
        assert per_image(transform) is transform
    data = DigitsDataModule(augment=v2.RandomHorizontalFlip())
    data.setup("fit")
    positions = torch.arange(64)
    flipped = (data.augmented(positions) != data.images("train", positions)).flatten(1).any(1)
    assert 0 < flipped.sum() < 64  # not the whole batch at once
