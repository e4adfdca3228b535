"""Random resized crops with antialiasing, a box of its own for each image of a batch."""

import math
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch.nn import functional as F

Fraction = Annotated[float, Field(gt=0, le=1)]
ATTEMPTS = 10  # boxes that are drawn for each image, as in torchvision


class RandomResizedCrop:
    """Crop a random box, resize it to the square, and flip some (Szegedy et al., 2015).

    Training images are stored `store_scale` times larger than `data.image_size`, so that a small
    box has pixels of its own. They have the form that `data.resize` gives to images of evaluation:
    with `crop`, objects keep their proportions, up to `ratio`.

    Args:
        scale: smallest and largest area of the box, as fractions of the image.
        ratio: smallest and largest width of the box divided by its height.
        flip: probability of a horizontal flip.
        store_scale: side of the stored images divided by that of the result. They take the square
            of it in memory.
    """

    def __init__(
        self,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
        ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3),
        flip: Annotated[float, Field(ge=0, le=1)] = 0.5,
        store_scale: Annotated[float, Field(ge=1)] = 1.5,
    ):
        self.scale, self.ratio, self.flip, self.store_scale = scale, ratio, flip, store_scale

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> uint8 (N, C, size, size) with `size` = W / `store_scale`."""
        n, _, height, width = images.shape
        boxes, flipped = self.draw(n, height, width), torch.rand(n) < self.flip
        return resized_crop(images, boxes, flipped, round(width / self.store_scale))

    def draw(self, n: int, height: int, width: int) -> torch.Tensor:
        """int64 (n, 4) random boxes (top, left, height, width), on the CPU.

        As in torchvision: the first of ten that lies inside the image, or else the whole image.
        """
        area = height * width * torch.empty(n, ATTEMPTS).uniform_(*self.scale)
        ratio = torch.empty(n, ATTEMPTS).uniform_(*map(math.log, self.ratio)).exp()
        heights = (area / ratio).sqrt().round().long()
        widths = (area * ratio).sqrt().round().long()
        inside = (heights.clamp(min=1) <= height) & (widths.clamp(min=1) <= width)
        first = inside.byte().argmax(1, keepdim=True)  # 0 if there is none
        box_height = heights.gather(1, first)[:, 0].clamp(1, height)
        box_width = widths.gather(1, first)[:, 0].clamp(1, width)
        top = (torch.rand(n) * (height - box_height + 1)).long()
        left = (torch.rand(n) * (width - box_width + 1)).long()
        return torch.stack([top, left, box_height, box_width], dim=1)


def resized_crop(
    images: torch.Tensor, boxes: torch.Tensor, flipped: torch.Tensor, size: int
) -> torch.Tensor:
    """The box of each image, resized bilinearly with antialiasing, as torchvision does.

    Args:
        images: uint8 (N, C, H, W).
        boxes: int64 (N, 4) on the CPU: top, left, height and width in pixels.
        flipped: bool (N,) on the CPU: whether the result is flipped horizontally.

    Returns:
        uint8 (N, C, size, size).
    """
    if images.device.type != "cpu":
        device = images.device
        return _resized_crop_by_matrices(images, boxes.to(device), flipped.to(device), size)
    # On a CPU torch's kernel for bytes is faster, image by image, than products of matrices.
    out = images.new_empty(*images.shape[:2], size, size)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        box = images[i : i + 1, :, top : top + height, left : left + width]
        resized = F.interpolate(box, (size, size), mode="bilinear", antialias=True)[0]
        out[i] = resized.flip(2) if flipped[i] else resized
    return out


def _resized_crop_by_matrices(
    images: torch.Tensor, boxes: torch.Tensor, flipped: torch.Tensor, size: int
) -> torch.Tensor:
    """`resized_crop` of the whole batch at once, first along the columns, then along the rows."""
    top, left, height, width = boxes.float().unbind(1)
    rows = _weights(top, height, images.shape[2], size)
    columns = _weights(left, width, images.shape[3], size)
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    resized = rows[:, None] @ (images.float() @ columns.mT[:, None])
    return resized.round_().to(torch.uint8)


def _weights(start: torch.Tensor, length: torch.Tensor, side: int, size: int) -> torch.Tensor:
    """(N, size, side): what each pixel inside an interval adds to a resized pixel.

    A triangle around the centre of the resized pixel, widened where the interval is reduced.
    """
    step = (length / size)[:, None, None]
    first, end = start[:, None, None], (start + length)[:, None, None]
    pixels = torch.arange(side, device=start.device) + 0.5
    centres = first + (torch.arange(size, device=start.device)[:, None] + 0.5) * step
    weights = (1 - (pixels - centres).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels > first) & (pixels < end))
    return weights / weights.sum(2, keepdim=True)
