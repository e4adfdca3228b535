"""Data sets in the formats of Hugging Face, without a network."""

import pytest
import torch
from helpers import write_image_folder
from image_files import make_image

from src.datamodules import HuggingFaceDataModule
from src.errors import UserError

datasets = pytest.importorskip("datasets")


def parquet(folder, names, split="train", **columns):
    """A parquet file of 20 images; `names` makes the labels class labels."""
    content = {"picture": [make_image(i) for i in range(20)], **columns}
    dataset = datasets.Dataset.from_dict(content).cast_column("picture", datasets.Image())
    if names:
        dataset = dataset.cast_column("label", datasets.ClassLabel(names=names))
    path = folder / f"{split}.parquet"
    dataset.to_parquet(path)
    return path


def module(path, tmp_path, **settings):
    data = HuggingFaceDataModule(str(path), root=tmp_path / "data", image_size=8, **settings)
    data.prepare_data()
    data.setup()
    return data


def test_a_parquet_file_with_class_labels_and_groups(tmp_path):
    labels, groups = [i % 2 for i in range(20)], [i // 4 for i in range(20)]
    path = parquet(tmp_path, ["cat", "dog"], label=labels, patient=groups)
    data = module(path, tmp_path, group_by="patient", val_size=0.2)
    assert data.classes == ["cat", "dog"] and data.sizes() == {"train": 16, "val": 4}
    positions = [int(name) for name in data.names("val", torch.arange(4))]
    assert len({i // 4 for i in positions}) == 1
    assert data.labels("val").tolist() == [i % 2 for i in positions]


def test_labels_as_text_and_splits_of_a_folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        parquet(folder, None, split, target=["b", "a"] * 10)
    data = module(folder, tmp_path)
    assert data.classes == ["a", "b"] and data.has_test
    assert data.sizes() == {"train": 18, "val": 2, "test": 20}
    assert data.labels("test").tolist() == [1, 0] * 10


def test_a_folder_of_images(tmp_path):
    folder = write_image_folder(tmp_path / "photos", {"ant": 10, "bee": 10}, size=8)
    data = module(folder, tmp_path)
    assert data.classes == ["ant", "bee"] and data.sizes() == {"train": 18, "val": 2}


def test_what_cannot_be_used_is_said(tmp_path):
    path = parquet(tmp_path, None, word=["b", "a"] * 10)
    for settings, words in (
        ({}, "no label_column was found"),
        ({"label_column": "x"}, "data.label_column=x is no column"),
    ):
        with pytest.raises(UserError, match=words):
            module(path, tmp_path, **settings)
    with pytest.raises(UserError, match="data.path is needed"):
        HuggingFaceDataModule().prepare_data()
    script = tmp_path / "script" / "script.py"
    script.parent.mkdir()
    script.write_text("open('ran', 'w')")
    with pytest.raises(UserError, match="cannot be loaded"):
        HuggingFaceDataModule(str(script.parent), root=tmp_path / "data").prepare_data()
