"""Image files, decoded once into a memory-mapped cache if they fit, else in every epoch."""

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..runs.files import Lock
from .decode import decode

log = logging.getLogger(__name__)
FORMAT = 2  # part of the key of every cache: raise it when `decode` or the files change
IMAGES = "images.u8"
BAD_FILES = "bad.json"  # written last: a cache with it is complete
CHUNK = 16  # files that a thread reads at a time

BadFiles = list[tuple[Path, str]]  # files that cannot be decoded, with the reason


class ImageFiles:
    """A source of uint8 batches that decodes files when they are indexed; see `decode`."""

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        channels: int = 3,
        resize: str = "stretch",
        fill: Sequence[float] = (0.5,),
    ):
        self.paths, self.size, self.channels = list(paths), size, channels
        self.resize, self.fill = resize, fill
        self.shape = (len(self.paths), channels, size, size)  # of all images, decoded
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """(B,) indices -> uint8 (B, C, size, size)."""
        return torch.stack([torch.from_numpy(self._read(i)) for i in index.tolist()])

    def _read(self, i: int) -> np.ndarray:
        try:
            return self.decode(i)
        except ValueError as error:
            raise UserError(
                f"{self.paths[i]}: {error}.",
                "Remove or replace the file, or leave out such files with data.bad_files=skip.",
            ) from None

    def decode(self, i: int) -> np.ndarray:
        """uint8 (C, size, size) of one file, with the errors of `decode`."""
        return decode(self.paths[i], self.size, self.channels, self.resize, self.fill)

    def key(self) -> str:
        """Hash of names, sizes and times of the files, and of how they are decoded."""
        settings = [FORMAT, self.size, self.channels, self.resize]
        if self.resize == "pad":
            settings += self.fill
        digest = hashlib.sha256(json.dumps(settings).encode())
        for path in self.paths:
            try:
                stat = path.stat()
                line = f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            except OSError:  # a link that leads nowhere: a bad file, as `decode` will say
                line = f"{path.absolute()}\0\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:32]


class Rows:
    """Some rows of a source, or of a tensor that is too large to copy."""

    def __init__(self, images: ImageFiles | torch.Tensor, rows: torch.Tensor):
        self.images, self.rows = images, rows

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """(B,) indices -> uint8 (B, C, H, W)."""
        return self.images.index_select(0, self.rows[index])


def cached(files: ImageFiles, folder: Path) -> tuple[torch.Tensor, BadFiles]:
    """Decode all files into a memory-mapped cache under `folder`, or map an existing one.

    Several processes may call this at the same time.

    Returns:
        uint8 (N, C, size, size), read from the cache on demand, and the files that cannot be
        decoded, whose images are black.
    """
    cache = folder / files.key()
    if not (cache / BAD_FILES).is_file():
        with Lock(f"{cache}.lock"):
            if not (cache / BAD_FILES).is_file():  # another process may have built it meanwhile
                _build(files, cache)
    # Mapped copy-on-write: torch needs writable memory, and nothing is ever written back.
    array = np.memmap(cache / IMAGES, dtype=np.uint8, mode="c", shape=files.shape)
    bad = json.loads((cache / BAD_FILES).read_text(encoding="utf-8"))
    return torch.from_numpy(array), [(files.paths[int(i)], reason) for i, reason in bad.items()]


def find_bad_files(files: ImageFiles, folder: Path) -> BadFiles:
    """The files that cannot be decoded, from a cache of images of one pixel."""
    # Decoded to so few pixels, JPEG takes a fraction of the time.
    return cached(ImageFiles(files.paths, 1, files.channels), folder)[1]


def _build(files: ImageFiles, cache: Path) -> None:
    """Decode into a temporary folder that becomes the cache once it is complete."""
    what = f"{len(files):,} images once, to {files.size}x{files.size} ({files.nbytes / 1e9:.2f} GB)"
    log.info("Decoding %s ...", what)
    bad: dict[int, str] = {}

    def decode_into(out: np.ndarray, numbers: range) -> None:
        for i in numbers:
            try:
                out[i] = files.decode(i)
            except ValueError as error:
                bad[i] = str(error)

    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=cache.parent))
    try:
        _reserve(staging / IMAGES, files.nbytes)
        out = np.memmap(staging / IMAGES, dtype=np.uint8, mode="r+", shape=files.shape)
        parts = [range(len(files))[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock
            list(pool.map(partial(decode_into, out), parts))
        out.flush()
        reasons = json.dumps(dict(sorted(bad.items())))
        (staging / BAD_FILES).write_text(reasons, encoding="utf-8")
        staging.replace(cache)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _reserve(path: Path, nbytes: int) -> None:
    """Make a file of a size. A full disk is an error here; a mapped file would crash later."""
    with open(path, "wb") as file:
        file.truncate(nbytes)
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(file.fileno(), 0, nbytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                folder = str(path.parent.parent)
                raise OSError(error.errno, error.strerror, folder) from None
            # any other error: the file system cannot reserve space


def default_cache_folder() -> Path:
    """The folder of this project in the user's cache."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "image-classification-template"


def fits(files: ImageFiles, folder: Path, cache_gb: float | None) -> bool:
    """Whether the decoded files fit into `cache_gb` (10^9 bytes; None: the room that there is)."""
    room = _room(folder / files.key()) if cache_gb is None else cache_gb * 1e9
    if files.nbytes > room > 0:
        sizes = f"{files.nbytes / 1e9:.1f} GB decoded, and the cache may take {room / 1e9:.1f}"
        log.info("%s images take %s GB: they are decoded in every epoch.", len(files), sizes)
    return files.nbytes <= room


def _room(cache: Path) -> int:
    """Bytes that a cache may take: half of the free memory, and of the disk without the cache."""
    images = cache / IMAGES
    taken = images.stat().st_size if images.is_file() else 0
    existing = next(folder for folder in [cache, *cache.parents] if folder.exists())
    return min(free_memory(), shutil.disk_usage(existing).free + taken) // 2


def free_memory() -> int:
    """Bytes of memory that are available; half of all where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            line = next(line for line in file if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
