"""Shared helpers for tests of files and folders that come from strangers."""

import shutil
from collections.abc import Callable
from pathlib import Path

BOMB = "a0: &a0 [x,x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12))
Write = str | bytes | Callable[[Path], object]


def put(path: Path, content: Write) -> None:
    """Put a file, or what a function makes, in the place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def sparse(path: Path) -> None:
    """A file of 1 GB that takes no space."""
    with open(path, "wb") as file:
        file.truncate(1 << 30)
