"""A run done again from its folder, and whether it comes to the same figures."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.errors import UserError
from src.run_folder import flat, read_json
from src.training import train

log = logging.getLogger(__name__)
TIMES = {"seconds", "images_per_second", "train_seconds"}  # no two runs share them


def repeat(folder: Path, cfg: DictConfig, new_folder: Path) -> list[str]:
    """Train as `cfg` says and compare with what lies in `folder`.

    Args:
        folder: of a finished run.
        cfg: its config.
        new_folder: where the repetition is written.

    Returns:
        The figures that differ, each with both values; empty where the run repeats to the last digit.

    Raises:
        UserError: the run in `folder` has no figures to compare with.
    """
    status = read_json(folder / "results.json").get("status")
    if status != "completed":
        raise UserError(
            f"{folder} is {status or 'no finished run'}: it has no figures to compare with.", "Give a run that came to its end."
        )
    cfg.resume = None
    train(cfg, new_folder)
    for text in compare(_circumstances(folder), _circumstances(new_folder)):
        log.info("not the same circumstances: %s", text)
    found = compare(_figures(folder), _figures(new_folder))
    for text in found:
        log.info("different: %s", text)
    log.info("%s", f"{len(found)} figures differ" if found else f"All figures are those of {folder}")
    return found


def compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines for the entries that differ."""
    return [f"{key} was {then.get(key)}, is {now.get(key)}" for key in {**then, **now} if then.get(key) != now.get(key)]


def _figures(folder: Path) -> dict[str, Any]:
    """All figures of `results.json` and `metrics.csv` by name, but for times."""
    figures = flat({key: value for key, value in read_json(folder / "results.json").items() if key not in TIMES})
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            figures |= {f"epoch {row['epoch']} {name}": value for name, value in row.items() if name not in TIMES}
    return figures


def _circumstances(folder: Path) -> dict[str, Any]:
    run = read_json(folder / "run.json")
    return flat({key: run.get(key) for key in ("versions", "hardware", "git", "data")})
