"""Original files of CIFAR and MNIST sets, wherever people have put them and changed or not.

torchvision refuses files with other checksums than the published ones, and unpickles CIFAR's; here
such files are read with a warning, and nothing in a pickle is called.
"""

import gzip
import logging
import math
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from ..errors import UserError
from .archives import download, extract

log = logging.getLogger(__name__)
# Where Debian's package dataset-fashion-mnist puts its files.
SYSTEM_FOLDERS = {"FashionMNIST": [Path("/usr/share/datasets/fashion-mnist")]}
LARGEST_IDX = 1 << 30  # bytes in one IDX file; the largest published one has 47 million


def _warn_of_changes(md5_of_files: dict[Path, str]) -> None:
    changed = [str(path) for path, md5 in md5_of_files.items() if not check_integrity(path, md5)]
    if changed:
        log.warning("Not the published files, but read all the same: %s", ", ".join(changed))


# CIFAR-10 and CIFAR-100 (Krizhevsky, 2009)


def find_cifar(source: type[datasets.CIFAR10], root: Path) -> Path:
    """The folder of a CIFAR set in `root`, unpacked or downloaded if need be."""
    folder, archive = root / source.base_folder, root / source.filename
    if not folder.exists():
        if archive.exists():
            _warn_of_changes({archive: source.tgz_md5})
        else:
            download(archive, [source.url], source.tgz_md5)
        extract(archive, folder)
    return folder


def read_cifar(
    source: type[datasets.CIFAR10], root: Path, train: bool
) -> tuple[torch.Tensor, torch.Tensor, list[str] | None]:
    """Images uint8 (N, 3, 32, 32), labels int64 (N,) and the class names if they are there."""
    folder = find_cifar(source, root)
    files = {folder / name: md5 for name, md5 in (source.train_list if train else source.test_list)}
    batches = [read_cifar_batch(path) for path in files]
    _warn_of_changes(files)
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    meta = folder / source.meta["filename"]
    names = None
    if meta.is_file():
        names = [name.decode() for name in _unpickle(meta).get(source.meta["key"].encode(), [])]
    return images, labels, names


def read_cifar_batch(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch file -> uint8 (N, 3, 32, 32) and int64 (N,)."""
    content = _unpickle(path)
    try:
        images = np.asarray(content[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(content.get(b"labels", content.get(b"fine_labels")), dtype=np.int64)
        if labels.shape != (len(images),):
            raise ValueError(f"{len(images)} images but labels of shape {labels.shape}")
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(path, error) from None
    return torch.from_numpy(images), torch.from_numpy(labels)


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except Exception as error:  # unpickling damaged bytes can raise nearly anything
        raise _unusable(path, error) from None
    return content


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read as a CIFAR file: {error}.",
        f"Delete the folder {path.parent} and run again to unpack or download it.",
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, and refuses to call anything else that a pickle names."""

    ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # its module differs between versions of numpy
        return super().find_class(module, name)


# MNIST (LeCun, 1998), Fashion-MNIST (Xiao et al., 2017), KMNIST (Clanuwat et al., 2018)


def find_mnist(source: type[datasets.MNIST], root: Path) -> list[tuple[Path, str]]:
    """The four files of an MNIST set, packed or not, with the MD5 of the published ones.

    They are looked for in `root/<set>/raw` (torchvision's layout), in `root` and where the system
    has them, and downloaded if need be.
    """
    raw = root / source.__name__ / "raw"
    folders = [raw, root, *SYSTEM_FOLDERS.get(source.__name__, [])]
    found = []
    for name, md5 in source.resources:
        places = [folder / file for folder in folders for file in (name, name.removesuffix(".gz"))]
        existing = [place for place in places if place.is_file()]
        if not existing:
            download(raw / name, [mirror + name for mirror in source.mirrors], md5)
        found.append((existing[0] if existing else raw / name, md5))
    return found


def read_mnist(
    source: type[datasets.MNIST], root: Path, train: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 (N, 1, H, W) and labels int64 (N,)."""
    found = find_mnist(source, root)
    files = dict(found[:2] if train else found[2:])
    # No checksums are published of unpacked files, nor of those that a system has packed itself.
    own = [path for path in files if path.suffix == ".gz" and path.is_relative_to(root)]
    _warn_of_changes({path: files[path] for path in own})
    images, labels = files
    return read_idx(images, 3)[:, None], read_idx(labels, 1).long()


def read_idx(path: Path, dimensions: int) -> torch.Tensor:
    """A file in LeCun's IDX format, packed or not -> uint8 tensor with that many dimensions."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes((0, 0, 8, dimensions)):
                raise ValueError("it does not begin as an IDX file of bytes")
            shape = np.frombuffer(header, ">u4", dimensions, offset=4).tolist()
            size = math.prod(shape)
            if size > LARGEST_IDX:
                raise ValueError(f"it announces {size} bytes")
            content = file.read(size + 1)  # no more: a packed file can hold any number of zeros
        if len(content) != size:
            raise ValueError(f"it does not hold the {size} bytes that it announces")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or not an IDX file: {error}.",
            "Delete it and run again to download it, or put the right file there.",
        ) from None
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)
