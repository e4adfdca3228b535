"""Parts of a report that come from the files of a run folder: metrics, settings, environment."""

import csv
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from . import plots
from .text import format_duration, format_percent

GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "task", "trainer")
QUOTED_VALUE = re.compile(r"^([\w.+]+=)'(.*)'$", re.DOTALL)  # quotes for Hydra, not for the shell

Rows = list[tuple[str, str]]


class Card(NamedTuple):
    """A value that people look for first, with an optional remark."""

    name: str
    value: str
    note: str = ""


def metric_cards(results: Mapping[str, Any], extra_metrics: Iterable[str]) -> list[Card]:
    """The metrics of the last split that was evaluated, then facts of the training.

    Args:
        results: content of results.json.
        extra_metrics: names of metrics beside loss and accuracy.
    """
    split = "test" if results.get("test") else "val"
    metrics = results.get(split) or {}
    cards = _accuracy_cards(split, metrics)
    cards += [
        Card(f"{split} {name}", f"{metrics[name]:.4f}") for name in extra_metrics if name in metrics
    ]
    val = results.get("val") or {}
    if split == "test" and {"acc", "loss"} <= set(val):
        cards.append(Card("val accuracy", format_percent(val["acc"], 2), f"loss {val['loss']:.4f}"))
    return cards + _training_cards(results)


def _accuracy_cards(split: str, metrics: Mapping[str, Any]) -> list[Card]:
    interval = ""
    if "acc_low" in metrics:
        low, high = 100 * metrics["acc_low"], 100 * metrics["acc_high"]
        interval = f"{low:.1f} to {high:.1f} % (95 %)"
    cards = {
        "acc": (f"{split} accuracy", interval),
        "loss": (f"{split} loss", ""),
        "acc_balanced": ("balanced accuracy", "mean over the classes"),
        "acc_top5": ("top-5 accuracy", ""),
        "ece": ("calibration error", "distance of accuracy from confidence"),
    }
    shown = []
    for key, (name, note) in cards.items():
        if key in metrics:
            value = metrics[key]
            text = f"{value:.4f}" if key == "loss" else format_percent(value, 2)
            shown.append(Card(name, text, note))
    return shown


def _training_cards(results: Mapping[str, Any]) -> list[Card]:
    cards = []
    if results.get("best_epoch") is not None:
        monitor = results.get("monitor", "val/loss")
        note = f"of {results.get('epochs')}, by {monitor}"
        cards.append(Card("best epoch", str(results["best_epoch"] + 1), note))
    if results.get("train_seconds") is not None:
        speed = results.get("images_per_second")
        note = f"{speed:,.0f} images/s" if speed is not None else ""
        cards.append(Card("training", format_duration(results["train_seconds"]), note))
    if results.get("num_parameters") is not None:
        cards.append(Card("parameters", f"{results['num_parameters']:,}"))
    return cards


def learning_curves(table: Path, best_epoch: int | None) -> list[tuple[str, Figure]]:
    """Plots of loss, accuracy and learning rate, each where it was recorded, with their titles.

    Args:
        table: metrics.csv.
        best_epoch: from 0, or None.
    """
    if not table.is_file():
        return []
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = None if best_epoch is None else best_epoch + 1
    found = []
    for title, name in (("Loss", "loss"), ("Accuracy", "acc")):
        # Plain LightningModules often log `train_loss` in place of `train/loss`.
        columns = {s: _points(rows, f"{s}/{name}", f"{s}_{name}") for s in ("train", "val")}
        if any(columns.values()):
            figure = plots.learning_curve(columns, best, fractions=name == "acc")
            found.append((title, figure))
    rate = _points(rows, "lr")
    if rate:
        found.append(("Learning rate", plots.learning_curve({"learning rate": rate})))
    return found


def _points(rows: Sequence[Mapping[str, str]], *names: str) -> list[tuple[float, float]]:
    """(epoch from 1, value) of the rows with a value in one of these columns."""
    points: list[tuple[float, float]] = []
    for row in rows:
        values = [row[name] for name in names if row.get(name)]
        if values:
            points.append((int(row["epoch"]) + 1, float(values[0])))
    return points


def settings_rows(config: Mapping[str, Any]) -> Rows:
    """A line for each config group: its class and the values chosen for it."""
    ungrouped = {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    groups = dict(config)
    if isinstance(config.get("data"), Mapping):
        groups["augment"] = config["data"].get("augment")
    rows = [("run", _chosen(ungrouped))]
    for name in GROUPS:
        group = groups.get(name)
        if isinstance(group, Mapping):
            rows.append((name, f"{class_name(group)}  {_chosen(group)}".strip()))
    return [(name, text) for name, text in rows if text]


def class_name(node: Any) -> str:
    """The class that a config group names, without the suffix of data sets; empty without one."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target or "").rpartition(".")[2].removesuffix("DataModule")


def _chosen(node: Mapping[str, Any]) -> str:
    """Values other than null, false and groups, as key=value."""
    return ", ".join(
        f"{key}={value}"
        for key, value in node.items()
        if key != "_target_" and value not in (None, False) and not isinstance(value, Mapping)
    )


def environment_rows(run: Mapping[str, Any], results: Mapping[str, Any]) -> Rows:
    """When and on what the run ran, from run.json."""
    hardware, data, git = (run.get(key) or {} for key in ("hardware", "data", "git"))
    command = [QUOTED_VALUE.sub(r"\1\2", word) for word in run.get("command") or []]
    seconds = results.get("train_seconds")
    sizes = data.get("sizes") or {}
    versions = run.get("versions") or {}
    identity = [data[key] for key in ("fingerprint", "split_hash") if data.get(key)]
    rows = {
        "command": shlex.join(["python", *command]) if command else None,
        "started": run.get("start"),
        "ended": run.get("end"),
        "training": format_duration(seconds) if seconds is not None else None,
        "images": ", ".join(f"{count:,} {split}" for split, count in sizes.items()),
        "system": hardware.get("system"),
        "processor": _processor(hardware),
        "GPUs": ", ".join(hardware.get("gpus") or []) or "none",
        "precision": run.get("precision"),
        "chosen automatically": _chosen(run.get("automatic") or {}),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "git": f"{git.get('commit', '')}{' with changes' if git.get('dirty') else ''}",
        "data fingerprint, split": ", ".join(identity),
    }
    return [(name, str(value)) for name, value in rows.items() if value]


def _processor(hardware: Mapping[str, Any]) -> str:
    if not hardware:
        return ""
    name, cores, threads = (hardware.get(key) for key in ("processor", "cores", "threads"))
    return f"{name}, {cores} cores, {threads} threads"
