"""`check=data`: what is counted, and what is found in folders with everything wrong."""

from helpers import write_image_folder
from PIL import Image

from src.datamodules import DigitsDataModule, ImageFolderDataModule
from src.datamodules.scan import Scan, scan


def test_a_clean_folder(tmp_path):
    root = write_image_folder(tmp_path, {"a": 12, "b": 20}, seed=2)
    result = scan(ImageFolderDataModule(root, image_size=8, val_size=0.25))
    assert result.counts == {"train": {"a": 9, "b": 15}, "val": {"a": 3, "b": 5}}
    assert not result.problems and not result.notes
    assert result.report().splitlines()[-1] == "no problems"


def test_a_data_set_without_files():
    result = scan(DigitsDataModule(image_size=8))
    totals = {split: counts.total() for split, counts in result.counts.items()}
    assert totals == {"train": 1293, "val": 144, "test": 360}


def test_a_folder_with_everything_wrong(tmp_path):
    for split in ("train", "val"):
        write_image_folder(tmp_path / split, {"a": 6, "b": 6}, seed=len(split))
    train, val = tmp_path / "train", tmp_path / "val"
    (train / "a" / "empty.jpg").write_bytes(b"")
    (train / "a" / "cut.jpg").write_bytes((train / "a" / "000.jpg").read_bytes()[:400])
    (train / "b" / "across.jpg").write_bytes((val / "b" / "001.jpg").read_bytes())
    (train / "b" / "torn.jpg").write_bytes((train / "a" / "002.jpg").read_bytes())
    (train / "b" / "twice.jpg").write_bytes((train / "b" / "003.jpg").read_bytes())
    Image.new("RGB", (9, 9)).save(train / "a" / "misnamed.jpg", format="PNG")
    (train / ".thumbnails").mkdir()
    (train / ".thumbnails" / "000.jpg").write_bytes((train / "a" / "000.jpg").read_bytes())
    (train / "a" / "notes.txt").write_text("x")
    result = scan(ImageFolderDataModule(tmp_path, image_size=8))
    problems = " | ".join(result.problems)
    notes = " | ".join(result.notes)
    for words in (
        "files that are not usable images (2)",
        "empty.jpg (the file is empty)",
        "cut.jpg",
    ):
        assert words in problems
    assert "images in more than one split (1)" in problems
    assert "across.jpg [train, b]" in problems
    assert "images in more than one class (1)" in problems
    assert "torn.jpg [train, b]" in problems
    for words in (
        "misnamed.jpg (it is PNG)",
        "hidden folders that are passed over (1)",
        "notes.txt",
    ):
        assert words in notes
    assert "images that occur more than once in a split (1)" in notes
    assert result.counts["train"] == {"a": 7, "b": 9}
    assert result.report().splitlines()[0].split() == ["class", "train", "val"]


def test_validation_images_are_drawn_from_the_usable_ones(tmp_path):
    root = write_image_folder(tmp_path / "root", {"a": 10, "b": 10}, size=8)
    (root / "a" / "bad.jpg").write_bytes(b"x")
    options = {"image_size": 8, "val_size": 4, "test_size": 5, "bad_files": "skip"}
    data = ImageFolderDataModule(root, **options)
    result = scan(ImageFolderDataModule(root, **options))
    data.setup()
    totals = {split: counts.total() for split, counts in result.counts.items()}
    assert totals == data.sizes()


def test_the_report_of_nothing():
    assert "no problems" in Scan().report()
