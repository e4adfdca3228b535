"""Pictures that lie in files: decoded once into a memory-mapped cache when they fit, decoded again each epoch when not."""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock

from src.decode import decode
from src.errors import UserError

log = logging.getLogger(__name__)
FORMAT = 1  # part of every cache's key: raise it when `decode` changes what it returns


class PictureFiles:
    """A list of files that gives uint8 batches by `index_select`, decoding them as they are asked for.

    Args:
        paths: the files.
        size, channels, resize: see `decode`.
    """

    def __init__(self, paths: Sequence[Path], size: int, channels: int = 3, resize: str = "stretch"):
        self.paths, self.size, self.channels, self.resize = list(paths), size, channels, resize

    def __len__(self) -> int:
        return len(self.paths)

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """(B,) indices -> uint8 (B, C, size, size).

        Raises:
            UserError: a file that cannot be read.
        """
        return torch.stack([torch.from_numpy(self.read(i)) for i in index.tolist()])

    def read(self, i: int) -> np.ndarray:
        """uint8 (C, size, size) of one file."""
        try:
            return decode(self.paths[i], self.size, self.channels, self.resize)
        except ValueError as error:
            raise UserError(f"{self.paths[i]}: {error}.", REMEDY) from None

    def fingerprint(self) -> bytes:
        """Names, sizes and times of the files and how they are decoded: what a cache of them is keyed by."""
        settings = [FORMAT, self.size, self.channels, self.resize]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for path in self.paths:
            try:
                stat = path.stat()
            except FileNotFoundError:
                raise UserError(f"{path} has gone.", "Restore it, or start again without it.") from None
            digest.update(f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return digest.digest()

    @property
    def nbytes(self) -> int:
        """Bytes that all pictures take once decoded."""
        return len(self) * self.channels * self.size**2


REMEDY = "Remove or replace the file, or leave such files out with data.bad_files=skip."


def cached(files: PictureFiles, folder: Path) -> tuple[torch.Tensor, list[tuple[Path, str]]]:
    """Decode all files once into a memory-mapped file under `folder`, or map the one that an earlier run left there.

    The key is `files.fingerprint()`. The cache is written beside its place and renamed, so several processes may call this at once.

    Returns:
        uint8 (N, C, size, size), backed by the file and read on demand; and the files that could not be decoded, each with the
        reason, whose pictures are black.
    """
    target = cache_of(files, folder)
    if not (target / "bad.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not (target / "bad.json").is_file():  # else another process has just built it
                staging = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
                try:
                    _build(files, staging)
                    staging.replace(target)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
    shape = (len(files), files.channels, files.size, files.size)
    # Mapped copy-on-write: torch wants writable memory, and nothing is ever written back.
    array = np.memmap(target / "pictures.u8", dtype=np.uint8, mode="c", shape=shape)
    bad = json.loads((target / "bad.json").read_text(encoding="utf-8"))
    return torch.from_numpy(array), [(files.paths[int(i)], reason) for i, reason in bad.items()]


def cache_of(files: PictureFiles, folder: Path) -> Path:
    """The folder of a cache, whether it is there or not."""
    return folder / files.fingerprint().hex()[:32]


def unusable(files: PictureFiles, folder: Path) -> list[tuple[Path, str]]:
    """The files that cannot be decoded, each with the reason. Every file is read once, and the answer remembered under `folder`."""
    answer = folder / f"{files.fingerprint().hex()[:32]}.bad.json"
    if not answer.is_file():
        log.info("Reading %s pictures once, to find those that cannot be used ...", f"{len(files):,}")

        def reason(path: Path) -> str | None:
            try:
                decode(path, 8, files.channels)  # JPEG decodes to an eighth several times as fast
            except ValueError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            reasons = list(pool.map(reason, files.paths, chunksize=64))
        folder.mkdir(parents=True, exist_ok=True)
        part = answer.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({str(i): text for i, text in enumerate(reasons) if text}), encoding="utf-8")
        part.replace(answer)
    bad = json.loads(answer.read_text(encoding="utf-8"))
    return [(files.paths[int(i)], text) for i, text in bad.items()]


def _build(files: PictureFiles, staging: Path) -> None:
    log.info("Decoding %s pictures once, to %dx%d ...", f"{len(files):,}", files.size, files.size)
    shape = (len(files), files.channels, files.size, files.size)
    if hasattr(os, "posix_fallocate"):  # a full disk is told here; a mapped file would only find out by a crash
        with open(staging / "pictures.u8", "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, files.nbytes)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # else the file system cannot reserve
                    raise OSError(error.errno, error.strerror, str(staging.parent)) from None
    mode: Literal["r+", "w+"] = "r+" if (staging / "pictures.u8").exists() else "w+"
    out = np.memmap(staging / "pictures.u8", dtype=np.uint8, mode=mode, shape=shape)
    bad: dict[str, str] = {}

    def work(i: int) -> None:
        try:
            out[i] = decode(files.paths[i], files.size, files.channels, files.resize)
        except ValueError as error:
            bad[str(i)] = str(error)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow lets go of the interpreter lock while it decodes
        for start in range(0, len(files), 4096):  # not all futures at once: there may be millions
            list(pool.map(work, range(start, min(start + 4096, len(files)))))
    out.flush()
    (staging / "bad.json").write_text(json.dumps(dict(sorted(bad.items(), key=lambda item: int(item[0])))), encoding="utf-8")


def default_cache_folder() -> Path:
    """Where caches live unless told otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "image-classification-template"


def room_for_cache(cache: Path) -> int:
    """Bytes that a cache may take: half of the memory that is free, and half of the disk that was free before it was there."""
    pictures = cache / "pictures.u8"
    taken = pictures.stat().st_size if pictures.is_file() else 0
    while not cache.exists():
        cache = cache.parent
    return min(_free_memory(), shutil.disk_usage(cache).free + taken) // 2


def _free_memory() -> int:
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, ValueError):  # Windows
            return 4 << 30
