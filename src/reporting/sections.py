"""Parts of a report that come from the files of a run folder: curves, settings, environment."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..runs.reading import read_table
from . import plots
from .text import format_duration

GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "task", "trainer")
QUOTED_VALUE = re.compile(r"^([\w.+]+=)'(.*)'$", re.DOTALL)  # quotes for Hydra, not for the shell
PROCESSOR = "{processor}, {cores} cores, {threads} threads"
CURVES = {  # columns of metrics.csv by title; plain modules often log `train_loss`
    "Loss": {"train": ["train/loss", "train_loss"], "val": ["val/loss", "val_loss"]},
    "Accuracy": {"train": ["train/acc", "train_acc"], "val": ["val/acc", "val_acc"]},
    "Learning rate": {"learning rate": ["lr"]},
}
Rows = list[tuple[str, str]]


def learning_curves(table: Path, best_epoch: int | None) -> list[tuple[str, Figure]]:
    """The plots of `CURVES` that metrics.csv has values for; `best_epoch` counts from 0."""
    if not table.is_file():
        return []
    rows = read_table(table)
    best = None if best_epoch is None else best_epoch + 1
    found = []
    for title, columns in CURVES.items():
        series = {name: _points(rows, spellings) for name, spellings in columns.items()}
        if any(series.values()):
            marked = None if title == "Learning rate" else best
            found.append((title, plots.learning_curve(series, marked, title == "Accuracy")))
    return found


def _points(rows: list[dict[str, str]], columns: list[str]) -> list[tuple[float, float]]:
    """(epoch from 1, value) of the rows with a value in one of these columns."""
    cells = [(row["epoch"], row.get(name)) for row in rows for name in columns]
    return [(int(epoch) + 1, float(value)) for epoch, value in cells if value]


def settings_rows(config: Mapping[str, Any]) -> Rows:
    """A line for each config group: its class and the values chosen for it."""
    groups = dict(config)
    if isinstance(config.get("data"), Mapping):
        groups["augment"] = config["data"].get("augment")
    rows = [("run", _chosen(config))]
    for name in GROUPS:
        if isinstance(groups.get(name), Mapping):
            rows.append((name, f"{_class_name(groups[name])}  {_chosen(groups[name])}".strip()))
    return [(name, text) for name, text in rows if text]


def _class_name(node: Mapping[str, Any]) -> str:
    """The class that a config group names, without the suffix of data sets; empty without one."""
    return str(node.get("_target_", "")).rpartition(".")[2].removesuffix("DataModule")


def _chosen(node: Mapping[str, Any]) -> str:
    """Values other than null, false and groups, as key=value."""
    return ", ".join(
        f"{key}={value}"
        for key, value in node.items()
        if key != "_target_" and value not in (None, False) and not isinstance(value, Mapping)
    )


def environment_rows(run: Mapping[str, Any], results: Mapping[str, Any]) -> Rows:
    """When and on what the run ran, from run.json."""
    hardware, data = run.get("hardware", {}), run.get("data", {})
    git = run.get("git") or {}  # None outside a repository
    seconds = results.get("train_seconds")
    rows = {
        "command": _shell_command(run.get("command", [])),
        "started": run.get("start"),
        "ended": run.get("end"),
        "training": None if seconds is None else format_duration(seconds),
        "images": ", ".join(f"{count:,} {split}" for split, count in data.get("sizes", {}).items()),
        "system": hardware.get("system"),
        "processor": PROCESSOR.format_map(hardware) if hardware else None,
        "GPUs": ", ".join(hardware.get("gpus", [])) or "none",
        "precision": run.get("precision"),
        "chosen automatically": _chosen(run.get("automatic", {})),
        "versions": ", ".join(map(" ".join, run.get("versions", {}).items())),
        "git": git.get("commit", "") + (" with changes" if git.get("dirty") else ""),
        "data fingerprint, split": ", ".join(
            filter(None, [data.get("fingerprint"), data.get("split_hash")])
        ),
    }
    return [(name, str(value)) for name, value in rows.items() if value]


def _shell_command(typed: Sequence[str]) -> str:
    """The command to copy into a shell; empty without one."""
    words = [QUOTED_VALUE.sub(r"\1\2", word) for word in typed]
    return shlex.join(["python", *words]) if words else ""
