"""Grids of images: images with their classes, and feature maps. All are uint8 (H, W, 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from .plot_style import FAINT, TEXT, default_style, text_width, to_array
from .text import shorten

GREEN, RED = "#188038", "#c5221f"
GRID_WIDTH = 432  # narrow: TensorBoard shows images some 300 pixels wide
MIN_SIDE, MAX_SIDE = 56, 96  # of an image in a grid
MAP_SIDE = 64  # of a feature map
LINE_HEIGHT = 17
MIN_COLUMN = 84  # wide enough for eleven letters
DPI = 72  # a unit of a plot is a pixel


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) of images that may be float or have other than three channels.

    Float images are scaled to their own range; other than three channels become grey.
    """
    images = images.cpu()
    if images.dtype != torch.uint8:
        images = _scale(images.float(), dims=(1, 2, 3))
    if images.shape[1] != 3:
        images = images.float().mean(1, keepdim=True).round().to(torch.uint8)
    return images.expand(-1, 3, -1, -1)


def _scale(values: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """uint8: black for the smallest value over `dims`, white for the largest."""
    low, high = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
    return ((values - low) / (high - low).clamp(min=1e-12) * 255).nan_to_num().byte()


def _resize(images: torch.Tensor, smallest: int, largest: int) -> torch.Tensor:
    """Bring the longer side between two bounds: enlarged by a whole factor, or averaged."""
    height, width = images.shape[2:]
    side = max(height, width)
    if side > largest:
        size = [max(1, round(length * largest / side)) for length in (height, width)]
        return F.interpolate(images.float(), size, mode="area").round().byte()
    factor = -(-smallest // side)
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


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
    tiles = _resize(to_rgb(images), MIN_SIDE, MAX_SIDE)
    height, width = tiles.shape[2:]
    column = max(MIN_COLUMN, width + 8)
    columns = min(len(tiles), GRID_WIDTH // column)
    head = 0 if predictions is None else LINE_HEIGHT + 4
    row = height + (1 if predictions is None else 2) * LINE_HEIGHT + 12
    sheet = torch.full((head + -(-len(tiles) // columns) * row + 8, columns * column + 8, 3), 255)
    figure = Figure(figsize=(sheet.shape[1] / DPI, sheet.shape[0] / DPI), dpi=DPI)

    def write(x: float, y: float, text: str, colour: str, anchor: str = "center") -> None:
        figure.text(x / sheet.shape[1], 1 - y / sheet.shape[0], text, color=colour, ha=anchor)

    if predictions is not None:
        write(8, 16, "true class, and predicted: green if correct", FAINT, "left")
    longest = int((column - 4) / text_width("x"))
    for i, tile in enumerate(tiles):
        left = 4 + (i % columns) * column
        top = head + 8 + (i // columns) * row
        inset = left + (column - width) // 2
        sheet[top : top + height, inset : inset + width] = tile.permute(1, 2, 0)
        middle, bottom = left + column / 2, top + height + LINE_HEIGHT - 3
        write(middle, bottom, shorten(names[i], longest), TEXT)
        if predictions is not None:
            colour = GREEN if predictions[i] == names[i] else RED
            write(middle, bottom + LINE_HEIGHT, shorten(predictions[i], longest), colour)
    figure.figimage(sheet.byte().numpy())
    return to_array(figure, DPI)


def feature_maps(images: torch.Tensor, maps: torch.Tensor, limit: int = 8) -> np.ndarray:
    """A row for each image: the image, then the first feature maps that a layer makes of it.

    Args:
        images: uint8 (N, C, H, W).
        maps: float (N, channels, h, w); each is shown from black at its smallest value to white.
        limit: number of maps shown.
    """
    shown = _scale(maps[:, :limit].float().cpu(), dims=(2, 3))
    size = (MAP_SIDE, MAP_SIDE)
    tiles = torch.cat(
        [
            F.interpolate(to_rgb(images), size)[:, None],
            F.interpolate(shown, size)[:, :, None].expand(-1, -1, 3, -1, -1),
        ],
        1,
    )
    framed = F.pad(tiles, (2, 2, 2, 2), value=255)  # (N, 1 + maps, 3, H, W)
    return framed.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
