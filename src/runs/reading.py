"""Readers of files that may come from a stranger: bounded in size, depth and time.

Every folder that is continued, reproduced, summed up or resumed is read through them.
"""

import csv
import io
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError

MAX_YAML = 100_000  # bytes
MAX_VALUES = 10_000  # of a YAML file, with the keys
MAX_JSON = 10_000_000
MAX_TABLE = 50_000_000
MAX_CELLS = 2_000_000  # of a table
MAX_DEPTH = 32  # of nested values, and of folders
UNREADABLE = (OSError, ValueError, RecursionError, yaml.YAMLError, csv.Error)


def read_bytes(path: str | os.PathLike, max_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is too large, or is no regular file: reading a pipe would wait.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > max_bytes:
            raise ValueError(f"it has more than {max_bytes:,} bytes")
        return file.read(max_bytes)


def read_text(path: str | os.PathLike, max_bytes: int) -> str:
    """The content of a file in UTF-8, as `read_bytes` reads it."""
    return read_bytes(path, max_bytes).decode()


def read_yaml(path: str | os.PathLike) -> Any:
    """The content of a YAML file as plain values.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is too large, has too many values, is nested too deeply, or holds
            references, which a few lines can multiply beyond any memory.
        yaml.YAMLError: it is no YAML, or more than plain values.
    """
    text = read_text(path, MAX_YAML)
    depth = 0
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    for number, event in enumerate(events):  # before it takes memory and time
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH or number > MAX_VALUES:
            raise ValueError("it holds references or too many values, or is nested too deeply")
    return yaml.safe_load(text)


def read_table(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is too large.
        csv.Error: it is no table.
    """
    reader = csv.reader(io.StringIO(read_text(path, MAX_TABLE), newline=""))
    header = next(reader, [])
    rows, left = [], MAX_CELLS
    for cells in reader:
        left -= 1 + len(cells)
        if left < 0:
            raise ValueError(f"it has more than {MAX_CELLS:,} cells")
        if cells:
            rows.append(dict(zip(header, cells, strict=False)))
    return rows


def is_shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether plain values are nested at most so deeply."""
    if not isinstance(value, dict | list):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_shallow(part, depth - 1) for part in parts)


def number(values: Any, *keys: str) -> float:
    """A number in nested values, such as `results["val"]["loss"]`; NaN where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    try:
        return float(values) if isinstance(values, int | float) else float("nan")
    except OverflowError:
        return float("nan")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which writing to a file could reach outside of it, or wait forever.

    The folder itself may be a link.

    Raises:
        UserError: it holds a link that leads out of it, something that is neither file nor folder,
            or folders nested too deeply.
    """
    root = os.path.realpath(folder)
    waiting = [(root, 0)]
    while waiting:
        place, depth = waiting.pop()
        for entry in _entries(place):
            if entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if not target.is_relative_to(root):
                    raise _refused(folder, entry, f"a link to {target}, outside of the folder")
                continue
            if entry.is_file():
                continue
            if not entry.is_dir():
                raise _refused(folder, entry, "neither a file nor a folder")
            if depth == MAX_DEPTH:
                raise _refused(folder, entry, "nested too deeply")
            waiting.append((entry.path, depth + 1))


def _entries(place: str) -> list[os.DirEntry]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except OSError:  # there is none, or nothing can be written there either
        return []


def _refused(folder: Path, entry: os.DirEntry, what: str) -> UserError:
    return UserError(
        f"{folder} is not written into: {os.path.relpath(entry.path, os.path.realpath(folder))} is "
        f"{what}.",
        "Remove it, or move what it leads to into its place, and check where the folder comes "
        "from.",
    )
