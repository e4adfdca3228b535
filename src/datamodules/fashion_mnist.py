"""Fashion-MNIST from its original files (Xiao, Rasul & Vollgraf, 2017)."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from src.datamodules.download import fetch
from src.datamodules.image_datamodule import ImageDataModule
from src.errors import UserError

SYSTEM = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts the files
URLS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
LARGEST = 1 << 30  # bytes in one file; the real ones have 47 million


class FashionMNISTDataModule(ImageDataModule):
    """60,000 training and 10,000 test pictures of clothes, 1x28x28, ten classes.

    Looks for the four files, packed or not, in `root/FashionMNIST/raw` (torchvision's layout), in `root` itself, and where Debian's
    package `dataset-fashion-mnist` puts them; then downloads them.
    """

    classes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    channels = 1
    native_size = 28
    mean = (0.2860,)
    std = (0.3530,)

    def _find(self, name: str) -> Path:
        """Where a file lies, or where it is downloaded to."""
        for folder in (self.root / "FashionMNIST" / "raw", self.root, SYSTEM):
            for file in (folder / name, folder / name.removesuffix(".gz")):
                if file.is_file():
                    return file
        return self.root / "FashionMNIST" / "raw" / name

    def prepare_data(self) -> None:
        """Lightning calls it on one process of each machine."""
        for name, checksum in MD5.items():
            if not (file := self._find(name)).is_file():
                fetch(file, [url + name for url in URLS], checksum)

    def load(self, split: str):
        if split == "val":
            return None
        self.prepare_data()
        prefix = "train" if split == "train" else "t10k"
        images = read_idx(self._find(f"{prefix}-images-idx3-ubyte.gz"), 3)
        labels = read_idx(self._find(f"{prefix}-labels-idx1-ubyte.gz"), 1)
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A file in LeCun's IDX format, packed or not -> a uint8 array with that many dimensions.

    Raises:
        UserError: the file is cut short, damaged, or something else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(4 + 4 * dimensions)
            if head[:4] != bytes((0, 0, 8, dimensions)):
                raise ValueError("it does not begin as an IDX file of bytes does")
            shape = np.frombuffer(head, ">u4", dimensions, offset=4)
            size = math.prod(shape.tolist())
            if size > LARGEST:
                raise ValueError(f"it announces {size} bytes")
            content = file.read(size + 1)  # no more than is announced: a packed file can hold any number of zeros
        if len(content) != size:
            raise ValueError(f"it holds {'more' if len(content) > size else len(content)} of the {size} bytes that it announces")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or no IDX file: {error}.",
            f"Delete it and run again to download it, or put the right file there (MD5 {MD5.get(path.name, 'see the data set page')}).",
        ) from None
    return np.frombuffer(content, np.uint8).reshape(shape).copy()
