"""Dogs and cats from folders or from the archive."""

import tarfile

import pytest

from src.datamodules import DogCatDataModule
from src.errors import UserError


def test_250_images_are_for_validation_by_default(tmp_path):
    data = DogCatDataModule(tmp_path)
    assert data.val_size == 250 and data.classes == ["cat", "dog"]


def test_the_archive_put_there_by_hand(dog_cat_root, tmp_path):
    with tarfile.open(tmp_path / "dog_cat.tar", "w") as archive:
        archive.add(dog_cat_root, "dog_cat")
    data = DogCatDataModule(tmp_path, image_size=16, val_size=20)
    data.prepare_data()
    data.setup()
    assert data.sizes() == {"train": 40, "val": 20} and not data.has_test


def test_missing_images_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match="github.com"):
        DogCatDataModule(tmp_path).setup("fit")
