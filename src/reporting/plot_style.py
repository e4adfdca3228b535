"""The style that all plots share, and the three forms they are saved in: SVG, PNG and arrays.

Plots are about 400 units wide, the width of a phone: there a unit is a pixel.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

from ..runs.files import atomic_write

WIDTH = 400
FONT_SIZE = 11
PNG_DPI = 144  # two pixels for each unit
# Colours by name. Plots are drawn in the light ones; an SVG in a page refers to their names, so
# that the dark mode of the page reaches it. Blue and orange differ for colour-blind people too.
LIGHT = {
    "text": "#1c2430",
    "faint": "#667085",
    "line": "#d9dee6",
    "bg": "#fffffe",
    "blue": "#0b6bb5",
    "orange": "#c2500a",
    "on-colour": "#fffffd",
}
DARK = {
    "text": "#e6eaf0",
    "faint": "#98a2b3",
    "line": "#343c49",
    "bg": "#171b21",
    "blue": "#5cb3f5",
    "orange": "#f0964f",
    "on-colour": "#0d1117",
}
TEXT, FAINT, LINE, BLUE, ORANGE = (LIGHT[n] for n in ("text", "faint", "line", "blue", "orange"))
# Fonts for names in any script, tried in this order where they are installed.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
)


@contextmanager
def default_style() -> Iterator[None]:
    """matplotlib's defaults with a few changes, whatever the style of the calling program is."""
    installed = {font.name for font in fontManager.ttflist}
    with matplotlib.rc_context(), warnings.catch_warnings():
        # In pages the browser finds a font; elsewhere a box stands for a missing character.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": [name for name in FONTS if name in installed],
                "font.size": FONT_SIZE,
                "text.parse_math": False,  # a dollar sign in a name is a dollar sign
                "svg.fonttype": "none",  # text stays text
                "svg.hashsalt": "plots",  # the same plot gives the same file
            }
        )
        yield


def new_figure(
    height: float, left: float, right: float, top: float, bottom: float, width: float = WIDTH
) -> tuple[Figure, Axes]:
    """A figure with one axes: no frame, no tick lines, faint labels.

    Args:
        height: of the figure, in units.
        left: margin beside the axes, for the labels; as are `right`, `top` and `bottom`.
        width: of the figure.
    """
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    return figure, add_axes(figure, left, right, top, bottom)


def add_axes(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with these margins around them, in units."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    box = (left / width, bottom / height)
    axes = figure.add_axes((*box, 1 - (left + right) / width, 1 - (top + bottom) / height))
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, pad=6, labelcolor=FAINT)
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def add_grid(axes: Axes, axis: Any = "y") -> None:
    """Grid lines across one axis."""
    axes.grid(axis=axis, color=LINE, linewidth=1)


def add_legend(axes: Axes, **options: Any) -> None:
    """A legend in one line above the axes."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        frameon=False,
        labelcolor=TEXT,
        borderpad=0.3,
        borderaxespad=0,
        columnspacing=1.5,
        handletextpad=0.5,
        **options,
    )


def write(axes: Axes, text: str, at: tuple, offset: tuple[float, float], **options: Any) -> None:
    """Text beside a point of the axes, `offset` units away from it."""
    axes.annotate(
        text, at, offset, textcoords="offset points", color=TEXT, annotation_clip=False, **options
    )


def format_values(axes: Axes, fractions: bool) -> None:
    """Few labels on the vertical axis, as percentages where the values are fractions."""
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if fractions:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1.02))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}\N{NO-BREAK SPACE}%")
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def empty_figure() -> Figure:
    """What stands in the place of a plot without values."""
    figure, axes = new_figure(60, 0, 0, 0, 0)
    axes.text(0.5, 0.5, "no values recorded", color=FAINT, ha="center", va="center")
    axes.set_axis_off()
    return figure


def text_width(text: str) -> float:
    """About how wide a text is, in units: layout does not depend on the fonts of the machine."""
    return 0.63 * FONT_SIZE * cell_len(text)


def to_svg(figure: Figure, label: str) -> Markup:
    """A figure as an `<svg>` element for a page that defines the colours as CSS variables.

    Args:
        figure: drawn in the colours `LIGHT`.
        label: what is drawn, for people who cannot see it.
    """
    file = io.StringIO()
    with default_style():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several plots on a page would repeat them
    svg = re.sub(r'style="[^"]*"', _use_variables, svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*" height="[^"]*"', r'\1 class="plot" role="img"', svg)
    return Markup(svg.replace("<svg", Markup('<svg aria-label="{}"').format(label), 1))


def _use_variables(style: re.Match) -> str:
    """A style attribute with the page's font and its variables for the colours."""
    text = re.sub(r" *font-family: [^;\"]*;?", "", style[0])
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def to_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file on white."""
    with atomic_write(path, "wb") as file, default_style():
        figure.savefig(file, format="png", dpi=PNG_DPI, facecolor="white")


def to_array(figure: Figure, dpi: float = 96) -> np.ndarray:
    """A figure as pixels on white, uint8 (height, width, 3)."""
    with default_style():
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
