"""Which folders and files count."""

import pytest

from src.datamodules.folders import class_folders, image_files, split_folders, unwrap
from src.errors import UserError


def fill(root, *names):
    """Folders with one file each that has the name of an image."""
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "0.jpg").touch()
    return root


def test_hidden_folders_and_files_are_passed_over(tmp_path):
    for name in ("b/x", "a", ".git", "__MACOSX"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b/2.JPG", "b/x/1.png", "b/.3.jpg", "b/notes.txt"):
        (tmp_path / name).touch()
    assert list(class_folders(tmp_path)) == ["a", "b"]
    found = [path.relative_to(tmp_path / "b").as_posix() for path in image_files(tmp_path / "b")]
    assert found == ["2.JPG", "x/1.png"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Train", "Val"], {"train": "Train", "val": "Val"}),
        (["training", "testing"], {"train": "training", "test": "testing"}),
        (["TRAIN", "valid", "TEST"], {"train": "TRAIN", "val": "valid", "test": "TEST"}),
        (["train", "validation", "eval"], {"train": "train", "val": "validation", "test": "eval"}),
        (["train", "dev", "Test"], {"train": "train", "val": "dev", "test": "Test"}),
        (["cat", "dog", "trainers"], {}),
    ],
)
def test_folders_of_splits(names, expected, tmp_path):
    fill(tmp_path, *(f"{name}/cat" for name in names))
    assert split_folders(tmp_path) == {split: tmp_path / name for split, name in expected.items()}


def test_two_folders_of_one_split_are_refused(tmp_path):
    for i, names in enumerate([("train", "Train"), ("val", "valid"), ("test", "eval")]):
        with pytest.raises(UserError, match="both name") as caught:
            split_folders(fill(tmp_path / str(i), *names))
        assert all(f"{name}/" in caught.value.problem for name in names)


@pytest.mark.parametrize(
    "names",
    [
        ["train", "car", "bus"],  # a vehicle
        ["train/cat", "train/dog", "cat", "dog"],
        ["train/cat", "train/dog", "val/cat", "cat"],
        ["test/cat", "test/dog", "cat", "dog"],
    ],
)
def test_classes_beside_splits_are_refused(names, tmp_path):
    with pytest.raises(UserError, match="look like classes: .*(car|cat)/") as caught:
        split_folders(fill(tmp_path, *names))
    assert caught.value.remedy


def test_other_folders_beside_splits_are_named_or_hold_no_images(tmp_path, caplog):
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "unlabelled")
    (tmp_path / "annotations").mkdir()
    assert set(split_folders(tmp_path)) == {"train", "test"}
    assert "left out: unlabelled/" in caplog.text and "annotations" not in caplog.text


@pytest.mark.parametrize(
    ("names", "inner"),
    [
        (["photos/cat", "photos/dog"], "photos"),
        (["dataset/train/cat", "dataset/train/dog"], "dataset"),
        (["a/photos/cat", "a/photos/dog"], "a/photos"),
        (["cat", "dog"], "."),
        (["train/cat", "train/dog"], "."),
        (["cat"], "."),
    ],
)
def test_a_folder_that_is_wrapped_in_others_is_found(names, inner, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "empty").mkdir()
    assert unwrap(fill(tmp_path, *names)) == tmp_path / inner
    assert len(caplog.messages) == (inner != ".")
