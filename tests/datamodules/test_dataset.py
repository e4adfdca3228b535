"""Any map-style Dataset as a data module."""

import numpy as np
import pytest
import torch
from helpers import composed, random_images
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from src.config.instantiate import instantiate_datamodule
from src.config.validate import validate
from src.datamodules import DatasetDataModule
from src.datamodules.reading import stored_labels
from src.errors import UserError

IMAGES = random_images(24, 3, 16)
LABELS = np.arange(24) % 3


class Items(Dataset):
    """(image, label) pairs from two lists."""

    def __init__(self, images, labels=LABELS):
        self.images = images
        self.labels_given = labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels_given[i]


def module(train, **options) -> DatasetDataModule:
    return DatasetDataModule(train=train, val_size=6, **options)


def train_images(data: DatasetDataModule) -> torch.Tensor:
    data.setup("fit")
    return data._sets["train"][0].index_select(0, torch.arange(24))


HWC = list(IMAGES.transpose(0, 2, 3, 1))
TENSORS = list(torch.from_numpy(IMAGES))


@pytest.mark.parametrize("cache_gb", [None, 0])
@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_all_kinds_give_the_same(cache_gb, workers):
    kinds = [[Image.fromarray(image) for image in HWC], HWC, TENSORS, [t / 255 for t in TENSORS]]
    for kind in kinds:
        data = module(Items(kind), cache_gb=cache_gb, num_workers=workers)
        assert torch.equal(train_images(data), torch.from_numpy(IMAGES))
        assert data.classes == ["0", "1", "2"] and data.image_size == 16
        images, labels = next(iter(data.val_dataloader()))
        assert torch.equal(images, data.images("val", torch.arange(6)))
        assert torch.equal(labels, data.labels("val"))


def test_from_a_command_line():
    fake = "_target_: torchvision.datasets.FakeData, num_classes: 2"
    overrides = [
        "data=dataset",
        f"data.train={{{fake}, size: 40, image_size: [3, 20, 20]}}",
        f"data.test={{{fake}, size: 5, image_size: [1, 9, 9]}}",
    ]
    data = instantiate_datamodule(composed(overrides))
    data.setup()
    assert data.sizes() == {"train": 36, "val": 4, "test": 5} and data.has_test
    assert data.image_size == 20 and data.classes == ["0", "1"]


def test_a_config_without_a_dataset_is_refused():
    with pytest.raises(UserError, match="data.train=null: input should be an object with a _targ"):
        validate(composed(["data=dataset"]))


def test_grey_images_of_any_size_are_resized():
    images = [np.full((8 + i, 9), 7 * i, np.uint8) for i in range(24)]
    data = module(Items(images), image_size=12)
    assert data.channels == 1 and len(data.mean) == 1
    assert train_images(data)[:, 0, 0, 0].tolist() == [7 * i for i in range(24)]
    assert module(Items(images)).image_size == 224


def test_official_splits_and_names():
    data = DatasetDataModule(
        train=Items(TENSORS), val=Items(TENSORS[:5]), test=Items(TENSORS[:4]), classes="abc"
    )
    data.setup()
    assert data.sizes() == {"train": 24, "val": 5, "test": 4} and data.classes == ["a", "b", "c"]


@pytest.mark.parametrize("labels", [LABELS.tolist(), torch.from_numpy(LABELS), LABELS * 1.0])
def test_labels_of_all_kinds(labels):
    data = module(Items(TENSORS, labels))
    data.setup("fit")
    assert data._sets["train"][1].tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ([], LABELS, "no items"),
        ([t / 128 - 1 for t in TENSORS], LABELS, "float32 .* with values from -"),
        (TENSORS, ["cat"] * 24, "such as .*cat"),
        (TENSORS, [0.5] * 24, "not whole numbers"),
        (TENSORS, list(np.eye(24)), "shape"),
        (["a.jpg"] * 24, LABELS, "str"),
        ([None] * 24, LABELS, "NoneType"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_other_items_are_refused_in_words(images, labels, words, workers):
    with pytest.raises(UserError, match=words):
        module(Items(images, labels), num_workers=workers).setup("fit")


def test_what_is_no_map_style_dataset_is_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(UserError, match="has no items"):
        module(Stream())
    with pytest.raises(UserError, match="a dict, which"):
        module({"_target_": "torchvision.datasets.FakeData"})  # as stored in a checkpoint
    with pytest.raises(UserError, match="not a pair"):
        module(TensorDataset(torch.zeros(8, 3, 4, 4)))


def test_errors_in_the_code_of_a_dataset_are_left_alone():
    class Broken(Items):
        def __getitem__(self, i):
            return super().__getitem__(i) if i < 7 else {}["key"]

    with pytest.raises(KeyError, match="key"):
        module(Broken(TENSORS)).setup("fit")


def test_stored_labels_are_used_only_where_they_agree():
    dataset = Items(TENSORS)
    assert stored_labels(dataset) is None
    dataset.targets = LABELS.tolist()
    assert stored_labels(dataset).tolist() == LABELS.tolist()
    assert stored_labels(Subset(dataset, [4, 2])).tolist() == [1, 2]
    dataset.targets = (LABELS + 1).tolist()
    assert stored_labels(dataset) is None
    dataset.targets = [{"boxes": []}] * 24
    assert stored_labels(dataset) is None


def test_images_that_do_not_fit_cannot_be_device_resident():
    with pytest.raises(UserError, match="fit into memory"):
        module(Items(TENSORS), cache_gb=0, device_resident=True).setup("fit")
