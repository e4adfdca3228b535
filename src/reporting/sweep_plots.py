"""Plots of a sweep, of a search and of a learning rate range test."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .plot_style import (
    BLUE,
    FAINT,
    ORANGE,
    TEXT,
    WIDTH,
    add_grid,
    add_legend,
    default_style,
    empty_figure,
    format_values,
    new_figure,
    text_width,
    write,
)
from .text import format_number, format_percent, shorten

Points = Sequence[tuple[float, float]]
LABEL_WIDTH = 14  # of a value of a setting, in characters


@default_style()
def metric_by_setting(points: Sequence[tuple[str, float]], key: str) -> Figure:
    """A metric of several runs against one of their settings, and a line through the means.

    Numbers are placed by their value, by its logarithm where they span a power of ten; words
    stand side by side.

    Args:
        points: (setting as it was typed, fraction); values that are not finite are left out.
        key: the name of the setting.
    """
    points = [(setting, value) for setting, value in points if math.isfinite(value)]
    if not points:
        return empty_figure()
    figure, axes = new_figure(210, left=56, right=18, top=12, bottom=44)
    places = _places(sorted({setting for setting, _ in points}))
    ordered = sorted(places, key=lambda setting: places[setting])
    values: dict[str, list[float]] = {setting: [] for setting in ordered}
    for setting, value in points:
        values[setting].append(value)
    means = [sum(group) / len(group) for group in values.values()]
    axes.plot([places[s] for s in values], means, color=ORANGE, lw=2, linestyle=(0, (4, 2)))
    for setting, group in values.items():
        axes.plot([places[setting]] * len(group), group, "o", color=BLUE, ms=8, mew=0, alpha=0.75)
    axes.set_xlim(-0.05, 1.05)
    labels = _readable(places, width=WIDTH - 56 - 18)
    axes.set_xticks([places[s] for s in labels], list(labels.values()))
    axes.set_xlabel(shorten(key, 50), color=FAINT)
    format_values(axes, fractions=True)
    add_grid(axes)
    return figure


def _places(settings: Sequence[str]) -> dict[str, float]:
    """Where each value of a setting stands on an axis from 0 to 1."""
    try:
        numbers = [float(setting) for setting in settings]
    except ValueError:
        numbers = [float(i) for i in range(len(settings))]
    if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
        numbers = [math.log(number) for number in numbers]
    low, high = min(numbers), max(numbers)
    if low == high:
        return dict.fromkeys(settings, 0.5)
    return {s: (x - low) / (high - low) for s, x in zip(settings, numbers, strict=True)}


def _readable(places: Mapping[str, float], width: float) -> dict[str, str]:
    """The labels of those settings that do not overlap, in the order of their places."""
    labels: dict[str, str] = {}
    end = -math.inf
    for setting, place in sorted(places.items(), key=lambda item: item[1]):
        label = shorten(format_number(setting), LABEL_WIDTH)
        half = text_width(label) / 2
        if place * width - half > end:
            labels[setting] = label
            end = place * width + half + 4
    return labels


@default_style()
def search_history(points: Points) -> Figure:
    """The validation loss of each trial of a search, and the lowest one so far as a line.

    Losses far above the others are drawn at the upper edge, where they do not flatten the rest.

    Args:
        points: (number of the trial, loss) in this order; losses that are not finite are left out.
    """
    points = [(trial, loss) for trial, loss in points if math.isfinite(loss)]
    if not points:
        return empty_figure()
    losses = sorted(loss for _, loss in points)
    low, median, high = losses[0], losses[len(losses) // 2], losses[-1]
    if median > low:
        high = min(high, median + 3 * (median - low))
    figure, axes = new_figure(230, left=48, right=12, top=26, bottom=40)
    trials = [trial for trial, _ in points]
    shown = [min(loss, high) for _, loss in points]
    lowest = [min(shown[: i + 1]) for i in range(len(shown))]
    axes.plot(trials, shown, "o", color=BLUE, ms=7, mew=0, alpha=0.75, label="trial")
    axes.plot(trials, lowest, color=ORANGE, lw=2, drawstyle="steps-post", label="lowest so far")
    axes.margins(y=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("trial", color=FAINT)
    format_values(axes, fractions=False)
    add_grid(axes)
    add_legend(axes, handlelength=1.5)
    return figure


@default_style()
def importances(fractions: Mapping[str, float]) -> Figure:
    """The importance of each setting of a search as a bar.

    Args:
        fractions: parts of the whole by the name of the setting.
    """
    figure, axes = new_figure(20 * len(fractions) + 8, left=162, right=50, top=4, bottom=4)
    places = range(len(fractions))
    axes.barh(places, list(fractions.values()), height=0.7, color=BLUE, alpha=0.8)
    for place, fraction in enumerate(fractions.values()):
        write(axes, format_percent(fraction), (fraction, place), (6, 0), va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(fractions) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(places, [shorten(name, 22) for name in fractions])
    axes.tick_params("y", labelcolor=TEXT)
    return figure


@default_style()
def lr_curve(points: Points, smoothed: Points, suggestion: float) -> Figure:
    """Training loss against a rising learning rate, and the rate that is suggested.

    Args:
        points: (learning rate, loss of the batch); losses far above the first smoothed one are
            drawn at the upper edge.
        smoothed: (learning rate, smoothed loss).
        suggestion: a learning rate.
    """
    points = [(rate, loss) for rate, loss in points if math.isfinite(loss)]
    low = min(loss for _, loss in [*points, *smoothed])
    high = smoothed[0][1] + 0.5 * (smoothed[0][1] - low)
    figure, axes = new_figure(230, left=48, right=18, top=26, bottom=40)
    rates, losses = zip(*points, strict=True)
    shown = [min(loss, high) for loss in losses]
    axes.plot(rates, shown, "o", color=BLUE, ms=4, mew=0, alpha=0.5, label="batch")
    rates, losses = zip(*smoothed, strict=True)
    axes.plot(rates, [min(loss, high) for loss in losses], color=ORANGE, lw=2, label="smoothed")
    axes.axvline(suggestion, color=BLUE, lw=2, label=f"suggestion: {suggestion:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    axes.minorticks_off()
    axes.set_xlabel("learning rate", color=FAINT)
    format_values(axes, fractions=False)
    add_grid(axes)
    add_legend(axes, handlelength=1.2)
    return figure
