"""What predict.py answers where it cannot be trusted, and copies of images sorted by answer."""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from ..errors import UserError
from ..inference.classifier import Classifier
from .prediction_files import Prediction

UNSURE, UNKNOWN = "unsure", "unknown"
MAX_NAME = 60  # characters of a folder


@dataclass
class AnswerRule:
    """Answers the most probable class, `unsure` or `unknown`.

    Args:
        threshold: the least probability of a class that is answered; None answers all.
        marks_unknown: whether images that are unlike those of the training are `unknown`.
    """

    threshold: float | None = None
    marks_unknown: bool = False

    @property
    def is_used(self) -> bool:
        """Whether answers can differ from the most probable class."""
        return self.threshold is not None or self.marks_unknown

    def answer(self, ranking: Sequence[tuple[str, float]], distance: float | None) -> str:
        """The answer for a ranking of classes and a distance from the training images."""
        name, probability = ranking[0]
        if self.marks_unknown and distance is not None and not distance <= 1:
            return UNKNOWN
        is_sure = self.threshold is None or probability >= self.threshold
        return name if is_sure else UNSURE


def answer_rule(cfg: DictConfig, classifier: Classifier) -> AnswerRule:
    """The rule that `threshold`, `coverage` and `unknown` ask for.

    Raises:
        UserError: a value that is not possible, or a checkpoint that is not calibrated.
    """
    for name in ("threshold", "coverage"):
        value = cfg[name]
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise UserError(f"{name}={value} is not possible.", f"Give {name} from 0 to 1.")
    if None not in (cfg.threshold, cfg.coverage):
        raise UserError("threshold and coverage both set the threshold.", "Leave one of them out.")
    calibration = classifier.calibration
    wanted = {"coverage": cfg.coverage is not None, "unknown": cfg.unknown is True}
    stored = {"coverage": calibration.confidences, "unknown": calibration.known}
    for name, is_wanted in wanted.items():
        if is_wanted and not stored[name]:
            raise UserError(
                f"{name}={cfg[name]} needs what evaluate.py measures on validation images, and "
                "this checkpoint does not have it.",
                "Run once: python evaluate.py ckpt=CKPT calibrate=true",
            )
    threshold = cfg.threshold
    if cfg.coverage is not None:
        threshold = calibration.threshold(cfg.coverage)
    return AnswerRule(threshold, calibration.known is not None and cfg.unknown is not False)


class SortedCopies:
    """Copies images into one folder per answer. Nothing is moved or overwritten.

    Args:
        folder: new or empty; None copies nothing.
        answers: all that can occur.

    Raises:
        UserError: the folder cannot be made, or has something in it.
    """

    def __init__(self, folder: str | None, answers: Sequence[str]):
        self.root = None if folder is None else Path(folder).expanduser()
        if self.root is None:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            is_empty = not any(self.root.iterdir())
        except OSError as error:
            problem = f"sort_to={folder} cannot be used as a folder: {error.strerror}."
            raise UserError(problem, "Name a new folder.") from None
        if not is_empty:
            raise UserError(
                f"sort_to={folder} is not empty.",
                "Name a new folder: copies are never mixed with other files.",
            )
        self._folders = _folder_names(answers)
        self._counts: Counter[tuple[str, str]] = Counter()  # of equal names in a folder

    def copy(self, predictions: Sequence[Prediction]) -> None:
        """Copy the files of a batch; equal names get a number."""
        if self.root is None:
            return
        for prediction in predictions:
            answer = prediction.answer or prediction.ranking[0][0]
            self._copy(Path(prediction.file), self._folders[answer])

    def _copy(self, source: Path, name: str) -> None:
        assert self.root is not None
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        key = (name, source.name.casefold())
        while True:
            self._counts[key] += 1
            number = self._counts[key]
            suffix = "" if number == 1 else f"_{number}"
            target = folder / f"{source.stem}{suffix}{source.suffix}"
            try:
                with open(source, "rb") as original, open(target, "xb") as copy:
                    shutil.copyfileobj(original, copy)
            except FileExistsError:
                continue
            shutil.copystat(source, target)
            return


def _folder_names(answers: Sequence[str]) -> dict[str, str]:
    """A name for each answer that is safe as that of a folder, and no two alike."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for answer in dict.fromkeys(answers):
        safe = re.sub(r"[^\w ()+,=-]", "_", answer)[:MAX_NAME].strip() or "_"
        name, number = safe, 1
        while name.casefold() in taken:
            number += 1
            name = f"{safe}_{number}"
        taken.add(name.casefold())
        names[answer] = name
    return names
