"""Plots of a run; images come from `image_grid`.

A plot is a matplotlib figure, which `plot_style` saves as SVG, as PNG or as an array.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .image_grid import feature_maps as feature_maps
from .image_grid import image_grid as image_grid
from .plot_style import (
    BLUE,
    FAINT,
    LIGHT,
    LINE,
    ORANGE,
    TEXT,
    WIDTH,
    Points,
    add_legend,
    default_style,
    finish,
    new_figure,
    percent,
)
from .text import format_percent, shorten

NAME_WIDTH = 13  # of a class, in characters
MAX_COUNTED = 30  # classes up to which a confusion matrix shows numbers
MAX_NAMED = 60  # classes up to which it shows names


@default_style()
def learning_curve(
    series: Mapping[str, Points], best: float | None = None, fractions: bool = False
) -> Figure:
    """(epoch, value) pairs by name: the first series is solid, the second one dashed.

    Args:
        best: the best epoch, which is marked.
        fractions: show the values as percentages.
    """
    figure, axes = new_figure(230)
    styles = ((BLUE, "-"), (ORANGE, "--"))
    for (name, points), (colour, dashes) in zip(series.items(), styles, strict=False):
        marker = "o" if len(points) <= 40 else None
        epochs, values = np.reshape(points, (-1, 2)).T
        axes.plot(epochs, values, dashes, color=colour, marker=marker, ms=4, label=name)
    if best is not None:
        axes.axvline(best, color=FAINT, lw=1.5, linestyle=":", zorder=0, label="best epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    finish(axes, "epoch", fractions)
    return figure


@default_style()
def class_bars(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The recall of each class (`analysis.per_class`) as a bar, its precision as a tick."""
    figure, axes = new_figure(18 * len(rows) + 50)
    places = range(len(rows))
    recalls = [row["recall"] or 0.0 for row in rows]
    precisions = np.array([row["precision"] for row in rows], dtype=float)  # None becomes NaN
    axes.barh(places, recalls, height=0.72, color=BLUE, alpha=0.8, label="recall")
    axes.plot(precisions, places, "|", color=ORANGE, ms=15, mew=3, clip_on=False, label="precision")
    for place, row in enumerate(rows):
        axes.text(1.04, place, format_percent(row["recall"]), va="center_baseline")
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[0, 0.5, 1])
    axes.set_yticks(places, [shorten(row["class"], NAME_WIDTH) for row in rows], color=TEXT)
    axes.xaxis.set_major_formatter(percent)
    axes.grid(axis="x")
    add_legend(axes, reverse=True)
    return figure


@default_style()
def confusion_matrix(
    classes: Sequence[str], counts: torch.Tensor, support: torch.Tensor | None = None
) -> Figure:
    """True classes down, predicted ones across, shaded by their fraction of the true class.

    Args:
        counts: int64 (true, predicted).
        support: int64, the images of each class, with those predicted as classes that are not
            shown; the sums of `counts` by default.
    """
    n = len(classes)
    support = counts.sum(1) if support is None else support
    fractions = counts / support.clamp(min=1)[:, None]
    # Misclassifications are few, so that they are shaded more strongly.
    opacity = (0.12 + 2.5 * fractions).clamp(max=1) * (fractions > 0)
    opacity = opacity.diagonal_scatter(fractions.diagonal())
    width = min(max(WIDTH, (23 if n <= MAX_COUNTED else 13) * n + 100), 860)
    figure, axes = new_figure(2 * width, width)
    rgb = torch.tensor([to_rgb(ORANGE), to_rgb(BLUE)])[torch.eye(n, dtype=torch.long)]
    edges = LINE if n <= MAX_NAMED else "none"
    axes.pcolormesh(torch.cat([rgb, opacity[..., None]], 2), edgecolors=edges, lw=1)
    axes.set(xlim=(0, max(n, 6)), ylim=(n, 0), xticks=[], yticks=[], aspect="equal", anchor="NW")
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted across, true down", loc="left", labelpad=8)
    if n <= MAX_NAMED:
        middles = torch.arange(n) + 0.5
        names = [shorten(name, NAME_WIDTH) for name in classes]
        axes.set_yticks(middles, names, color=TEXT)
        turned = {"rotation": 55, "ha": "left", "rotation_mode": "anchor"}
        axes.set_xticks(middles, names, color=TEXT, **turned)
    if n <= MAX_COUNTED:
        _write_counts(axes, counts, opacity)
    figure.draw_without_rendering()  # square cells and the names decide on the height
    figure.set_figheight(axes.get_tightbbox().height / 72 + 0.15)
    return figure


def _write_counts(axes: Axes, counts: torch.Tensor, opacity: torch.Tensor) -> None:
    for true, predicted in counts.nonzero().tolist():
        count = int(counts[true, predicted])
        text = f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"
        colour = LIGHT["on-colour"] if opacity[true, predicted] > 0.6 else TEXT
        axes.text(predicted + 0.5, true + 0.53, text, color=colour, ha="center", va="center")


@default_style()
def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy and mean confidence of `analysis.calibration_bins`; below it their images."""
    figure, (axes, below) = new_figure(310, nrows=2, sharex=True, height_ratios=[4, 1])
    middles = [(row["low"] + row["high"]) / 2 for row in bins]
    width = 0.92 / len(bins)
    accuracies = [row["accuracy"] or 0 for row in bins]
    axes.bar(middles, accuracies, width, color=BLUE, alpha=0.8, label="accuracy")
    confidences = np.array([row["confidence"] for row in bins], dtype=float)  # None becomes NaN
    axes.plot(middles, confidences, "_", color=ORANGE, ms=18, mew=3, label="mean confidence")
    axes.plot([0, 1], [0, 1], ":", color=FAINT, lw=1)
    below.bar(middles, [row["count"] for row in bins], width, color=BLUE, alpha=0.4)
    below.axhline(0, color=LINE)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
    below.set(xlabel="confidence, and the number of images with it", yticks=[])
    axes.yaxis.set_major_formatter(percent)
    below.xaxis.set_major_formatter(percent)
    axes.grid(axis="y")
    add_legend(axes, reverse=True)
    return figure
