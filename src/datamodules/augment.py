"""Augmentation of training pictures, each with its own random draw.

`CropFlip` works on whole batches, on the device, as one gather. `PerImage` runs any torchvision v2 transform in the loader: a v2
transform draws once a call, so a batch has to go through it picture by picture, which is slow.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F


class CropFlip:
    """Random crop from a zero-padded picture, random horizontal flip, and cutout, in one gather.

    Args:
        padding: pixels added on every side, or `[left, top, right, bottom]`.
        flip: chance of a horizontal flip, 0 to 1.
        cutout: side of a black square put at a random place (DeVries & Taylor, 2017), in pixels; 0 for none.

    Raises:
        ValueError: a negative padding, a chance outside 0 to 1, or a cutout without any padding.
    """

    def __init__(self, padding: int | Sequence[int] = 4, flip: float = 0.5, cutout: int = 0):
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        self.flip, self.cutout = flip, cutout
        if len(self.padding) != 4 or min(self.padding) < 0:
            raise ValueError(f"padding is one number or [left, top, right, bottom], none negative; got {padding}")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip is a chance from 0 to 1, got {flip}")
        if cutout < 0 or (cutout and not any(self.padding)):
            raise ValueError(f"cutout is a side in pixels and needs padding to take its black from; got {cutout}")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) of any type -> the same shape and type."""
        n, channels, height, width = images.shape
        device = images.device
        left, top, right, bottom = self.padding
        padded = F.pad(images, (left, right, top, bottom))
        row = torch.randint(0, top + bottom + 1, (n, 1), device=device) + torch.arange(height, device=device)
        column = torch.randint(0, left + right + 1, (n, 1), device=device) + torch.arange(width, device=device)
        if self.flip:
            column = torch.where(torch.rand(n, 1, device=device) < self.flip, column.flip(1), column)
        index = row[:, :, None] * padded.shape[3] + column[:, None, :]  # (N, H, W) positions in the flattened picture
        if self.cutout:
            index = index.masked_fill(self._squares(n, height, width, device), self._black(padded.shape))
        index = index.view(n, 1, -1).expand(n, channels, -1)
        return padded.view(n, channels, -1).gather(2, index).view(n, channels, height, width)

    def _squares(self, n: int, height: int, width: int, device: torch.device) -> torch.Tensor:
        """(N, H, W), true inside one square a picture; a square may hang over the edge, as in the paper."""
        y = torch.randint(0, height, (n, 1), device=device) - self.cutout // 2
        x = torch.randint(0, width, (n, 1), device=device) - self.cutout // 2
        rows = torch.arange(height, device=device) - y
        columns = torch.arange(width, device=device) - x
        inside = ((rows >= 0) & (rows < self.cutout))[:, :, None] & ((columns >= 0) & (columns < self.cutout))[:, None, :]
        return inside

    def _black(self, shape: torch.Size) -> int:
        """Position of a padded, hence black, pixel: the first one where there is padding on the left or top, else the last."""
        left, top, _, _ = self.padding
        return 0 if left or top else shape[2] * shape[3] - 1


class PerImage:
    """Applies a transform to each uint8 (C, H, W) picture of a batch, in the loader, with a seed of its own.

    Args:
        transform: anything that takes and gives a uint8 tensor of the same size, such as `torchvision.transforms.v2.RandAugment`.
    """

    def __init__(self, transform: Callable[[torch.Tensor], torch.Tensor]):
        self.transform = transform

    def __call__(self, images: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """uint8 (N, C, H, W) and N seeds -> uint8 (N, C, H, W). The global random state is left as it was."""
        out = []
        with torch.random.fork_rng(devices=[]):
            for image, seed in zip(images, seeds, strict=True):
                torch.manual_seed(seed)
                out.append(self.transform(image))
        return torch.stack(out)
