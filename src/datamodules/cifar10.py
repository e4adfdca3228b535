"""CIFAR-10 from its original files (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)."""

import pickle
from pathlib import Path

import numpy as np
import torch

from src.datamodules.download import extract, fetch
from src.datamodules.image_datamodule import ImageDataModule
from src.errors import UserError

ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
URLS = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)


class CIFAR10DataModule(ImageDataModule):
    """50,000 training and 10,000 test pictures, 3x32x32, ten classes.

    Looks in `root` for torchvision's layout (`cifar-10-batches-py/`), then for the archive put there by hand, then downloads it.
    """

    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    channels = 3
    native_size = 32
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    @property
    def folder(self) -> Path:
        return self.root / "cifar-10-batches-py"

    def prepare_data(self) -> None:
        """Lightning calls it on one process of each machine."""
        if not self.folder.exists():
            fetch(self.root / ARCHIVE, URLS, MD5)
            extract(self.root / ARCHIVE, self.folder, MD5)

    def load(self, split: str):
        if split == "val":
            return None
        self.prepare_data()
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        parts = [read_batch(self.folder / name) for name in names]
        images = np.concatenate([images for images, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        return torch.from_numpy(images), torch.from_numpy(labels)


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One batch file -> uint8 (N, 3, 32, 32) and int64 (N,).

    Raises:
        UserError: the file is missing, damaged, or holds something other than arrays and lists.
    """
    try:
        with open(path, "rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        images = np.asarray(content[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(content[b"labels"], dtype=np.int64)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} pictures but {len(labels)} labels")
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing.", f"Delete the folder {path.parent} and put {ARCHIVE} (MD5 {MD5}) beside it, or run again to download."
        ) from None
    except Exception as error:  # unpickling damaged bytes can raise nearly anything
        raise UserError(
            f"{path} is no CIFAR-10 batch: {error}.", f"Delete the folder {path.parent} and run again to unpack or download it."
        ) from None
    return images, labels


class _ArraysOnly(pickle.Unpickler):
    """CIFAR-10 is published as pickles; this reads the arrays in them and refuses to call anything else."""

    ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
        (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # it has moved between versions of numpy
        return super().find_class(module, name)
