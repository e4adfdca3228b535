"""Random resized crops: torchvision's pixels, a box for each image, larger stored images."""

import pytest
import torch
from torchvision.datasets import FakeData
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from src.datamodules import DatasetDataModule, DigitsDataModule, DogCatDataModule, RandomResizedCrop
from src.datamodules.random_resized_crop import _resized_crop_by_matrices, resized_crop

IMAGES = torch.randint(
    0, 256, (4, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
# Enlarged, reduced, a single pixel, and the whole image.
BOXES = torch.tensor([[3, 5, 9, 14], [2, 0, 37, 45], [39, 47, 1, 1], [0, 0, 40, 48]])


@pytest.mark.parametrize("function", [resized_crop, _resized_crop_by_matrices])
def test_a_box_is_resized_as_by_torchvision(function):
    flipped = torch.tensor([False, True, False, False])
    out = function(IMAGES, BOXES, flipped, 20)
    for image, box, flip, found in zip(IMAGES, BOXES.tolist(), flipped, out, strict=True):
        expected = tv.resized_crop(image, *box, [20, 20], antialias=True)
        expected = expected.flip(2) if flip else expected
        assert (found.int() - expected.int()).abs().max() <= 1


def test_boxes_have_the_areas_and_ratios_of_torchvision():
    torch.manual_seed(0)
    boxes = RandomResizedCrop().draw(4000, 64, 64).double()
    theirs = v2.RandomResizedCrop(64)
    image = torch.zeros(3, 64, 64)
    drawn = [theirs.make_params([image]) for _ in range(4000)]
    keys = ("top", "left", "height", "width")
    expected = torch.tensor([[params[key] for key in keys] for params in drawn]).double()
    assert (boxes.mean(0) - expected.mean(0)).abs().max() < 1
    assert (boxes.std(0) - expected.std(0)).abs().max() < 1
    assert (boxes[:, :2] + boxes[:, 2:]).max() == 64


def test_each_image_has_its_own_draw_and_a_seed_repeats_them():
    one = IMAGES[:1, :, :, :40].expand(64, -1, -1, -1)
    crop = RandomResizedCrop(store_scale=1.25)
    torch.manual_seed(0)
    first = crop(one)
    assert first.shape == (64, 3, 32, 32) and first.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in first}) > 60
    torch.manual_seed(0)
    assert torch.equal(crop(one), first)
    whole = RandomResizedCrop((1, 1), (1, 1), flip=1, store_scale=1)
    assert torch.equal(whole(one), one.flip(3))


def test_training_images_are_stored_larger_and_those_of_evaluation_are_unchanged(
    dog_cat_root, caplog
):
    plain = DogCatDataModule(dog_cat_root, image_size=16, val_size=20, resize="crop")
    crop = RandomResizedCrop(store_scale=1.5)
    data = DogCatDataModule(dog_cat_root, image_size=16, val_size=20, resize="crop", augment=crop)
    with caplog.at_level("INFO"):
        data.setup("fit")
        plain.setup("fit")
    assert "60 images once, to 24x24 (0.00 GB)" in caplog.text
    assert data._sets["train"][0].shape[-1] == 24
    positions = torch.arange(20)
    assert torch.equal(data.images("val", positions), plain.images("val", positions))
    assert data.images("train", positions).shape == (20, 3, 16, 16)
    assert data.augmented(positions).shape == (20, 3, 16, 16)
    assert data.split_hash() == plain.split_hash()


@pytest.mark.parametrize("data_class", [DigitsDataModule, DatasetDataModule])
def test_images_of_data_sets_are_stored_larger_too(data_class):
    own = {} if data_class is DigitsDataModule else {"train": FakeData(40, (3, 20, 30), 2)}
    data = data_class(image_size=8, augment=RandomResizedCrop(store_scale=2), **own)
    data.setup("fit")
    assert data._sets["train"][0].shape[-1] == 16
    assert data._sets["val"][0].shape[-1] == 8
