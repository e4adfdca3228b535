"""Images in folders: layouts, names, files that cannot be used, caches and streams."""

import os

import numpy as np
import pytest
import torch
from helpers import write_image_folder

from src.config.validate import validate
from src.datamodules import DogCatDataModule, ImageFolderDataModule
from src.errors import UserError


def ready(data, stage=None):
    data.prepare_data()
    data.setup(stage)
    return data


def test_one_folder_is_split_and_no_file_moves(tmp_path):
    root = write_image_folder(tmp_path / "animals", {"bee": 20, "ant": 30})
    (root / ".ipynb_checkpoints").mkdir()
    (root / "__MACOSX").mkdir()
    before = sorted(root.rglob("*"))
    data = ready(ImageFolderDataModule(root, image_size=24, val_size=10, test_size=10))
    assert data.classes == ["ant", "bee"]
    assert data.sizes() == {"train": 30, "val": 10, "test": 10}
    assert sorted(root.rglob("*")) == before
    assert torch.bincount(data.labels("val")).tolist() == [6, 4]
    names = [data.names(split, torch.arange(n)) for split, n in data.sizes().items()]
    files = [path.relative_to(root).as_posix() for path in root.rglob("*.jpg")]
    assert sorted(sum(names, [])) == sorted(files)


def test_split_folders_and_folders_named_image(tmp_path):
    for split, count in (("train", 12), ("valid", 5), ("test", 4)):
        write_image_folder(tmp_path / split, {"ants_image": count, "bees_image": count})
        (tmp_path / split / "ants_label").mkdir()
    data = ready(ImageFolderDataModule(tmp_path, image_size=24))
    assert data.classes == ["ants", "bees"]
    assert data.sizes() == {"train": 24, "val": 10, "test": 8}
    assert data.names("test", torch.tensor([0])) == ["test/ants_image/000.jpg"]


def test_a_whole_folder_can_be_the_test_split(tmp_path):
    data = ImageFolderDataModule(write_image_folder(tmp_path, {"a": 4, "b": 4}), image_size=8)
    assert not data.has_test
    data.whole = True
    assert data.has_test and ready(data, "test").sizes() == {"test": 8}
    assert data.names("test", torch.tensor([7])) == ["b/003.jpg"]


def test_a_folder_in_another_with_splits_in_capitals(tmp_path):
    for split, count in (("Training", 8), ("Dev", 4), ("TEST", 4)):
        write_image_folder(tmp_path / "photos" / split, {"a": count, "b": count}, size=8)
    data = ready(ImageFolderDataModule(tmp_path, image_size=8))
    assert data.classes == ["a", "b"]
    assert data.sizes() == {"train": 16, "val": 8, "test": 8}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"a": 4, "c": 4}, "c is a class that"),
        ({}, "test has 0 class folders.* 1 images that are in none"),
        ({"a": 4, "b": 0}, "b has no images"),
    ],
)
def test_a_test_split_that_cannot_be_used_is_found_before_the_training(test, words, tmp_path):
    write_image_folder(tmp_path / "train", {"a": 4, "b": 4}, size=8)
    write_image_folder(tmp_path / "test", test, size=8)
    for name in {"b"} & set(test):
        (tmp_path / "test" / name).mkdir(exist_ok=True)
    if not test:
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "test" / "0.jpg").write_bytes(b"")
    for stage in ("fit", "test"):
        with pytest.raises(UserError, match=words):
            ready(ImageFolderDataModule(tmp_path, image_size=8, val_size=2), stage)


def test_a_validation_split_may_lack_a_class(tmp_path, caplog):
    write_image_folder(tmp_path / "train", {"cat": 4, "dog": 4}, size=8)
    write_image_folder(tmp_path / "val", {"dog": 4}, size=8)
    data = ready(ImageFolderDataModule(tmp_path, image_size=8), "fit")
    assert data.labels("val").tolist() == [1] * 4
    assert "1 of 2 classes have no validation images: cat" in caplog.text


def test_folders_without_training_images(tmp_path):
    write_image_folder(tmp_path / "test", {"a": 4, "b": 4}, size=8)
    data = ImageFolderDataModule(tmp_path, image_size=8)
    with pytest.raises(UserError, match="none to train on"):
        ready(data, "fit")
    assert ready(data, "test").sizes() == {"test": 8}


def test_small_classes_are_in_every_split_or_refused(tmp_path, caplog):
    root = write_image_folder(tmp_path / "root", {"cat": 3, "dog": 60}, size=8)
    options = {"image_size": 8, "val_size": 5, "test_size": 5}
    data = ready(ImageFolderDataModule(root, **options))
    for split in ("train", "val", "test"):
        assert set(data.labels(split).tolist()) == {0, 1}, split
    assert "data.balance=sampler" in caplog.text
    (root / "cat" / "000.jpg").unlink()
    with pytest.raises(UserError, match=r"cat \(2\).* at least 3"):
        ready(ImageFolderDataModule(root, **options))


