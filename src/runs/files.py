"""The writer and the lock of the project: a file is replaced whole or not at all."""

import csv
import errno
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from .reading import MAX_JSON, UNREADABLE, is_shallow, read_text
from .text import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a write fails with for lack of room


@contextmanager
def atomic_write(
    path: str | os.PathLike, mode: str = "w", sync: bool = False, **options: Any
) -> Iterator[IO]:
    """Open a temporary file that takes the place of `path` when the block ends without an error.

    Args:
        sync: wait until the disk has the content and the new name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if "b" not in mode:
        # Names of files may hold bytes that are no text.
        options = {"encoding": "utf-8", "errors": "backslashreplace"} | options
    try:
        with open(part, mode, **options) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    if sync and os.name == "posix":
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write a JSON file, indented, in UTF-8."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(
    path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]], **options: Any
) -> None:
    """Write a table row by row, with control characters escaped: csv does not quote them all."""
    with atomic_write(path, newline="", **options) as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in chain([header], rows):
            writer.writerow([printable(c) if isinstance(c, str) else c for c in row])


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a JSON file with an object in it; {} where there is none that can be read."""
    try:
        content = json.loads(read_text(path, MAX_JSON))
    except UNREADABLE:
        return {}
    return content if isinstance(content, dict) and is_shallow(content) else {}


class Lock:
    """A lock on a file, for processes on one or several machines. It ends with its process.

    It is a POSIX record lock, which loader processes do not inherit: a killed run leaves no lock
    behind. Where the system or the file system has none, `acquire` always succeeds.
    """

    held: set[str] = set()  # of this process: record locks do not exclude their own process
    _guard = threading.Lock()  # of `held`, for threads

    def __init__(self, path: str | os.PathLike):
        self.path = os.path.abspath(path)
        self._file: IO | None = None

    def acquire(self, wait: bool = False) -> bool:
        """Take the lock; whether this object holds it. Without `wait` it returns at once."""
        while not self._try():
            if not wait:
                return False
            time.sleep(0.05)
        return True

    def _try(self) -> bool:
        with Lock._guard:
            return self.path not in Lock.held and self._lock_file()

    def _lock_file(self) -> bool:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        file = open(self.path, "a")  # noqa: SIM115 - open for as long as the lock is held
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            return False
        except OSError:  # a file system without locks
            pass
        self._file = file
        Lock.held.add(self.path)
        return True

    def release(self) -> None:
        """Let others take the lock."""
        with Lock._guard:
            if self._file is not None:
                self._file.close()
                self._file = None
                Lock.held.discard(self.path)

    @classmethod
    def is_held(cls, path: str | os.PathLike) -> bool:
        """Whether anybody, in this process or another, holds the lock on `path`."""
        lock = cls(path)
        free = not os.path.exists(path) or lock.acquire()
        lock.release()
        return not free

    def __enter__(self) -> "Lock":
        self.acquire(wait=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
