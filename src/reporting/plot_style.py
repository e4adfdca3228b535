"""The style that all plots share, and the three forms they are saved in: SVG, PNG and arrays.

Plots are about 400 units wide, the width of a phone: there a unit is a pixel.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
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

from ..runs.files import atomic_write

Points = Sequence[tuple[float, float]]
WIDTH = 400
PNG_DPI = 144  # two pixels for each unit
# Colours by name. Plots are drawn in the light ones; an SVG in a page refers to their names, so
# that the dark mode of the page reaches it. Blue and orange differ for colour-blind people too.
COLOURS = {  # light and dark
    "text": ("#1c2430", "#e6eaf0"),
    "faint": ("#667085", "#98a2b3"),
    "line": ("#d9dee6", "#343c49"),
    "bg": ("#fffffe", "#171b21"),
    "blue": ("#0b6bb5", "#5cb3f5"),
    "orange": ("#c2500a", "#f0964f"),
    "on-colour": ("#fffffd", "#0d1117"),
}
LIGHT, DARK = ({name: pair[i] for name, pair in COLOURS.items()} for i in (0, 1))
TEXT, FAINT, LINE, BLUE, ORANGE = (LIGHT[n] for n in ("text", "faint", "line", "blue", "orange"))
# Fonts for names in any script, tried in this order where they are installed.
FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC"]
FONTS += ["Arial Unicode MS"]
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "text.color": TEXT,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "figure.dpi": 72,
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.labelcolor": FAINT,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.handlelength": 1.5,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "plots",  # the same plot gives the same file
}
STYLE |= {f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")}
STYLE |= {f"{axis}tick.color": FAINT for axis in "xy"}
STYLE |= {f"{axis}tick.{kind}.size": 0 for axis in "xy" for kind in ("major", "minor")}


@contextmanager
def default_style() -> Iterator[None]:
    """matplotlib's defaults with the changes of `STYLE`, independent of the calling program."""
    installed = {font.name for font in fontManager.ttflist}
    with matplotlib.rc_context(), warnings.catch_warnings():
        # In pages the browser finds a font; elsewhere a box stands for a missing character.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        matplotlib.rcParams["font.family"] = [name for name in FONTS if name in installed]
        yield


def new_figure(height: float, width: float = WIDTH, **grid: Any) -> tuple[Figure, Any]:
    """A figure of this size in units, and the axes that `Figure.subplots` makes of `grid`."""
    figure = Figure(figsize=(width / 72, height / 72))
    return figure, figure.subplots(**grid)


def empty_figure() -> Figure:
    """What stands in the place of a plot without values."""
    figure, axes = new_figure(60)
    axes.text(0.5, 0.5, "no values recorded", color=FAINT, ha="center", va="center")
    axes.set_axis_off()
    return figure


def percent(fraction: float, position: float) -> str:
    """The label of a tick: 0.125 -> 12.5 %."""
    return f"{100 * fraction:.4g}\N{NO-BREAK SPACE}%"


def finish(axes: Axes, xlabel: str, fractions: bool = False) -> None:
    """Add the legend, the grid and few labels on the vertical axis; fractions are percentages."""
    axes.set_xlabel(xlabel)
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(percent if fractions else "{x:.4g}")
    if fractions:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1.02))
    axes.grid(axis="y")
    add_legend(axes)


def add_legend(axes: Axes, reverse: bool = False) -> None:
    """A legend in one line above the axes, where there are labels."""
    if axes.get_legend_handles_labels()[1]:
        axes.figure.legend(loc="outside upper left", ncols=4, reverse=reverse)


def to_svg(figure: Figure, label: str) -> Markup:
    """A figure as an `<svg>` element for a page that defines the colours as CSS variables.

    `label` says what is drawn, for people who cannot see it.
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
