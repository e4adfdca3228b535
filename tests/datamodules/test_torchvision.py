"""torchvision's data sets by name: splits, class names, arrays, images, and what is missing."""

import pickle

import numpy as np
import pytest
import torch
from helpers import composed, random_images, write_idx
from hydra.utils import instantiate
from PIL import Image
from torchvision import datasets

from src.datamodules import CIFAR10DataModule, FashionMNISTDataModule, TorchvisionDataModule
from src.datamodules.torchvision import SPLITS
from src.errors import UserError


def write_mnist(folder, train: int = 40, test: int = 20) -> None:
    for prefix, n in (("train", train), ("t10k", test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", random_images(n, 1, 28, n)[:, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)


@pytest.fixture
def offline(monkeypatch):
    def no_network(*arguments, **options):
        raise OSError("no network in the tests")

    monkeypatch.setattr("urllib.request.urlopen", no_network)


def test_mnist_by_name_from_a_command_line(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    write_mnist(folder)
    cfg = composed(["data=torchvision", "data.name=MNIST", f"data.root={tmp_path}"])
    data = instantiate(cfg.data, val_size=10)
    assert data.classes[1] == "1 - one" and data.channels == 1 and data.mean == (0.1307,)
    data.prepare_data()
    data.setup()
    assert data.sizes() == {"train": 30, "val": 10, "test": 20}
    expected = datasets.MNIST(tmp_path)
    assert torch.equal(data._sets["train"][0][:, 0], expected.data)
    assert torch.equal(data._sets["train"][1], expected.targets)


def test_cifar100_with_its_class_names(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, n in (("train", 200), ("test", 100)):
        images = random_images(n, 3, 32).reshape(n, -1)
        content = {b"data": images, b"fine_labels": [i % 100 for i in range(n)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"class {i}".encode() for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=2))
    data = TorchvisionDataModule("CIFAR100", tmp_path, val_size=100)
    assert data.classes[99] == "class 99" and data.native_size == 32
    data.setup()
    assert data.sizes() == {"train": 100, "val": 100, "test": 100}


def test_a_set_of_image_files_with_options(tmp_path):
    """EuroSAT has one folder per class and no official splits."""
    for name in ("Forest", "River"):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i, image in enumerate(random_images(6, 3, 64)):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}_{i}.png")
    for cache_gb in (None, 0):
        data = TorchvisionDataModule(
            "EuroSAT", tmp_path, val_size=4, cache_gb=cache_gb, image_size=32, num_workers=0
        )
        assert data.classes == ["Forest", "River"] and not data.has_test
        data.setup()
        assert data.sizes() == {"train": 8, "val": 4}
        assert next(iter(data.train_dataloader()))[0].shape == (8, 3, 32, 32)
    with pytest.raises(UserError, match="does not take fold"):
        TorchvisionDataModule("EuroSAT", options={"fold": 1})


class Fake(datasets.VisionDataset):
    """A data set with official splits by name, without class names."""

    def __init__(self, root, split="train", download=False):
        super().__init__(root)
        self.data = random_images(12, 3, 8, len(split)).transpose(0, 2, 3, 1)
        self.labels = np.arange(12) % 3


def test_official_splits_are_used_and_classes_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DTD", Fake)
    monkeypatch.setitem(SPLITS, "Fake", SPLITS["DTD"])
    data = TorchvisionDataModule("DTD", tmp_path, image_size=8)
    assert data.has_test and data.classes == ["0", "1", "2"]
    data.setup()
    assert data.sizes() == {"train": 12, "val": 12, "test": 12}


def test_labels_that_are_several_numbers_are_read_item_by_item(tmp_path, monkeypatch):
    class Several(Fake):  # as QMNIST
        def __init__(self, root, **arguments):
            super().__init__(root, **arguments)
            self.targets = np.stack([self.labels] * 8, 1)

        def __getitem__(self, i):
            return self.data[i], int(self.targets[i, 0])

        def __len__(self):
            return 12

    monkeypatch.setattr(datasets, "DTD", Several)
    for cache_gb in (None, 0):
        data = TorchvisionDataModule("DTD", tmp_path, image_size=8, val_size=3, cache_gb=cache_gb)
        data.setup("fit")
        assert data._sets["train"][1].tolist() == [0, 1, 2] * 4


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError) as caught:
        TorchvisionDataModule("Flower102")
    assert "Flowers102" in caught.value.remedy
    with pytest.raises(UserError, match="DataLoader"):
        TorchvisionDataModule("DataLoader")


def test_missing_files_say_where_to_put_them(tmp_path, offline):
    with pytest.raises(UserError) as caught:
        TorchvisionDataModule("STL10", tmp_path).setup("fit")
    assert "no network" in caught.value.problem
    assert "stanford.edu" in caught.value.remedy and str(tmp_path) in caught.value.remedy
    with pytest.raises(UserError, match="ImageNet is not complete"):
        TorchvisionDataModule("ImageNet", tmp_path).prepare_data()


def test_the_two_known_sets_have_their_facts():
    cifar = CIFAR10DataModule(root="data", batch_size=64)
    assert cifar.classes[9] == "truck" and cifar.channels == 3 and cifar.image_size == 32
    fashion = FashionMNISTDataModule(image_size=32, channels=3)
    assert fashion.classes[9] == "Ankle boot" and fashion.mean == (0.286,) * 3
    assert fashion.has_test and cifar.has_test


@pytest.mark.parametrize("name", ["EMNIST", "QMNIST", "SVHN", "Flowers102", "Food101", "USPS"])
def test_every_usual_set_can_be_named(name, tmp_path):
    data = TorchvisionDataModule(name, tmp_path)
    assert data.has_test and len(data.mean) == data.channels
