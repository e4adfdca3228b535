"""`reproduce=RUN`: training a finished run again from its folder and comparing the results."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..config.stored import read_stored_config
from ..errors import UserError
from ..runs.files import read_json
from ..runs.reading import UNREADABLE, read_table
from ..runs.run_folder import flatten
from .train import train

log = logging.getLogger(__name__)
TIMES = {"seconds", "images_per_second", "train_seconds"}  # they differ in every run
CIRCUMSTANCES = ("versions", "hardware", "git", "data")  # of run.json


def reproduce(run: str | Path, run_dir: Path) -> list[str]:
    """Train with the settings of a finished run and compare `results.json` and `metrics.csv`.

    Returns:
        A line for each value that differs; empty where the run is reproduced to the last digit.

    Raises:
        UserError: the run has not been completed, or its settings cannot be read.
    """
    run = Path(run).expanduser()
    status = read_json(run / "results.json").get("status")
    if status != "completed":
        state = f"is {status}" if status else "is not a finished run"
        raise UserError(
            f"{run} {state}: it has no results to compare with.",
            "Give the folder of a completed run.",
        )
    cfg = OmegaConf.create(read_stored_config(run / "config.yaml"))
    cfg.resume = None
    before = _read_values(run)  # and refuse what cannot be compared, before the training
    train(cfg, run_dir)
    for line in compare(_circumstances(run), _circumstances(run_dir)):
        log.info("Other circumstances: %s", line)
    differences = compare(before, _values(run_dir))
    for line in differences:
        log.info("Different: %s", line)
    count = f"{len(differences)} values differ from" if differences else "All values equal"
    log.info("%s those of %s", count, run)
    return differences


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each key with different values."""
    return [
        f"{key} was {before.get(key)} and is {after.get(key)}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]


def _read_values(run: Path) -> dict[str, Any]:
    try:
        return _values(run)
    except UNREADABLE as error:
        raise UserError(
            f"{run / 'metrics.csv'} cannot be read: {' '.join(str(error).split())}.",
            "Give the folder of a run that train.py has written.",
        ) from None


def _values(folder: Path) -> dict[str, Any]:
    """Return all values of `results.json` and `metrics.csv` by name, except for times."""
    values = flatten(read_json(folder / "results.json"))
    for row in read_table(folder / "metrics.csv"):
        values[f"epoch {row.get('epoch')}"] = {key: row[key] for key in row if key not in TIMES}
    return {key: value for key, value in flatten(values).items() if key not in TIMES}


def _circumstances(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "run.json")
    return flatten({key: record.get(key) for key in CIRCUMSTANCES})
