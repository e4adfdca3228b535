"""The runs of a comparison: read from their folders, checked, and grouped by setting."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..reporting.statistics import Predictions
from ..runs import RunFolder
from ..runs.files import read_json
from ..runs.reading import UNREADABLE, read_table, read_yaml
from ..runs.resume_settings import kind
from ..runs.run_folder import flatten

log = logging.getLogger(__name__)
REPEATS = ("seed", "split_seed", "fold")  # last parts of keys that repeat a setting
COLUMNS = {"image", "label", "prediction", "label_probability"}  # of predictions.csv


class Run(NamedTuple):
    """An evaluated run: its settings and its `predictions.csv`."""

    folder: Path
    settings: dict[str, Any]  # by dotted key, without those that have no effect
    split: str  # test or val
    results: dict[str, Any]  # of the split
    rows: list[dict[str, str]]

    @property
    def repeat(self) -> tuple[str, ...]:
        """The seeds and the fold, which pair the runs of two groups."""
        return tuple(f"{key}={self.settings[key]}" for key in self.settings if _repeats(key))


@dataclass
class Group:
    """The runs of one setting, which differ in their seeds and folds alone."""

    name: str
    runs: list[Run]
    classes: list[str]  # those that the images have
    predictions: list[Predictions]  # of the runs
    settings: dict[str, Any]  # those that differ between the groups


def find_runs(paths: Sequence[str]) -> list[Path]:
    """The folders with predictions among run folders, and inside of sweep folders."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(table.parent for table in path.expanduser().rglob("predictions.csv"))
        finished = [run for run in inside if read_json(run / "results.json").get("status")]
        completed = [run for run in finished if RunFolder(run).has_results()]
        if not completed:
            raise UserError(
                f"{path} has no completed run with a predictions.csv.",
                "Give run folders, sweep folders or folders of evaluate.py.",
            )
        if len(completed) < len(finished):
            log.warning("%s runs of %s are not completed.", len(finished) - len(completed), path)
        found += completed
    return list(dict.fromkeys(found))


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: a file is damaged, or the predictions were written by an older version.
    """
    results = read_json(folder / "results.json")
    split = "test" if results.get("test") else "val"
    try:
        config = read_yaml(folder / "config.yaml")
        rows = read_table(folder / "predictions.csv")
    except UNREADABLE as error:
        raise UserError(
            f"{folder} cannot be read: {' '.join(str(error).split())}.",
            "Give the folder of a run that has been completed.",
        ) from None
    if not rows or not set(rows[0]) >= COLUMNS or not isinstance(config, dict):
        missing = ", ".join(sorted(COLUMNS - set(rows[0]))) if rows else "images"
        raise UserError(
            f"{folder}: config.yaml or predictions.csv is not complete (missing: {missing}).",
            f"Evaluate the run again: python evaluate.py ckpt={folder}",
        )
    settings = {key: value for key, value in flatten(config).items() if kind(key) != "free"}
    return Run(folder, settings, split, results.get(split) or {}, rows)


def images_hash(run: Run) -> str:
    """Identifies the images of a run and their labels, in their order."""
    text = "\n".join(f"{row['image']}\t{row['label']}" for row in run.rows)
    return hashlib.sha256(f"{run.split}\n{text}".encode()).hexdigest()[:16]


def _images(run: Run) -> str:
    return f"{len(run.rows):,} {run.split} images (hash {images_hash(run)})"


def check_same_images(runs: Sequence[Run]) -> None:
    """Refuse runs that were evaluated on other images: their difference would mean nothing."""
    first = runs[0]
    for run in runs[1:]:
        if images_hash(run) != images_hash(first):
            raise UserError(
                f"{run.folder} was evaluated on {_images(run)}, and {first.folder} on other "
                f"images: {_images(first)}.",
                "Evaluate them on the same images: python evaluate.py ckpt=RUN data.root=FOLDER",
            )


# Grouping


def _repeats(key: str) -> bool:
    return key.rpartition(".")[2] in REPEATS


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the runs by their settings, in the given order.

    Raises:
        UserError: there is only one setting, or a repetition appears twice.
    """
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        key = {name: value for name, value in run.settings.items() if not _repeats(name)}
        by_settings.setdefault(repr(sorted(key.items())), []).append(run)
    if len(by_settings) < 2:
        raise UserError(
            f"All {len(runs)} runs have the same settings but for seeds and folds.",
            "Give runs or sweeps of at least two settings.",
        )
    classes = sorted({row["label"] for row in runs[0].rows})
    differing = _differing_keys([found[0].settings for found in by_settings.values()])
    return [
        _make_group(number, found, classes, differing)
        for number, found in enumerate(by_settings.values())
    ]


def _make_group(
    number: int, runs: list[Run], classes: list[str], differing: Sequence[str]
) -> Group:
    if len({run.repeat for run in runs}) < len(runs):
        raise UserError(
            f"Two runs have the same settings and seeds: {runs[0].folder} and another.",
            "Name each run once.",
        )
    name = chr(ord("A") + number) if number < 26 else f"A{number}"
    predictions = [_predictions(run, classes) for run in runs]
    settings = {key: runs[0].settings.get(key) for key in differing}
    return Group(name, runs, classes, predictions, settings)


def _predictions(run: Run, classes: Sequence[str]) -> Predictions:
    numbers = {name: i for i, name in enumerate(classes)}
    labels = np.array([numbers[row["label"]] for row in run.rows])
    # A class that no image has is wrong in any case: one number for all of these.
    predicted = np.array([numbers.get(row["prediction"], len(classes)) for row in run.rows])
    return Predictions(
        labels, predicted, np.array([float(r["label_probability"]) for r in run.rows])
    )


def _differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys with several values; of groups whose class differs, the class alone."""
    keys = dict.fromkeys(key for each in settings for key in each if not _repeats(key))
    differing = [key for key in keys if len({repr(each.get(key)) for each in settings}) > 1]
    others = [key.removesuffix("_target_") for key in differing if key.endswith("._target_")]
    return [
        key for key in differing if key.endswith("._target_") or not key.startswith(tuple(others))
    ]
