"""Makes a fault happen at a named point of a run: FAULT=point:action[:count[:bytes]].

The fault happens when the point is reached for the `count`-th time (1: the first). Points of FILES
lie inside the writing of a file: `bytes` of it are on the disk by then. A file that is named by
FAULT_MARKER is written before the fault, and says that the point was reached. Only the standard
library is imported here, so that the imports of the run are those of an undisturbed one.
"""

import builtins
import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from fault_actions import ACTIONS

# Modules whose import is the point `import`, in the order in which a run imports them.
IMPORTS = (
    "src.config.cli",
    "src.engine.train",
    "torch",
    "torch.nn",
    "torchvision",
    "lightning.pytorch",
    "torchmetrics",
    "pydantic",
)
TASK = ("src.tasks.classification", "ClassificationTask")
# Methods: module, class, name. The point is reached when one of them is called.
METHODS = {
    "data": [
        ("src.datamodules.digits", "DigitsDataModule", "load"),
        ("src.datamodules.image_folder", "ImageFolderDataModule", "load"),
    ],
    "first_step": [(*TASK, "training_step")],
    "mid_epoch": [(*TASK, "training_step")],
    "validation": [(*TASK, "validation_step")],
    "test": [(*TASK, "test_step")],
}
# Files that are written through src.runs.files, and the bytes that are written before the point.
FILES = {
    "checkpoint": ("*.ckpt.part", 20_000),
    "best": ("best.ckpt.part", 20_000),
    "last": ("last.ckpt.part", 20_000),
    "metrics": ("metrics.csv.part", 20),
    "report": ("report.html.part", 1_000),
    "config": ("config.yaml.part", 20),
    "tables": ("predictions.csv.part", 1_000),
    "results": ("results.json.part", 20),
}
# Called in a loader process for each batch, where there are such processes.
LOADER = ("src.datamodules.loader", "LabelledImages", "__getitem__")
WRITER = "src.runs.files"


def install(fault: str, marker: str) -> None:
    """Make the fault happen in this process.

    Args:
        fault: point:action[:count[:bytes]].
        marker: the file that says that the point was reached.
    """
    # A shell may have started this process with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    point, action, *numbers = fault.split(":")
    count = int(numbers[0]) if numbers else 1
    reached = Reached(point, ACTIONS[action], count, Path(marker))
    if point == "import":
        sys.meta_path.insert(0, ImportPoint(reached))
    elif point in FILES:
        pattern, after = FILES[point]
        after = int(numbers[1]) if len(numbers) > 1 else after
        opened = functools.partial(_open, pattern, after, reached)
        after_import(WRITER, lambda module: setattr(module, "open", opened))
    elif point == "loader":
        reached.process = None
        after_import(LOADER[0], functools.partial(_wrap, *LOADER[1:], reached))
    else:
        for module, name, method in METHODS[point]:
            after_import(module, functools.partial(_wrap, name, method, reached))


class Reached:
    """Called whenever the point is reached; acts once, in the process it was made in."""

    def __init__(self, point: str, action: Callable[[], None], count: int, marker: Path):
        self.point, self.action, self.left, self.marker = point, action, count, marker
        # Loader processes inherit this object. None acts in any process.
        self.process: int | None = os.getpid()

    def is_next(self) -> bool:
        return self.left == 1 and os.getpid() == self.process

    def __call__(self, detail: str = "") -> None:
        self.left -= 1
        if self.left or self.process not in (None, os.getpid()):
            return
        # Renamed: a test that waits for the marker never reads half of it.
        part = self.marker.with_name(f"{self.marker.name}.part")
        part.write_text(f"{self.point} {detail}".strip())
        os.replace(part, self.marker)
        self.action()


# Points


class ImportPoint(MetaPathFinder):
    """Finds nothing; it is asked for every module before the others are."""

    def __init__(self, reached: Reached):
        self.reached = reached

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in IMPORTS:
            self.reached(name)


class _Patch(MetaPathFinder):
    """Changes a module right after its import."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]):
        self.name, self.change = name, change

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


def after_import(name: str, change: Callable[[ModuleType], None]) -> None:
    """Change a module that is imported already, or will be."""
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Patch(name, change))


def _wrap(name: str, method: str, reached: Reached, module: ModuleType) -> None:
    original = getattr(getattr(module, name), method)

    @functools.wraps(original)  # Lightning compares the methods of a class with those of its base
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        reached(method)
        return original(self, *args, **kwargs)

    setattr(getattr(module, name), method, wrapped)


def _open(pattern: str, after: int, reached: Reached, path: Any, *args: Any, **kw: Any) -> Any:
    """The `open` of the module that writes all files."""
    file = builtins.open(path, *args, **kw)
    if not fnmatch(os.path.basename(path), pattern):
        return file
    if reached.is_next():
        return _CutFile(file, after, reached)
    reached()
    return file


class _CutFile:
    """A file whose writing reaches the point after some bytes, or characters, are on the disk."""

    def __init__(self, file: Any, after: int, reached: Reached):
        self._file, self._after, self._reached = file, after, reached

    def write(self, data: Sequence) -> int:
        if self._after is None or len(data) < self._after:
            if self._after is not None:
                self._after -= len(data)
            return self._file.write(data)
        cut, self._after = self._after, None
        written = self._file.write(data[:cut])
        self._file.flush()
        size = os.fstat(self._file.fileno()).st_size
        self._reached(f"{os.path.basename(self._file.name)} {size}")
        return written + self._file.write(data[cut:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_CutFile":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
