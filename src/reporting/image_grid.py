"""Grids of images: images with their classes, and feature maps. All are uint8 (H, W, 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform
from torch.nn import functional as F
from torchvision.utils import make_grid

from .plot_style import FAINT, TEXT, default_style, to_array
from .text import shorten

GREEN, RED = "#188038", "#c5221f"
COLUMNS = 4  # few: TensorBoard shows images some 300 pixels wide
SIDE, MAP_SIDE = 96, 64  # of an image in a grid, and of a feature map
COLUMN = SIDE + 8
LETTERS = 14  # fit into a column
LINE_HEIGHT = 17
DPI = 72  # a unit of a plot is a pixel


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) of images that may be float or have other than three channels.

    Float images are scaled to their own range; other than three channels become grey.
    """
    images = images.cpu()
    if images.dtype != torch.uint8:
        images = images.float()
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        images = ((images - low) / (high - low).clamp(min=1e-12) * 255).nan_to_num().byte()
    if images.shape[1] != 3:
        images = images.float().mean(1, keepdim=True).round().byte()
    return images.expand(-1, 3, -1, -1)


@default_style()
def image_grid(
    images: torch.Tensor, names: Sequence[str], predictions: Sequence[str] | None = None
) -> np.ndarray:
    """Images with their class below, and below that the predicted one: green or red if wrong.

    Args:
        images: uint8 (N, C, H, W).
        names: N true classes.
        predictions: N predicted classes.
    """
    head, lines = (0, 1) if predictions is None else (LINE_HEIGHT + 4, 2)
    row = SIDE + lines * LINE_HEIGHT + 12
    tiles = F.pad(_fit(images, SIDE), (4, 4, 8, row - SIDE - 8), value=255)
    sheet = make_grid(tiles, COLUMNS, padding=0, pad_value=255)
    sheet = F.pad(sheet, (0, 0, head, 8), value=255)
    height, width = sheet.shape[1:]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.figimage(sheet.permute(1, 2, 0).numpy())

    def write(x: float, y: float, text: str, colour: str, anchor: str = "center") -> None:
        at = IdentityTransform()  # pixels from the lower left
        figure.text(x, height - y, text, color=colour, ha=anchor, transform=at)

    if predictions is not None:
        write(8, 16, "true class, and predicted: green if correct", FAINT, "left")
    for i, name in enumerate(names):
        x = (i % COLUMNS + 0.5) * COLUMN
        y = head + i // COLUMNS * row + SIDE + LINE_HEIGHT + 5
        write(x, y, shorten(name, LETTERS), TEXT)
        if predictions is not None:
            colour = GREEN if predictions[i] == name else RED
            write(x, y + LINE_HEIGHT, shorten(predictions[i], LETTERS), colour)
    return to_array(figure, DPI)


def _fit(images: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 (N, 3, side, side): averaged or enlarged in proportion, white where nothing is."""
    height, width = (max(1, side * n // max(images.shape[2:])) for n in images.shape[2:])
    scaled = F.interpolate(to_rgb(images).float(), (height, width), mode="area").round().byte()
    left, top = (side - width) // 2, (side - height) // 2
    return F.pad(scaled, (left, side - width - left, top, side - height - top), value=255)


def feature_maps(images: torch.Tensor, maps: torch.Tensor, limit: int = 8) -> np.ndarray:
    """A row for each image: the image, then the first feature maps that a layer makes of it.

    Args:
        images: uint8 (N, C, H, W).
        maps: float (N, channels, h, w); each is shown from black at its smallest value to white.
        limit: number of maps shown.
    """
    maps = maps[:, :limit]
    shown = _fit(maps.flatten(0, 1)[:, None], MAP_SIDE).unflatten(0, maps.shape[:2])
    rows = torch.cat([_fit(images, MAP_SIDE)[:, None], shown], 1)
    grid = make_grid(rows.flatten(0, 1), rows.shape[1], padding=4, pad_value=255)
    return grid.permute(1, 2, 0).numpy()
