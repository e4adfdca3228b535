"""Plots of a sweep, of a search and of a learning rate range test."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

from .plot_style import BLUE, ORANGE, TEXT, Points, default_style, empty_figure, finish, new_figure
from .text import format_number, format_percent, shorten


@default_style()
def metric_by_setting(points: Sequence[tuple[str, float]], key: str) -> Figure:
    """A metric of several runs against one of their settings, and a line through the means.

    Numbers are placed by their value, by its logarithm where they span a power of ten; words
    stand side by side.

    Args:
        points: (setting as it was typed, fraction); values that are not finite are left out.
    """
    table = pd.DataFrame(points, columns=["setting", "value"])
    table = table[np.isfinite(table["value"].astype(float))]
    if table.empty:
        return empty_figure()
    places = _places(sorted(set(table["setting"])))
    table = table.assign(place=table["setting"].map(places))
    means = table.groupby("place")["value"].mean()
    figure, axes = new_figure(210)
    axes.plot(means.index, means, "--", color=ORANGE)
    axes.plot(table["place"], table["value"], "o", color=BLUE, ms=8, mew=0, alpha=0.75)
    axes.set_xlim(-0.05, 1.05)
    labels = _readable(places)
    axes.set_xticks(list(labels), list(labels.values()))
    finish(axes, shorten(key, 50), fractions=True)
    return figure


def _places(settings: Sequence[str]) -> dict[str, float]:
    """Where each value of a setting stands on an axis from 0 to 1."""
    try:
        numbers = np.array(settings, dtype=float)
    except ValueError:
        numbers = np.arange(len(settings), dtype=float)
    if 0 < 10 * numbers.min() <= numbers.max():
        numbers = np.log(numbers)
    if np.ptp(numbers) == 0:
        return dict.fromkeys(settings, 0.5)
    places = (numbers - numbers.min()) / np.ptp(numbers)
    return dict(zip(settings, places.tolist(), strict=True))


def _readable(places: Mapping[str, float]) -> dict[float, str]:
    """The labels of those settings that do not overlap, by their places."""
    labels: dict[float, str] = {}
    end = -math.inf
    for setting, place in sorted(places.items(), key=lambda item: item[1]):
        label = shorten(format_number(setting), 14)
        half = cell_len(label) / 90  # the axis is at least 45 characters wide
        if place - half > end:
            labels[place] = label
            end = place + half
    return labels


@default_style()
def search_history(points: Points) -> Figure:
    """The validation loss of each trial of a search, and the lowest one so far as a line.

    Losses far above the others are drawn at the upper edge; those that are not finite are left out.
    """
    points = [(trial, loss) for trial, loss in points if math.isfinite(loss)]
    if not points:
        return empty_figure()
    trials, losses = np.array(points).T
    low, median = losses.min(), np.median(losses)
    if median > low:
        losses = losses.clip(max=median + 3 * (median - low))
    lowest = np.minimum.accumulate(losses)
    figure, axes = new_figure(230)
    axes.plot(trials, losses, "o", color=BLUE, ms=7, mew=0, alpha=0.75, label="trial")
    axes.plot(trials, lowest, color=ORANGE, drawstyle="steps-post", label="lowest so far")
    axes.margins(y=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    finish(axes, "trial")
    return figure


@default_style()
def importances(fractions: Mapping[str, float]) -> Figure:
    """The importance of each setting of a search, as a fraction of the whole, as a bar."""
    figure, axes = new_figure(20 * len(fractions) + 8)
    places = range(len(fractions))
    bars = axes.barh(places, list(fractions.values()), height=0.7, color=BLUE, alpha=0.8)
    axes.bar_label(bars, list(map(format_percent, fractions.values())), padding=6)
    axes.set(xlim=(0, 1), ylim=(len(fractions) - 0.5, -0.5), xticks=[])
    axes.set_yticks(places, [shorten(name, 22) for name in fractions], color=TEXT)
    return figure


@default_style()
def lr_curve(points: Points, smoothed: Points, suggestion: float) -> Figure:
    """Training loss against a rising learning rate, and the rate that is suggested.

    Losses far above the first smoothed one are drawn at the upper edge.

    Args:
        points: (learning rate, loss of the batch).
        smoothed: (learning rate, smoothed loss).
    """
    rates, losses = np.array([point for point in points if math.isfinite(point[1])]).T
    smooth_rates, smooth_losses = np.array(smoothed).T
    first = smooth_losses[0]
    high = first + 0.5 * (first - min(losses.min(), smooth_losses.min()))
    figure, axes = new_figure(230)
    axes.plot(rates, losses.clip(max=high), "o", color=BLUE, ms=4, mew=0, alpha=0.5, label="batch")
    axes.plot(smooth_rates, smooth_losses.clip(max=high), color=ORANGE, label="smoothed")
    axes.axvline(suggestion, color=BLUE, label=f"suggestion: {suggestion:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    finish(axes, "learning rate")
    return figure
