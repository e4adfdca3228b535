"""Files of a prediction: finding and decoding the images, and writing the tables."""

import csv
import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import torch
from torch.utils.data import Dataset

from ..datamodules.decode import EXTENSIONS, decode, is_image_name
from ..datamodules.loader import pass_on
from ..errors import UserError
from ..inference.classifier import Classifier

SHOWN = 20  # rows of a table on the console; the files hold all
VIEW_SIZE = 224  # least height and width of an image that people look at, in pixels
Failure = tuple[str, str]  # file, reason


class Prediction(NamedTuple):
    """The most probable classes of a file."""

    file: str
    ranking: list[tuple[str, float]]  # (class, probability), the most probable class first
    cam: str | None = None  # path of the Grad-CAM overlay inside the run folder
    answer: str | None = None  # the class, `unsure` or `unknown`; None where none is asked for
    distance: float | None = None  # from the training images; above 1 for unknown


def find_files(path: str) -> tuple[list[str], int]:
    """Find the files that a file name, a folder or a pattern stands for.

    An existing path is never treated as a pattern. A file that is named, or that a pattern matches,
    is always read. Folders are searched with their subfolders, without hidden files and folders.

    Returns:
        The sorted files, and the number of files in folders that are left out because they do not
        have the extension of an image.

    Raises:
        UserError: there is no file to read.
    """
    expanded = path if os.path.lexists(path) else os.path.expanduser(path)
    matches = [expanded]
    if not os.path.lexists(expanded):
        matches = sorted(glob.iglob(expanded, recursive=True))
        if "**" in path:  # it matches the files inside every folder that it matches as well
            matches = [match for match in matches if not os.path.isdir(match)]
    files: list[str] = []
    skipped = 0
    for match in matches:
        found = list(_walk(match)) if os.path.isdir(match) else [(match, True)]
        files += [file for file, wanted in found if wanted]
        skipped += sum(not wanted for _, wanted in found)
    if not files:
        raise UserError(
            f"There are no images at path={path}, and {skipped:,} other files.",
            f"Give an image, a folder or a quoted pattern; the current folder is {os.getcwd()}. In "
            f"folders, files that end in {', '.join(sorted(EXTENSIONS))} are read.",
        )
    return files, skipped


