"""The classification data sets of torchvision by name: `data=torchvision data.name=CIFAR100`."""

import difflib
import inspect
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision import datasets

from ..errors import UserError
from ..runs.files import Lock
from .dataset import IMAGENET_MEAN, IMAGENET_STD, MapStyleDataModule, class_names
from .original_files import find_cifar, find_mnist, read_cifar, read_mnist

PAGE = "https://pytorch.org/vision/stable/generated/torchvision.datasets.{}.html"


class Facts(NamedTuple):
    """What is known of a data set before its files are read."""

    channels: int = 3
    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


FACTS = {
    "CIFAR10": Facts(3, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR100": Facts(3, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "EMNIST": Facts(1, 28, (0.1751,), (0.3332,)),
    "EuroSAT": Facts(3, 64),
    "FashionMNIST": Facts(1, 28, (0.2860,), (0.3530,)),
    "KMNIST": Facts(1, 28, (0.1918,), (0.3483,)),
    "MNIST": Facts(1, 28, (0.1307,), (0.3081,)),
    "PCAM": Facts(3, 96),
    "QMNIST": Facts(1, 28, (0.1307,), (0.3081,)),
    "STL10": Facts(3, 96, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "SVHN": Facts(3, 32, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "USPS": Facts(1, 16, (0.2469,), (0.2989,)),
}
# Names of the train, val and test splits where they are not ("train", None, "test")
SPLITS: dict[str, tuple[str, str | None, str | None]] = {
    "CLEVRClassification": ("train", "val", None),  # its test split has no labels
    "Country211": ("train", "valid", "test"),
    "DTD": ("train", "val", "test"),
    "FGVCAircraft": ("train", "val", "test"),
    "Flowers102": ("train", "val", "test"),
    "ImageNet": ("train", "val", None),
    "Imagenette": ("train", "val", None),
    "OxfordIIITPet": ("trainval", None, "test"),
    "PCAM": ("train", "val", "test"),
    "Places365": ("train-standard", "val", None),
    "RenderedSST2": ("train", "val", "test"),
}
OPTIONS: dict[str, dict[str, Any]] = {"EMNIST": {"split": "balanced"}}
MNIST_FILES = (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST)


class TorchvisionDataModule(MapStyleDataModule):
    """A data set of `torchvision.datasets`, found in `root` or downloaded to it.

    The official splits are used; where there is no validation split, it is taken from `train`.

    Args:
        name: the class in `torchvision.datasets`, such as `CIFAR100` or `Flowers102`.
        options: other arguments of that class, such as `{"split": "letters"}` for `EMNIST`.
        common: see `ImageDataModule`.
    """

    def __init__(
        self,
        name: str,
        root: str | os.PathLike = "data",
        options: Mapping[str, Any] | None = None,
        **common: Any,
    ):
        self.name = name
        self.source = _find_class(name)
        self.options = OPTIONS.get(name, {}) | dict(options or {})
        unknown = [option for option in self.options if not _accepts(self.source, option)]
        if unknown:
            raise UserError(
                f"torchvision.datasets.{name} does not take {', '.join(unknown)}.",
                f"Correct data.options; see {PAGE.format(name)}",
            )
        facts = FACTS.get(name, Facts())
        self.channels, self.native_size = facts.channels, facts.size
        self.mean, self.std = facts.mean, facts.std
        super().__init__(root=root, **common)
        self._classes = class_names(self.source)

    @property
    def has_test(self) -> bool:
        return self._arguments("test") is not None

    def prepare_data(self) -> None:
        """Download what is missing. Lightning calls it in one process of each machine."""
        if issubclass(self.source, datasets.CIFAR10):
            find_cifar(self.source, self.root)
        elif self.source in MNIST_FILES:
            find_mnist(self.source, self.root)
        else:
            self._construct("train")

    def open(self, split: str) -> Any:
        if self._arguments(split) is None:
            return None
        if issubclass(self.source, datasets.CIFAR10):
            *loaded, names = read_cifar(self.source, self.root, split == "train")
            self._classes = self._classes or names
            return tuple(loaded)
        if self.source in MNIST_FILES:
            return read_mnist(self.source, self.root, split == "train")
        dataset = self._construct(split)
        self._classes = self._classes or class_names(dataset)
        images = getattr(dataset, "data", None)
        labels: Any = getattr(dataset, "targets", getattr(dataset, "labels", None))
        if isinstance(images, np.ndarray | torch.Tensor) and np.ndim(labels) == 1:
            return images, labels  # QMNIST has 8 numbers per image; it is read item by item
        return dataset

    def _arguments(self, split: str) -> dict[str, Any] | None:
        """The arguments of the class that choose a split, or None where there is no such split."""
        if _accepts(self.source, "train"):
            return None if split == "val" else {"train": split == "train"}
        if not _accepts(self.source, "split"):
            return {} if split == "train" else None
        names = SPLITS.get(self.source.__name__, ("train", None, "test"))
        name = names[("train", "val", "test").index(split)]
        return None if name is None else {"split": name}

    def _construct(self, split: str) -> Any:
        """The data set of torchvision, downloaded if it is not in `root`."""
        arguments = self.options | (self._arguments(split) or {})
        tries: list[dict[str, bool]] = [{}]
        if _accepts(self.source, "download"):  # where the files are there, nothing is downloaded
            tries = [{"download": False}, {"download": True}]
        for download in tries:
            try:
                with Lock(self.root / f".{self.name}.lock"):
                    return self.source(self.root, **arguments, **download)
            except (RuntimeError, OSError) as error:  # both mean files that are not there
                reason = error
        url = getattr(self.source, "url", PAGE.format(self.name))
        raise UserError(
            f"{self.name} is not complete in {self.root} and could not be downloaded: {reason}",
            f"Get its files from {url} and put them into {self.root} as torchvision lays them out, "
            "or give their folder as data.root.",
        )


class CIFAR10DataModule(TorchvisionDataModule):
    """CIFAR-10: 50,000 + 10,000 images, 3x32x32, ten classes (Krizhevsky, 2009).

    `root` holds `cifar-10-batches-py` or `cifar-10-python.tar.gz`; else it is downloaded.
    """

    classes = [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ]  # fmt: skip

    def __init__(self, root: str | os.PathLike = "data", **common: Any):
        super().__init__("CIFAR10", root=root, **common)


class FashionMNISTDataModule(TorchvisionDataModule):
    """Fashion-MNIST: 60,000 + 10,000 images of clothes, 1x28x28, ten classes (Xiao et al., 2017).

    The four files, packed or not, are found in `root/FashionMNIST/raw`, in `root` and where
    Debian's package puts them; else they are downloaded.
    """

    def __init__(self, root: str | os.PathLike = "data", **common: Any):
        super().__init__("FashionMNIST", root=root, **common)


def _find_class(name: str) -> Any:
    """The data set class of torchvision with this name."""
    source = getattr(datasets, name, None)
    if not inspect.isclass(source) or not issubclass(source, datasets.VisionDataset):
        close = difflib.get_close_matches(name, datasets.__all__, n=3, cutoff=0.5)
        names = ", ".join(close or ["MNIST", "CIFAR100", "Flowers102"])
        raise UserError(
            f"torchvision.datasets has no data set {name!r}.",
            f"Choose a classification data set as data.name, such as {names}.",
        )
    return source


def _accepts(source: type, argument: str) -> bool:
    """Whether a data set class, or the one that it inherits from, takes an argument."""
    return any(argument in inspect.signature(parent).parameters for parent in source.__mro__)
