"""Plots: well-formed SVG for any value and name, in the colours of the page; images as arrays."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from src.reporting import plots, sweep_plots
from src.reporting.plot_style import BLUE, LIGHT, to_array, to_png, to_svg

NAMES = ["<b>&amp;", "猫和狗", "$x$ \\alpha", "\x1b[1m\x00", "a" * 300, '"']


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


ROWS = [
    {"class": name, "support": i, "precision": 0.5, "recall": 1 / i if i else None, "f1": 0.5}
    for i, name in enumerate(NAMES)
]
BINS = [
    {"low": i / 15, "high": (i + 1) / 15, "count": i, "confidence": i / 15, "accuracy": 0.5}
    for i in range(15)
]
BINS[0] |= {"confidence": None, "accuracy": None}
RATES = [(10**-i, 1.0 + i) for i in range(5, 0, -1)]
PLOTS = {
    "curve": lambda: plots.learning_curve({"train": [(1, 0.5), (2, 0.4)], "val": [(1, 0.3)]}, 1),
    "bars": lambda: plots.class_bars(ROWS),
    "matrix": lambda: plots.confusion_matrix(NAMES, torch.arange(36).view(6, 6)),
    "reliability": lambda: plots.reliability_diagram(BINS),
    "numbers": lambda: sweep_plots.metric_by_setting(
        [("0.1", 0.5), ("0.01", 0.7), ("1e-3", 0)], "lr"
    ),
    "words": lambda: sweep_plots.metric_by_setting([(name, 0.5) for name in NAMES], "<name>"),
    "history": lambda: sweep_plots.search_history([(0, 1.0), (1, float("nan")), (2, 100.0)]),
    "importances": lambda: sweep_plots.importances(dict.fromkeys(NAMES, 0.1)),
    "lr": lambda: sweep_plots.lr_curve(RATES, RATES, 1e-3),
}


@pytest.mark.parametrize("name", PLOTS)
def test_any_plot_is_a_themed_well_formed_svg(name):
    svg = to_svg(PLOTS[name](), '<"label">')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == '<"label">'
    assert "var(--" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg.replace("#ffffff", "")), "a colour without a name"
    assert "font-family" not in svg and "DejaVu" not in svg
    assert "\x1b" not in svg and "<b>" not in svg


def test_names_stay_text():
    svg = to_svg(plots.confusion_matrix(NAMES, torch.eye(6, dtype=torch.long)), "Confusion matrix")
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    for name in ("<b>&amp;", "猫和狗", "$x$ \\alpha", "\\x1b[1m\\x00", '"'):
        assert name in texts


def test_odd_values():
    for points in (
        [],
        [(1, 0.5)],
        [(1, float("nan")), (2, 1.0)],
        [(1, 0.0), (2, 0.0)],
        [(i, 1e9 * i) for i in range(2000)],
    ):
        svg = to_svg(plots.learning_curve({"train": points, "val": points}, best=1), "Loss")
        ElementTree.fromstring(svg)
        assert "nan" not in svg and len(svg) < 40_000
    ElementTree.fromstring(to_svg(sweep_plots.metric_by_setting([], "lr"), ""))
    ElementTree.fromstring(to_svg(sweep_plots.search_history([(0, float("inf"))]), ""))


def test_colours_can_be_told_apart():
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_the_style_of_the_calling_program_changes_nothing():
    import matplotlib

    before = plots.learning_curve({"train": [(1, 0.5), (2, 0.3)]})
    with matplotlib.rc_context({"axes.facecolor": "black", "axes.grid": True, "font.size": 30}):
        after = plots.learning_curve({"train": [(1, 0.5), (2, 0.3)]})
        assert np.array_equal(to_array(before), to_array(after))
        assert matplotlib.rcParams["font.size"] == 30


def test_true_classes_are_rows(tmp_path):
    figure = plots.confusion_matrix(["cat", "dog"], torch.tensor([[8, 0], [2, 8]]))
    to_png(figure, tmp_path / "matrix.png")
    pixels = np.array(Image.open(tmp_path / "matrix.png").convert("RGB")).astype(int)
    (axes,) = figure.axes
    left, bottom, width, height = axes.get_position().bounds

    def cell(row: int, column: int) -> np.ndarray:
        y = (1 - bottom - height * (1 - (row + 0.1) / 2)) * pixels.shape[0]
        return pixels[int(y), int((left + width * (column + 0.1) / 2) * pixels.shape[1])]

    assert (cell(0, 1) == 255).all()
    assert np.abs(cell(0, 0) - rgb(BLUE)).max() < 3  # all cats
    assert (cell(1, 0) < 255).any() and cell(1, 0)[0] > cell(1, 0)[2]  # orange


def test_many_classes_stay_small():
    counts = torch.eye(1000, dtype=torch.long) * 50
    image = to_array(plots.confusion_matrix([f"class {i}" for i in range(1000)], counts))
    assert image.dtype == np.uint8 and max(image.shape) < 1200
    blue = np.abs(image.astype(int) - rgb(BLUE)).max(2) < 60
    assert blue.sum() > 500


def test_confusion_matrices_keep_everything_inside():
    for names in (["cat", "dog"], [f"class number {i}" for i in range(25)]):
        figure = plots.confusion_matrix(names, torch.eye(len(names), dtype=torch.long))
        figure.draw_without_rendering()
        box = figure.axes[0].get_tightbbox()
        width, height = figure.get_size_inches() * 72
        assert min(box.x0, box.y0) >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1


def test_image_grids_show_names_in_any_script_and_colours():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    grid = plots.image_grid(images, ["猫", "собака", "<b>&amp;"], ["猫", "кот", ""])
    reddish, greenish = (grid.astype(int)[..., i] - grid.astype(int)[..., 1 - i] for i in (0, 1))
    assert (reddish > 100).any() and (greenish > 60).any()
    assert (grid == 0).all(2).sum() >= 3 * 56 * 56
    plain = plots.image_grid(images, ["a", "b", "c"])
    assert plain.shape[0] < grid.shape[0] and plain.dtype == np.uint8
    large = plots.image_grid(torch.zeros(24, 3, 224, 224, dtype=torch.uint8), ["a long name"] * 24)
    assert max(large.shape) < 1000 and (large == 0).all(2).sum() >= 24 * 96 * 96


def test_images_keep_their_aspect_ratio():
    wide = torch.zeros(1, 1, 10, 20, dtype=torch.uint8)
    for shown, side in (
        (plots.image_grid(wide, ["."]), 96),
        (plots.feature_maps(wide, torch.zeros(1, 1, 1, 2))[:, :68], 64),
    ):
        black = (shown == 0).all(2)
        assert (black.any(1).sum(), black.any(0).sum()) == (side // 2, side)


def test_float_images_are_scaled_to_their_range():
    grid = plots.image_grid(torch.linspace(-1, 1, 64).view(1, 1, 8, 8), ["a"])
    assert grid.min() == 0


def test_feature_maps():
    images = torch.full((4, 3, 28, 28), 7, dtype=torch.uint8)
    maps = torch.randn(4, 512, 7, 7)
    shown = plots.feature_maps(images, maps, limit=8)
    assert shown.shape == (4 * 68 + 4, 9 * 68 + 4, 3)
    assert (shown[4:68, 4:68] == 7).all() and set(np.unique(shown[4:68, 72:136])) >= {0, 255}
    plots.feature_maps(images, torch.full((4, 2, 7, 7), float("nan")))