def test_an_empty_class_folder_a_single_class_and_no_folder(tmp_path):
    root = write_image_folder(tmp_path / "root", {"a": 4, "b": 4})
    (root / "c").mkdir()
    one = write_image_folder(tmp_path / "one", {"a": 4})
    for folder, words in (
        (root, "has no images"),
        (one, "at least 2"),
        (tmp_path / "x", "no fold"),
    ):
        with pytest.raises(UserError, match=words):
            ready(ImageFolderDataModule(folder, image_size=16), "fit")


@pytest.mark.parametrize(
    "options", [{"resize": "fit"}, {"bad_files": "keep"}, {"test_size": -1}, {"cache_gb": -1}]
)
def test_impossible_settings(options):
    target = "src.datamodules.ImageFolderDataModule"
    with pytest.raises(UserError, match=next(iter(options))):
        validate({"data": {"_target_": target, **options}})


def test_streamed_and_cached_images_are_the_same(dog_cat_root):
    batches = []
    for cache_gb, workers in ((None, 0), (0, 0), (0, 2)):
        data = DogCatDataModule(
            dog_cat_root, image_size=16, val_size=20, cache_gb=cache_gb, num_workers=workers
        )
        batches.append(list(ready(data, "fit").train_dataloader()))
    for other in batches[1:]:
        for (images, labels), (same_images, same_labels) in zip(batches[0], other, strict=True):
            assert torch.equal(images, same_images) and torch.equal(labels, same_labels)


@pytest.mark.parametrize("cache_gb", [None, 0])
def test_everything_that_cannot_be_read_is_a_bad_file(cache_gb, tmp_path, caplog):
    root = write_image_folder(tmp_path / "root", {"a": 8, "b": 8}, size=8)
    (root / "a" / "link.jpg").symlink_to(root / "gone.jpg")
    (root / "a" / "circle.jpg").symlink_to(root / "a" / "circle.jpg")
    (root / "b" / "folder.jpg").mkdir()
    (root / "b" / "empty.jpg").touch()
    os.mkfifo(root / "b" / "pipe.jpg")
    (root / "b" / "locked.jpg").write_bytes((root / "b" / "000.jpg").read_bytes())
    (root / "b" / "locked.jpg").chmod(0)
    bad = ["link", "circle", "folder", "empty", "pipe"] + ["locked"] * (os.geteuid() != 0)
    options = {"image_size": 8, "val_size": 4, "cache_gb": cache_gb}
    with pytest.raises(UserError, match=r"data\.bad_files=skip"):
        list(ready(ImageFolderDataModule(root, **options), "fit").train_dataloader())
    data = ready(ImageFolderDataModule(root, bad_files="skip", **options), "fit")
    assert sum(data.sizes().values()) == 16 + (os.geteuid() == 0)
    assert len(list(data.train_dataloader())) == 1 and data.fingerprint()
    assert all(f"{name}.jpg (" in caplog.text for name in bad)


@pytest.mark.parametrize("cache_gb", [None, 0])
def test_bad_files_stop_or_are_skipped(cache_gb, tmp_path):
    root = write_image_folder(tmp_path / "root", {"a": 8, "b": 8})
    (root / "a" / "broken.jpg").write_bytes(b"no image")
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "b" / "cut.jpg").write_bytes((root / "b" / "000.jpg").read_bytes()[:300])
    options = {"image_size": 16, "val_size": 4, "cache_gb": cache_gb}
    stopping = ImageFolderDataModule(root, **options)
    with pytest.raises(UserError) as caught:
        list(ready(stopping, "fit").train_dataloader())
    names = ["broken.jpg", "empty.png", "cut.jpg"]
    expected = any if cache_gb == 0 else all  # a stream finds them one by one
    assert expected(name in caught.value.problem for name in names)
    assert "data.bad_files=skip" in caught.value.remedy
    data = ready(ImageFolderDataModule(root, bad_files="skip", **options), "fit")
    assert data.sizes() == {"train": 12, "val": 4}
    images, _ = next(iter(data.train_dataloader()))
    assert images.float().mean((1, 2, 3)).min() > 0  # no black image of a bad file
    found = data.names("train", torch.arange(12)) + data.names("val", torch.arange(4))
    assert len(set(found)) == 16 and not any(name.endswith(bad) for name in found for bad in names)


def test_fingerprint_depends_on_names_and_sizes_alone(tmp_path):
    root = write_image_folder(tmp_path / "x", {"a": 4, "b": 4})
    before = ImageFolderDataModule(root, image_size=8).fingerprint()
    assert ImageFolderDataModule(root, image_size=16).fingerprint() == before
    (root / "a" / "000.jpg").rename(root / "a" / "zzz.jpg")
    assert ImageFolderDataModule(root, image_size=8).fingerprint() != before


def test_images_are_not_stretched_with_crop(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            pixels = np.zeros((10, 30, 3), np.uint8)
            pixels[:, 10:20] = 200
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = ready(ImageFolderDataModule(tmp_path, image_size=10, val_size=2, resize="crop"), "fit")
    assert data._sets["train"][0].float().mean() == 200
