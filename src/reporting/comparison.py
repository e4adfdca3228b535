"""A comparison of settings in words, on the console and as a page."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..runs.reading import UNREADABLE, read_table
from .html import render, save_plot
from .plot_style import (
    FAINT,
    TEXT,
    add_legend,
    default_style,
    empty_figure,
    finish,
    new_figure,
    percent,
)
from .plots import NAME_WIDTH
from .text import format_number, render_table, shorten

log = logging.getLogger(__name__)
ALPHA = 0.05
MAX_CHANGED = 50  # images on the page; changed.csv has all
MAX_CLASSES = 30
SHOWN_METRICS = ("acc", "acc_balanced", "f1", "log_loss")

Table = tuple[list[str], list[list[Any]]]  # columns, rows


def describe_pair(pair: Mapping[str, Any]) -> str:
    """What a comparison of two groups shows, in one sentence, and what it does not show."""
    first, second = pair["first"], pair["second"]
    over_seeds = pair["seeds"]
    found = over_seeds["acc"] if over_seeds else pair["images"]["acc"]
    points = f"{100 * found['difference']:+.2f} points"
    if found["low"] is not None:
        points += f" (95 %: {100 * found['low']:+.2f} to {100 * found['high']:+.2f})"
    test = over_seeds["acc"]["test"] if over_seeds else "McNemar's exact test"
    n = " and ".join(str(count) for count in dict.fromkeys(pair["n"]))
    basis = f"{test}, n = {n}" + (" seeds" if over_seeds else "")
    if pair["p_corrected"] is None:
        return f"{second} against {first}: {points}; the values do not vary, so nothing is tested."
    p = f"p = {pair['p_corrected']:.2g}"
    if pair["p_corrected"] >= ALPHA:
        text = (
            f"No difference of {second} from {first} shown with n = {n}: {points}, {p} ({basis})."
        )
        few = (
            " So few seeds show large differences only."
            if over_seeds and min(pair["n"]) < 5
            else ""
        )
        return text + few
    side = "higher" if found["difference"] > 0 else "lower"
    text = f"{second} has a {side} accuracy than {first}: {points}, {p} ({basis})."
    if not over_seeds:
        text += " This holds for these two trained networks; other seeds may differ."
    return text


def group_table(comparison: Mapping[str, Any]) -> Table:
    """A row for each group: its settings and the means of its metrics."""
    groups = comparison["groups"]
    keys = list(groups[0]["settings"])
    columns = ["", *keys, "n"]
    rows = [[g["name"], *(_setting(g["settings"][key]) for key in keys), g["n"]] for g in groups]
    for name in SHOWN_METRICS:
        columns.append(name)
        for row, group in zip(rows, groups, strict=True):
            row.append(_with_std(group["metrics"][name]))
    return columns, rows


def pair_table(comparison: Mapping[str, Any], metrics: Sequence[str] = SHOWN_METRICS) -> Table:
    """A row for each pair and metric: the difference, its interval and the p-values."""
    columns = ["", "metric", "difference", "95 % over images", "over seeds", "p", "p corrected"]
    rows = []
    for pair in comparison["pairs"]:
        for name in metrics:
            images, seeds = pair["images"][name], (pair["seeds"] or {}).get(name)
            is_tested = name == "acc"
            p = pair["p"] if is_tested else (seeds or {}).get("p")
            rows.append(
                [
                    f"{pair['second']} - {pair['first']}",
                    name,
                    f"{images['difference']:+.4f}",
                    _interval(images),
                    _interval(seeds) if seeds else "",
                    "" if p is None else f"{p:.2g}",
                    f"{pair['p_corrected']:.2g}" if is_tested and p is not None else "",
                ]
            )
    return columns, rows


def log_comparison(comparison: Mapping[str, Any]) -> None:
    """Log both tables and the conclusions."""
    for columns, rows in (group_table(comparison), pair_table(comparison, ("acc",))):
        log.info("%s\n", render_table(columns, rows))
    for pair in comparison["pairs"]:
        log.info("%s", pair["conclusion"])


def write_comparison_page(
    folder: Path, comparison: Mapping[str, Any], changed: Sequence[Mapping[str, str]]
) -> None:
    """Write `comparison.html`, and its plots as `plots/*.png`.

    Args:
        changed: the images that only one of two groups classifies correctly.
    """
    curves = {
        title: learning_curves(comparison["groups"], column, column.endswith("acc"))
        for title, column in (("Validation loss", "val/loss"), ("Validation accuracy", "val/acc"))
    }
    figures = {**curves, "Accuracy of the classes": class_differences(comparison["groups"])}
    page = {
        "name": folder.name,
        "comparison": comparison,
        "tables": [
            ("Settings", *group_table(comparison)),
            ("Differences", *pair_table(comparison)),
        ],
        "plots": [(title, save_plot(folder, title, figure)) for title, figure in figures.items()],
        "changed": [
            [f"{row['first']}, {row['second']}", *list(row.values())[2:]]
            for row in changed[:MAX_CHANGED]
        ],
        "num_changed": len(changed),
    }
    render(folder / "comparison.html", "comparison.html.jinja", page)


@default_style()
def learning_curves(
    groups: Sequence[Mapping[str, Any]], column: str, fractions: bool = False
) -> Figure:
    """A column of metrics.csv of all runs over the epochs, in one colour for each group."""
    figure, axes = new_figure(230)
    for i, group in enumerate(groups):
        label = group["name"]
        for folder in group["folders"]:
            points = _curve(Path(folder) / "metrics.csv", column)
            if points:
                axes.plot(*zip(*points, strict=True), color=f"C{i}", lw=1.5, label=label)
                label = None  # once in the legend
    if not axes.lines:
        return empty_figure()
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    finish(axes, "epoch", fractions)
    return figure


def _curve(table: Path, column: str) -> list[tuple[int, float]]:
    """(epoch from 1, value) pairs; folders of evaluate.py have none."""
    try:
        cells = [(row["epoch"], row.get(column)) for row in read_table(table)]
        return [(int(epoch) + 1, float(value)) for epoch, value in cells if value]
    except (*UNREADABLE, KeyError):
        return []


@default_style()
def class_differences(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """The accuracy of each class in each group: a point for each, the largest differences first."""
    classes = groups[0]["per_class"]
    values = np.array([[each["per_class"][name] for name in classes] for each in groups])
    order = np.argsort(-np.ptp(values, axis=0), kind="stable")[:MAX_CLASSES]
    figure, axes = new_figure(18 * len(order) + 60)
    for i, group in enumerate(groups):
        axes.plot(values[i, order], range(len(order)), "o", color=f"C{i}", label=group["name"])
    places = range(len(order))
    axes.hlines(places, values[:, order].min(0), values[:, order].max(0), color=FAINT, lw=1)
    axes.set_yticks(places, [shorten(list(classes)[i], NAME_WIDTH) for i in order], color=TEXT)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(percent)
    axes.grid(axis="x")
    add_legend(axes)
    return figure


def _setting(value: Any) -> str:
    text = format_number(value)
    return text.rpartition(".")[2] if text.startswith("src.") else text


def _with_std(metric: Mapping[str, float | None]) -> str:
    std = "" if metric["std"] is None else f" ± {metric['std']:.4f}"
    return f"{metric['mean']:.4f}{std}"


def _interval(found: Mapping[str, Any]) -> str:
    return "" if found["low"] is None else f"{found['low']:+.4f} to {found['high']:+.4f}"