def _walk(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the files of a folder and whether they are to be read."""
    errors: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(parent, name), is_image_name(Path(name))
    for error in errors:  # a folder that cannot be opened is reported like an unreadable file
        yield error.filename, True


class DecodedBatch(NamedTuple):
    """A batch of files: the B that could be decoded, and the others."""

    files: list[str]
    images: torch.Tensor  # uint8 (B, channels, size, size)
    views: torch.Tensor  # uint8 (B, 3, view, view); (B, 0) where none are needed
    failures: list[Failure]
    probabilities: torch.Tensor | None = None  # (B, num_classes) where a worker computed them
    distances: torch.Tensor | None = None  # (B,) likewise, where the classifier has them


class ImageFiles(Dataset):
    """Decodes whole batches of files for a classifier, inside the workers of a loader.

    Args:
        classifier: decides size, channels and resizing of the images.
        with_views: also decode each image in colour, at least `VIEW_SIZE` pixels high.
    """

    def __init__(self, classifier: Classifier, with_views: bool = False):
        assert classifier.image_size is not None  # every checkpoint that `load` accepts names it
        self.size = classifier.image_size
        self.channels = classifier.channels
        self.resize = classifier.resize
        self.fill = classifier.mean.flatten().tolist()
        self.view_size = max(VIEW_SIZE, self.size) if with_views else None

    def __getitem__(self, files: list[str]) -> DecodedBatch:
        decoded: list[str] = []
        images = torch.empty(len(files), self.channels, self.size, self.size, dtype=torch.uint8)
        views = torch.empty(len(files), 0, dtype=torch.uint8)
        if self.view_size:
            views = torch.empty(len(files), 3, self.view_size, self.view_size, dtype=torch.uint8)
        failures: list[Failure] = []
        for file in files:
            row = len(decoded)
            try:
                image = decode(file, self.size, self.channels, self.resize, self.fill)
                images[row] = torch.as_tensor(image)
                if self.view_size:
                    view = decode(file, self.view_size, 3, self.resize, self.fill)
                    views[row] = torch.as_tensor(view)
            except ValueError as error:
                failures.append((file, str(error)))
            else:
                decoded.append(file)
        return DecodedBatch(decoded, images[: len(decoded)], views[: len(decoded)], failures)


class PredictedFiles(ImageFiles):
    """Decodes batches of files and runs the network on them, inside the workers of a loader.

    A worker has one thread. On a CPU, that is faster than workers that decode beside a network
    whose threads wait for one another after every layer.
    """

    def __init__(self, classifier: Classifier):
        super().__init__(classifier)
        self.classifier = classifier

    def __getitem__(self, files: list[str]) -> Any:
        return pass_on(self._predict, files)

    def _predict(self, files: list[str]) -> DecodedBatch:
        batch = super().__getitem__(files)
        if not batch.files:
            return batch
        with torch.inference_mode():
            values = self.classifier.measure(batch.images)
        probabilities, distances = (None if v is None else v.clone() for v in values)
        return batch._replace(
            probabilities=probabilities, distances=distances, images=batch.images[:0]
        )


class PredictionWriter:
    """Writes predictions.csv, predictions.jsonl and unreadable.csv, batch by batch.

    The files end in .part until the prediction is complete, so that a prediction that is killed
    keeps its rows. Names that are not valid UTF-8 keep their bytes in CSV and are escaped in JSON;
    carriage returns, which csv does not quote, are escaped.

    Args:
        folder: the run folder.
        top_k: classes per image.
        with_answers: also write what is answered, see `Prediction`.
    """

    def __init__(self, folder: Path, top_k: int, with_answers: bool = False):
        self.folder, self.with_answers = folder, with_answers
        self.counts: Counter[str] = Counter()  # images by predicted class
        self.answers: Counter[str] = Counter()  # images by answer
        self.num_unreadable = 0
        self.first_predictions: list[Prediction] = []  # at most SHOWN, for the console
        self.first_failures: list[Failure] = []
        self._stack = ExitStack()
        self._csv = self._open_csv("predictions.csv")
        self._jsonl = self._open("predictions.jsonl", "backslashreplace")
        self._unreadable = self._open_csv("unreadable.csv")
        ranks = [(f"class_{rank}", f"probability_{rank}") for rank in range(1, top_k + 1)]
        answers = ["answer", "distance"] if with_answers else []
        self._csv.writerow(["file", *chain.from_iterable(ranks), *answers])
        self._unreadable.writerow(["file", "reason"])

    def _open(self, name: str, errors: str) -> IO[str]:
        part = self.folder / f"{name}.part"
        return self._stack.enter_context(
            part.open("w", newline="", encoding="utf-8", errors=errors)
        )

    def _open_csv(self, name: str) -> Any:
        return csv.writer(self._open(name, "surrogateescape"), lineterminator="\n")

    def write(self, predictions: Sequence[Prediction], failures: Sequence[Failure]) -> None:
        """Append the predictions of a batch and the files that have none."""
        for file, ranking, cam, answer, distance in predictions:
            cells = [file]
            for name, probability in ranking:
                cells += [name, f"{probability:.6f}"]
            if answer is not None:
                cells += [answer, "" if distance is None else f"{distance:.4f}"]
            self._csv.writerow(map(_quotable, cells))
            classes = [{"class": name, "probability": round(p, 6)} for name, p in ranking]
            row: dict[str, Any] = {"file": file, "predictions": classes}
            if cam is not None:
                row["cam"] = cam
            if answer is not None:
                row |= {"answer": answer, "distance": distance and round(distance, 4)}
                self.answers[answer] += 1
            self._jsonl.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._unreadable.writerows(map(_quotable, failure) for failure in failures)
        self.counts.update(prediction.ranking[0][0] for prediction in predictions)
        self.num_unreadable += len(failures)
        self.first_predictions += predictions[: SHOWN - len(self.first_predictions)]
        self.first_failures += failures[: SHOWN - len(self.first_failures)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stack.close()
        if kind is not None:
            return
        for name in ("predictions.csv", "predictions.jsonl", "unreadable.csv"):
            (self.folder / f"{name}.part").replace(self.folder / name)
        if not self.num_unreadable:
            (self.folder / "unreadable.csv").unlink()


def _quotable(cell: str) -> str:
    return cell.replace("\r", "\\r")
