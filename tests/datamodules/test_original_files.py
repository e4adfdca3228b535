"""CIFAR and MNIST from their original files: changed, damaged and hostile ones too."""

import gzip
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from helpers import random_images, write_cifar10, write_fashion_mnist, write_idx

from src.datamodules import (
    CIFAR10DataModule,
    FashionMNISTDataModule,
    TorchvisionDataModule,
    original_files,
)
from src.datamodules.original_files import read_idx
from src.errors import UserError


def ready(data, stage=None):
    data.prepare_data()
    data.setup(stage)
    return data


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def no_network(*arguments, **options):
        raise OSError("no network in the tests")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr(original_files, "SYSTEM_FOLDERS", {})


@pytest.mark.slow
def test_cifar10_files_with_other_checksums_are_read_with_a_warning(cifar_root, caplog):
    data = ready(CIFAR10DataModule(cifar_root, batch_size=16, val_size=20))
    assert data.sizes() == {"train": 180, "val": 20, "test": 30}
    images, labels = next(iter(data.train_dataloader()))
    assert images.dtype == torch.uint8 and images.shape == (16, 3, 32, 32)
    assert labels.dtype == torch.int64
    assert "Not the published files" in caplog.text


def test_the_cifar10_archive_put_there_by_hand_is_unpacked(cifar_archive, tmp_path, offline):
    shutil.copy(cifar_archive, tmp_path)
    assert ready(CIFAR10DataModule(tmp_path, val_size=20)).sizes()["train"] == 180


def test_a_truncated_archive_leaves_nothing_behind(cifar_archive, tmp_path, offline):
    archive = tmp_path / cifar_archive.name
    archive.write_bytes(cifar_archive.read_bytes()[:20_000])
    with pytest.raises(UserError, match="cannot be unpacked"):
        CIFAR10DataModule(tmp_path).prepare_data()
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, f"{archive.name}.lock"}


def test_missing_files_say_what_to_get_and_where_to_put_it(tmp_path, offline):
    with pytest.raises(UserError) as caught:
        CIFAR10DataModule(tmp_path).prepare_data()
    assert "c58f30108f718f92721af3b95e74349a" in caught.value.remedy
    assert str(tmp_path / "cifar-10-python.tar.gz") in caught.value.remedy
    with pytest.raises(UserError) as caught:
        FashionMNISTDataModule(tmp_path).prepare_data()
    assert "8d4fb7e6c68d591d4c3dfef9ec88bf0d" in caught.value.remedy
    assert "http" in caught.value.remedy


def test_a_pickle_that_calls_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/ran",))

    write_cifar10(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    with pytest.raises(UserError, match="wants to call"):
        ready(CIFAR10DataModule(tmp_path), "fit")
    assert not (tmp_path / "ran").exists()


def test_hostile_class_names_are_refused_too(tmp_path):
    write_cifar10(tmp_path)
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({b"label_names": os.system}, protocol=2))
    with pytest.raises(UserError, match="wants to call"):
        ready(CIFAR10DataModule(tmp_path), "fit")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a CIFAR file"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "2 images"),
        ({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 1]}, "reshape"),
        ([1], "it holds a list"),
        ({b"data": random_images(10, 3, 32).reshape(10, -1), b"labels": [11] * 10}, "10 classes"),
        (None, "No such file"),
    ],
)
def test_damaged_cifar_files(content, words, tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(pickle.dumps(content, protocol=2) if content else b"")
    with pytest.raises(UserError, match=words):
        ready(CIFAR10DataModule(tmp_path), "fit")


def test_fashion_mnist_packed_or_not(fashion_root, tmp_path):
    packed = ready(FashionMNISTDataModule(fashion_root, val_size=20))
    assert packed.sizes() == {"train": 180, "val": 20, "test": 30}
    for file in (fashion_root / "FashionMNIST" / "raw").iterdir():
        (tmp_path / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    loose = ready(FashionMNISTDataModule(tmp_path, val_size=20))
    assert torch.equal(packed._sets["train"][0], loose._sets["train"][0])


def test_fashion_mnist_where_debian_puts_it(fashion_root, tmp_path, monkeypatch, offline):
    folder = fashion_root / "FashionMNIST" / "raw"
    monkeypatch.setattr(original_files, "SYSTEM_FOLDERS", {"FashionMNIST": [folder]})
    assert ready(FashionMNISTDataModule(tmp_path, val_size=20)).sizes()["test"] == 30
    with pytest.raises(UserError, match="train-images"):
        ready(TorchvisionDataModule("MNIST", tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "wrong header"])
def test_damaged_idx_files(damage, tmp_path):
    write_fashion_mnist(tmp_path, 20, 10)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "not gzip":
        file.write_bytes(b"<html>404</html>")
    else:
        write_idx(file, np.zeros(5, np.uint8))
    with pytest.raises(UserError, match="train-images"):
        ready(FashionMNISTDataModule(tmp_path), "fit")


@pytest.mark.parametrize(
    ("shape", "body"), [((1, 2, 2), 10_000), ((1 << 30, 1 << 30, 4), 4), ((1, 2, 2), 3)]
)
def test_a_packed_file_gives_what_it_announces(shape, body, tmp_path):
    path = tmp_path / "x-idx3-ubyte.gz"
    header = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in shape)
    with gzip.open(path, "wb") as file:
        file.write(header + b"\0" * body)
    with pytest.raises(UserError, match="announces"):
        read_idx(path, 3)
