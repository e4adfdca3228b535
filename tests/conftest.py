"""Fixtures for all tests: private caches, one thread, small data sets and one finished run."""

import os
from pathlib import Path

import pytest
import torch
from helpers import (
    run_training,
    write_cifar10,
    write_cifar10_archive,
    write_fashion_mnist,
    write_image_folder,
)

torch.set_num_threads(1)  # the networks are tiny: a second thread would only wait for the first
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for processes that tests start
# Torch starts its threads at the first backward pass: none here, but eight where an export has made
# fake tensors before, and then no fork of this process could train, see helpers.run_warm.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """Keep the decoded images of the tests out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory) -> Path:
    """`cifar-10-batches-py` with 5 x 40 training and 30 test images."""
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="session")
def cifar_archive(cifar_root, tmp_path_factory) -> Path:
    """The same data as the archive that people download by hand."""
    path = tmp_path_factory.mktemp("archive") / "cifar-10-python.tar.gz"
    return write_cifar10_archive(path, cifar_root)


@pytest.fixture(scope="session")
def fashion_root(tmp_path_factory) -> Path:
    """The four gzipped IDX files of Fashion-MNIST with 200 + 30 images."""
    return write_fashion_mnist(tmp_path_factory.mktemp("fashion"))


@pytest.fixture(scope="session")
def dog_cat_root(tmp_path_factory) -> Path:
    """Folders cat and dog with 30 images each."""
    return write_image_folder(tmp_path_factory.mktemp("dog_cat"), {"cat": 30, "dog": 30})


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """The folder of a short run on the digits, shared by all tests: do not write into it."""
    folder = tmp_path_factory.mktemp("run")
    run_training(folder, "model=lenet", "trainer.max_epochs=2", "optimizer.lr=0.05")
    return folder
