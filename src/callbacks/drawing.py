"""Pictures with words in them, drawn with Pillow: grids of labelled pictures, feature maps, confusion matrices. All (H, W, 3), uint8."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

BLACK, GREY, GREEN, RED = (32, 33, 36), (95, 99, 104), (24, 128, 56), (197, 34, 31)
BLUE = np.array([25, 90, 170])  # of a full cell of a confusion matrix
LINE = 16  # height of a line of text, in pixels
WIDER_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf")  # where there is one


@functools.cache
def _font(latin: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in () if latin else WIDER_FONTS:
        try:
            return ImageFont.truetype(name, 12)
        except OSError:
            continue
    return ImageFont.load_default(12)


def _font_for(text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _font(max(map(ord, text), default=0) < 0x250)  # Pillow's own font knows Latin letters


def _text(image: Image.Image, xy: tuple[float, float], text: str, colour: tuple[int, int, int], anchor: str, width: float) -> None:
    """A line of text, cut to `width` pixels."""
    draw, font = ImageDraw.Draw(image), _font_for(text)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "...", font) > width:
            text = text[:-1]
        text += "..."
    draw.text(xy, text, colour, font, anchor)


def _tile(picture: torch.Tensor, smallest: int, largest: int) -> Image.Image:
    """uint8 (C, H, W) -> RGB, its longer side brought between two bounds. Other than three channels are shown grey."""
    array = picture.permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(array if array.shape[2] == 3 else array.mean(2).round().astype(np.uint8)).convert("RGB")
    side = max(image.size)
    if side > largest:
        return image.resize([max(1, round(x * largest / side)) for x in image.size], Image.Resampling.BOX)
    factor = -(-smallest // side)
    return image.resize([x * factor for x in image.size], Image.Resampling.NEAREST)


def picture_grid(pictures: torch.Tensor, names: Sequence[str], answers: Sequence[str] | None = None) -> np.ndarray:
    """Pictures with their class below, and below that what the network said: green where it is right, red where it is wrong.

    Args:
        pictures: uint8 (N, C, H, W).
        names: N true classes.
        answers: N predicted classes, or None.
    """
    tiles = [_tile(picture, 56, 96) for picture in pictures]
    width, height = max(72, *(tile.width + 8 for tile in tiles)), max(tile.height for tile in tiles)
    columns = min(len(tiles), 432 // width)  # narrow: TensorBoard shows pictures some 300 pixels wide, and words must stay readable
    head, row_height = (0, height + LINE + 12) if answers is None else (LINE + 4, height + 2 * LINE + 12)
    sheet = Image.new("RGB", (columns * width + 8, head + -(-len(tiles) // columns) * row_height + 8), "white")
    if answers is not None:
        _text(sheet, (8, 6), "true class, and the answer: green if right, red if wrong", GREY, "la", columns * width)
    for i, tile in enumerate(tiles):
        centre, top = 4 + (i % columns) * width + width // 2, head + 8 + (i // columns) * row_height
        sheet.paste(tile, (centre - tile.width // 2, top))
        _text(sheet, (centre, top + height + 3), names[i], BLACK, "ma", width - 4)
        if answers is not None:
            right = answers[i] == names[i]
            _text(sheet, (centre, top + height + 3 + LINE), answers[i], GREEN if right else RED, "ma", width - 4)
    return np.array(sheet)


def feature_maps(pictures: torch.Tensor, maps: torch.Tensor, most: int = 8) -> np.ndarray:
    """A row a picture: the picture, then the first maps that a layer made of it, each from black at its least to white at its most.

    Args:
        pictures: uint8 (N, C, H, W).
        maps: float (N, channels, h, w).
        most: maps that are shown.
    """
    maps = maps[:, :most].float()
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    grey = ((maps - low) / (high - low).clamp(min=1e-12) * 255).nan_to_num().byte()
    side = _tile(grey[0, :1], 48, 64).width
    sheet = Image.new("RGB", ((grey.shape[1] + 1) * (side + 4) + 12, len(grey) * (side + 4) + 4), "white")
    for y, (picture, row) in enumerate(zip(pictures, grey, strict=True)):
        sheet.paste(_tile(picture, side, side).resize((side, side)), (4, 4 + y * (side + 4)))
        for x, channel in enumerate(row):
            sheet.paste(_tile(channel[None], 48, 64).resize((side, side)), (12 + (x + 1) * (side + 4) - 4, 4 + y * (side + 4)))
    return np.array(sheet)


def confusion_matrix(counts: torch.Tensor, classes: Sequence[str]) -> np.ndarray:
    """True classes downwards, predicted ones across; the darker, the larger the share of the true class. Names and counts while they fit.

    Args:
        counts: int (num_classes, num_classes), true class first.
        classes: their names.
    """
    n = len(classes)
    side = 48 if n <= 12 else 28 if n <= 30 else 16 if n <= 60 else max(1, 960 // n)
    named, counted = n <= 60, n <= 30
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).double().numpy()[..., None]
    cells = Image.fromarray((255 + shares * (BLUE - 255)).round().astype(np.uint8)).resize((n * side, n * side), Image.Resampling.NEAREST)
    if counted:
        for (true, predicted), count in np.ndenumerate(counts.numpy()):
            if count:
                colour = (255, 255, 255) if shares[true, predicted, 0] > 0.5 else BLACK
                _text(cells, ((predicted + 0.5) * side, (true + 0.5) * side), str(count), colour, "mm", side)
    edge = max(_width(name) for name in classes) + 8 if named else 0
    upright = edge <= side
    left, top = edge + LINE + 8, (LINE if upright else edge) + LINE + 8
    sheet = Image.new("RGB", (left + n * side + 12, top + n * side + 12), "white")
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, left + n * side, top + n * side), outline=GREY)
    sheet.paste(cells, (left, top))
    above = Image.new("RGB", (edge, n * side), "white")  # what runs upwards is written lying on its side
    for i, name in enumerate(classes if named else ()):
        middle = (i + 0.5) * side
        _text(sheet, (left - 6, top + middle), name, BLACK, "rm", edge)
        if upright:
            _text(sheet, (left + middle, top - 6), name, BLACK, "md", side)
        else:
            _text(above, (5, middle), name, BLACK, "lm", edge)
    if not upright:
        sheet.paste(above.transpose(Image.Transpose.ROTATE_90), (left, top - 1 - edge))
    _text(sheet, (left + n * side / 2, LINE // 2 + 2), "predicted", GREY, "mm", n * side)
    title = Image.new("RGB", (n * side, LINE), "white")
    _text(title, (n * side / 2, LINE // 2), "true", GREY, "mm", n * side)
    sheet.paste(title.transpose(Image.Transpose.ROTATE_90), (2, top))
    return np.array(sheet)


def _width(text: str) -> int:
    return min(160, round(_font_for(text).getlength(text)))
