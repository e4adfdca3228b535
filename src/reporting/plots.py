"""Plots of a run; images come from `image_grid`.

A plot is a matplotlib figure, which `plot_style` saves as SVG, as PNG or as an array.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

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
    add_axes,
    add_grid,
    add_legend,
    default_style,
    empty_figure,
    format_values,
    new_figure,
    text_width,
    write,
)
from .text import format_percent, shorten

Points = Sequence[tuple[float, float]]
BAR_HEIGHT = 18  # of the row of a class, in units
NAME_WIDTH = 13  # of a class, in characters
MAX_COUNTED = 30  # classes up to which a confusion matrix shows numbers
MAX_NAMED = 60  # classes up to which it shows names


@default_style()
def learning_curve(
    series: Mapping[str, Points], best: float | None = None, fractions: bool = False
) -> Figure:
    """Values by epoch: the first series is solid, the second one dashed.

    Args:
        series: (epoch, value) pairs by name; values that are not finite are left out.
        best: the best epoch, which is marked.
        fractions: show the values as percentages.
    """
    finite = {name: [(x, y) for x, y in ps if math.isfinite(y)] for name, ps in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return empty_figure()
    figure, axes = new_figure(230, left=48, right=12, top=26, bottom=40)
    styles = ((BLUE, "solid"), (ORANGE, (0, (4, 2))))
    for (name, points), (colour, dashes) in zip(finite.items(), styles, strict=False):
        marker = "o" if len(points) <= 40 else None
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=colour, linestyle=dashes, marker=marker, ms=3.5, lw=2, label=name)
    if best is not None:
        axes.axvline(best, color=FAINT, lw=1.5, linestyle=(0, (1, 2)), zorder=0, label="best epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", color=FAINT)
    format_values(axes, fractions)
    add_grid(axes)
    add_legend(axes, handlelength=2)
    return figure


@default_style()
def class_bars(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The recall of each class as a bar and its precision as a tick across it.

    Args:
        rows: from `analysis.per_class`.
    """
    height = BAR_HEIGHT * len(rows) + 50
    figure, axes = new_figure(height, left=112, right=56, top=24, bottom=26)
    places = range(len(rows))
    recalls = [row["recall"] or 0.0 for row in rows]
    precisions = [row["precision"] for row in rows]
    axes.barh(places, recalls, height=0.72, color=BLUE, alpha=0.8, label="recall")
    axes.plot(precisions, places, "|", color=ORANGE, ms=15, mew=3, clip_on=False, label="precision")
    for place, row in enumerate(rows):
        write(axes, format_percent(row["recall"]), (1, place), (9, 0), va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([0, 0.5, 1], [format_percent(x, 0) for x in (0, 0.5, 1)])
    axes.set_yticks(places, [shorten(row["class"], NAME_WIDTH) for row in rows])
    axes.tick_params("y", labelcolor=TEXT)
    add_grid(axes, "x")
    add_legend(axes, handlelength=1.2, reverse=True)
    return figure


@default_style()
def confusion_matrix(
    classes: Sequence[str], counts: torch.Tensor, support: torch.Tensor | None = None
) -> Figure:
    """True classes down, predicted ones across, shaded by their fraction of the true class.

    Up to 60 classes have names, up to 30 also numbers; more than that would be unreadable.

    Args:
        classes: the classes that are shown.
        counts: int64 (true, predicted) of them.
        support: int64, the images of each of them, including those predicted as classes that
            are not shown; the sums of `counts` by default.
    """
    n = len(classes)
    support = counts.sum(1) if support is None else support
    opacity = _shade(counts / support.clamp(min=1)[:, None])
    longest = max(map(cell_len, classes)) if n <= MAX_NAMED else 0
    name_width = text_width("x" * min(longest, NAME_WIDTH))
    left = 12 + name_width
    top = 34 + 0.82 * name_width  # the names above are turned by 55 degrees
    side = _cell_side(n, left)
    right = max(WIDTH - left - side * n, 0.57 * name_width - side / 2 + 4, 4)
    width, height = left + side * n + right, top + side * n + 4
    figure, axes = new_figure(height, left, right, top, 4, width)
    axes.pcolormesh(_cell_colours(opacity), edgecolors=LINE if n <= MAX_NAMED else "none", lw=1)
    axes.set_ylim(n, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.text(4 / width, 1 - 13 / height, "predicted across, true down", color=FAINT)
    if longest:
        _write_classes(axes, classes)
    if n <= MAX_COUNTED:
        _write_counts(axes, counts, opacity)
    return figure


def _shade(fractions: torch.Tensor) -> torch.Tensor:
    """Opacity by the fraction of the class; misclassifications are few and shaded to be seen."""
    opacity = (0.12 + 2.5 * fractions).clamp(max=1) * (fractions > 0)
    return torch.where(torch.eye(len(fractions), dtype=torch.bool), fractions, opacity)


def _cell_side(n: int, left: float) -> float:
    if n <= MAX_COUNTED:
        return min(max((WIDTH - left - 24) / n, 23), 60)
    return 13 if n <= MAX_NAMED else max(700 / n, 0.75)


def _cell_colours(opacity: torch.Tensor) -> torch.Tensor:
    """RGBA, float (true, predicted, 4)."""
    n = len(opacity)
    rgb = torch.tensor([to_rgb(ORANGE), to_rgb(BLUE)])[torch.eye(n, dtype=torch.long)]
    return torch.cat([rgb, opacity[..., None]], 2)


def _write_classes(axes: Axes, classes: Sequence[str]) -> None:
    names = [shorten(name, NAME_WIDTH) for name in classes]
    middles = [i + 0.5 for i in range(len(names))]
    axes.set_yticks(middles, names)
    axes.tick_params("y", labelcolor=TEXT)
    for middle, name in zip(middles, names, strict=True):
        write(axes, name, (middle, 0), (0, 5), rotation=55, rotation_mode="anchor")


def _write_counts(axes: Axes, counts: torch.Tensor, opacity: torch.Tensor) -> None:
    for true, predicted in counts.nonzero().tolist():
        count = int(counts[true, predicted])
        colour = LIGHT["on-colour"] if opacity[true, predicted] > 0.6 else TEXT
        text = f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"
        axes.text(predicted + 0.5, true + 0.53, text, color=colour, ha="center", va="center")


@default_style()
def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against mean confidence in each bin, and below it the images in the bin.

    Args:
        bins: from `analysis.calibration_bins`.
    """
    figure, axes = new_figure(310, left=48, right=18, top=26, bottom=98)
    below = add_axes(figure, left=48, right=18, top=222, bottom=40)
    for row in bins:
        middle, width = (row["low"] + row["high"]) / 2, 0.92 * (row["high"] - row["low"])
        below.bar(middle, row["count"], width, color=BLUE, alpha=0.4)
        if row["count"]:
            axes.bar(middle, row["accuracy"], width, color=BLUE, alpha=0.8)
            axes.plot(middle, row["confidence"], "_", color=ORANGE, ms=20, mew=3)
    axes.bar(0, 0, color=BLUE, alpha=0.8, label="accuracy")
    axes.plot([], [], color=ORANGE, lw=3, label="mean confidence")
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1, linestyle=(0, (1, 2)))
    labels = [0, 0.25, 0.5, 0.75, 1]
    axes.set_yticks(labels, [format_percent(value, 0) for value in labels])
    axes.set_ylim(0, 1)
    below.set_xticks(labels, [format_percent(value, 0) for value in labels])
    axes.set_xticks([])
    below.set_yticks([])
    for ax in (axes, below):
        ax.set_xlim(0, 1)
    below.axhline(0, color=LINE)
    below.set_xlabel("confidence, and the number of images with it", color=FAINT)
    add_grid(axes)
    add_legend(axes, handlelength=1.2, reverse=True)
    return figure
