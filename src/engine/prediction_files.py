"""Files of a prediction: finding and decoding the images, and writing the tables.

Memory holds one batch, not the list of all files.
"""

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch.utils.data import Dataset

from ..datamodules.decode import EXTENSIONS, decode, is_image_name
from ..errors import UserError
from ..inference.classifier import Classifier

VIEW_SIZE = 224  # least height and width of an image that people look at, in pixels
Ranking = Sequence[tuple[str, float]]  # (class, probability), the most probable class first


def find_files(path: str) -> Iterator[tuple[str, bool]]:
    """Yield the files that a file name, a folder or a pattern stands for, in sorted order.

    An existing path is never treated as a pattern. Folders are searched with their subfolders;
    hidden files and folders are skipped. A file that is named, or that a pattern matches, is always
    read.

    Yields:
        The path and whether it is to be read; files of a folder without the extension of an image
        are not.
    """
    expanded = os.path.expanduser(path)
    if os.path.lexists(path):
        matches = [path]
    elif os.path.lexists(expanded):
        matches = [expanded]
    else:
        matches = sorted(glob.iglob(expanded, recursive=True))
        if "**" in path:  # it matches the files inside every folder that it matches as well
            matches = [match for match in matches if not os.path.isdir(match)]
    for match in matches:
        if os.path.isdir(match):
            yield from _walk(match)
        else:
            yield match, True


def _walk(folder: str) -> Iterator[tuple[str, bool]]:
    errors: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(parent, name), is_image_name(Path(name))
    for error in errors:  # a folder that cannot be opened is reported like an unreadable file
        yield error.filename, True


def count_files(path: str) -> tuple[int, int]:
    """Return how many files are to be read, and how many other files lie beside them.

    Raises:
        UserError: there is no file to read.
    """
    total = skipped = 0
    for _, wanted in find_files(path):
        total += wanted
        skipped += not wanted
    if total:
        return total, skipped
    if os.path.isdir(os.path.expanduser(path)):
        content = f"{skipped:,} files, but no images" if skipped else "no files"
        raise UserError(
            f"The folder {path} holds {content}.",
            f"Files that end in {', '.join(sorted(EXTENSIONS))} are read, in subfolders as well.",
        )
    if glob.has_magic(path):
        raise UserError(
            f"No file matches {path}.",
            f"Check the pattern; it starts at {os.getcwd()}, and ** stands for any subfolders.",
        )
    raise UserError(
        f"There is no {path}.",
        "Give an image, a folder or a quoted pattern with path=...; the current folder is "
        f"{os.getcwd()}.",
    )


def batches(files: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    """Yield lists of `batch_size` files; the last one may be shorter."""
    batch: list[str] = []
    for file in files:
        batch.append(file)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class DecodedBatch(NamedTuple):
    """A batch of files: those that could be decoded, and the others."""

    files: list[str]  # the B files that could be decoded
    images: torch.Tensor  # uint8 (B, channels, size, size)
    failures: list[tuple[str, str]]  # (file, reason)
    views: torch.Tensor  # uint8 (B, 3, view, view); (0, 3, 0, 0) where none are needed


class ImageFiles(Dataset):
    """Decodes whole batches of files for a classifier, inside the workers of a loader.

    Args:
        classifier: decides size and channels of the images.
        with_views: also decode each image in colour, at least `VIEW_SIZE` pixels high.
    """

    def __init__(self, classifier: Classifier, with_views: bool = False):
        assert classifier.image_size is not None  # every checkpoint that `load` accepts names it
        self.size = classifier.image_size
        self.channels = classifier.channels
        self.resize = classifier.resize
        self.view_size = max(VIEW_SIZE, self.size) if with_views else 0

    def __getitem__(self, files: list[str]) -> DecodedBatch:
        count = len(files)
        images = torch.empty(count, self.channels, self.size, self.size, dtype=torch.uint8)
        view_count = count if self.view_size else 0
        views = torch.empty(view_count, 3, self.view_size, self.view_size, dtype=torch.uint8)
        decoded: list[str] = []
        failures: list[tuple[str, str]] = []
        for file in files:
            row = len(decoded)
            try:
                images[row] = torch.as_tensor(decode(file, self.size, self.channels, self.resize))
                if self.view_size:
                    views[row] = torch.as_tensor(decode(file, self.view_size, 3, self.resize))
            except ValueError as error:
                failures.append((file, str(error)))
            else:
                decoded.append(file)
        return DecodedBatch(decoded, images[: len(decoded)], failures, views[: len(decoded)])


class PredictionWriter:
    """Writes predictions.csv, predictions.jsonl and, where files are unreadable, unreadable.csv.

    Rows are written as they come, into files that end in .part until the prediction is complete:
    an interrupted prediction keeps its rows, which `atomic_write` would delete. Names that are not
    valid UTF-8 keep their bytes in CSV and are escaped in JSON.
    """

    def __init__(self, folder: Path, top_k: int):
        self.folder = folder
        self.top_k = top_k
        self._names: list[str] = []
        self._files = ExitStack()
        self._unreadable: Any = None

    def __enter__(self) -> "PredictionWriter":
        columns = ["file"]
        for rank in range(1, self.top_k + 1):
            columns += [f"class_{rank}", f"probability_{rank}"]
        self._csv = self._open_csv("predictions.csv", columns)
        self._jsonl = self._open("predictions.jsonl", "backslashreplace")
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._files.close()
        if kind is not None:
            return
        (self.folder / "unreadable.csv").unlink(missing_ok=True)  # of an earlier prediction
        for name in self._names:
            (self.folder / f"{name}.part").replace(self.folder / name)

    def _open(self, name: str, errors: str) -> IO[str]:
        self._names.append(name)
        path = self.folder / f"{name}.part"
        file = path.open("w", newline="", encoding="utf-8", errors=errors)
        return self._files.enter_context(file)

    def _open_csv(self, name: str, columns: Sequence[str]) -> Any:
        writer = csv.writer(self._open(name, "surrogateescape"), lineterminator="\n")
        writer.writerow(columns)
        return writer

    def prediction(self, file: str, ranking: Ranking, overlay: str | None) -> None:
        """Write the prediction for a file, and the path of its Grad-CAM overlay if it has one."""
        cells = [file]
        for name, probability in ranking:
            cells += [name, f"{probability:.6f}"]
        self._csv.writerow(cells)
        row: dict[str, Any] = {
            "file": file,
            "predictions": [{"class": name, "probability": round(p, 6)} for name, p in ranking],
        }
        if overlay is not None:
            row["cam"] = overlay
        self._jsonl.write(json.dumps(row, ensure_ascii=False) + "\n")

    def unreadable(self, file: str, reason: str) -> None:
        """Write the reason for which a file has no prediction."""
        if self._unreadable is None:
            self._unreadable = self._open_csv("unreadable.csv", ["file", "reason"])
        self._unreadable.writerow([file, reason])
