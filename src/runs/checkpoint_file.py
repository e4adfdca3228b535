"""Checkpoint files: zip files of PyTorch that end with a hash of all their bytes.

torch does not compare the checksums of such a file, so a flipped bit would be taken for a weight.
"""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from .files import atomic_write

HASH_NAME = b"sha256:"
HASH_LENGTH = len(HASH_NAME) + 64  # the hash in hexadecimal digits, as the comment of the zip file
END_RECORD = b"PK\x05\x06"  # begins the last record of a zip file, which has 22 bytes
END_LENGTH = 22
MAX_PICKLE_BYTES = 100_000_000  # of everything but the tensors
MAX_VALUES = 2_000_000
MAX_DEPTH = 32


def save(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a checkpoint beside its place and rename it once the disk has it.

    Lightning's own writer goes through the temporary folder of the system, from where a file on
    another disk is copied and not renamed.

    Raises:
        OSError: it cannot be written; the file that was there before is whole.
    """
    with atomic_write(path, "w+b", sync=True) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what the zip writer makes of a failed write
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from None
        file.seek(-2, os.SEEK_END)  # the length of the comment
        file.write(HASH_LENGTH.to_bytes(2, "little"))
        file.write(_hash(file, file.tell()))


def load(path: Path) -> Any:
    """The content of a file, on the CPU: tensors and plain values.

    Raises:
        ValueError: the file is damaged, or holds what `save` does not write.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_bytes(file, size)
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"):  # of pickles that torch then refuses
                content = torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # there is no end of ways in which a file can be wrong
            raise ValueError("is damaged, or holds more than tensors and plain values") from error
    _check_values(content, size)
    return content


def _hash(file: IO[bytes], length: int) -> bytes:
    """The hash of the first bytes of a file, which is left at its end."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0:
        block = file.read(min(length, 1 << 20))
        if not block:
            raise ValueError("is damaged")
        digest.update(block)
        length -= len(block)
    return HASH_NAME + digest.hexdigest().encode()


def _check_bytes(file: IO[bytes], size: int) -> None:
    """Compare a file with its hash, or the parts of a file that has none with their checksums.

    A file that takes more memory than it has bytes is refused before it is unpacked.
    """
    file.seek(max(size - END_LENGTH - HASH_LENGTH, 0))
    end = file.read()
    has_hash = not (end[-END_LENGTH:].startswith(END_RECORD) and end.endswith(b"\0\0"))
    if has_hash:
        is_ours = end.startswith(END_RECORD)
        if not is_ours or end[END_LENGTH:] != _hash(file, size - HASH_LENGTH):
            raise ValueError("is damaged")
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # as above
        raise ValueError("is damaged") from error
    _check_entries(archive.infolist(), size)
    if not has_hash and not _has_right_sums(archive):
        raise ValueError("is damaged")


def _has_right_sums(archive: zipfile.ZipFile) -> bool:
    try:
        return archive.testzip() is None
    except Exception:  # as above
        return False


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise ValueError("is compressed")
    pickles = (entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if sum(pickles) > MAX_PICKLE_BYTES:
        raise ValueError("holds values that are too large")


def _check_values(content: Any, size: int) -> None:
    """Refuse tensors that are larger than the file, and values that are nested without end."""
    total = 0
    for value in _walk(content):
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_meta:
                raise ValueError("holds a tensor without plain values")
            total += value.nbytes
            if value.nbytes > value.untyped_storage().nbytes() or total > 4 * size:
                raise ValueError("holds tensors that are larger than the file")


def _walk(content: Any) -> Iterator[Any]:
    """All values inside nested ones; values that occur several times each time."""
    waiting = [(content, 0)]
    for _ in range(MAX_VALUES):
        if not waiting:
            return
        value, depth = waiting.pop()
        yield value
        if isinstance(value, Mapping):
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += [(item, depth + 1) for item in value]
        if depth > MAX_DEPTH or len(waiting) > MAX_VALUES:
            break
    raise ValueError("holds values that are nested too deeply")
