"""Images that are nearly the same, such as resized or recompressed copies."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

BITS = 64
# Bits that copies may differ in. Of 1,199 photos of cats and dogs, one pair differs in 6 or fewer
# (it is the same photo); 99 % of the copies at half the size or with JPEG quality 40 do.
MAX_DISTANCE = 6
MIN_CONTRAST = 8.0  # standard deviation of grey values; flat images resemble one another
CHUNK = 1024  # hashes that are compared with all at a time


def difference_hash(pixels: np.ndarray) -> np.ndarray | None:
    """Whether each pixel of 8 rows of 9 grey ones is darker than the next: 64 truth values.

    The difference hash of N. Krawetz, "Kind of Like That" (2013).

    Args:
        pixels: uint8 (C, H, W).

    Returns:
        None for an image without contrast.
    """
    image = Image.fromarray(np.moveaxis(pixels, 0, -1).squeeze()).convert("L")
    values = np.asarray(image.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    if values.std() < MIN_CONTRAST:
        return None
    return (values[:, 1:] > values[:, :-1]).ravel()


def near_pairs(hashes: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """The positions of hashes that differ in `MAX_DISTANCE` bits at most."""
    if not hashes:
        return []
    signs = np.where(np.stack(hashes), 1, -1).astype(np.float32)
    pairs = []
    for start in range(0, len(signs), CHUNK):
        products = signs[start : start + CHUNK] @ signs[start:].T  # 64 - 2 * distance
        rows, columns = np.nonzero(products >= BITS - 2 * MAX_DISTANCE)
        pairs += [(start + i, start + j) for i, j in zip(rows, columns, strict=True) if i < j]
    return [(int(one), int(other)) for one, other in pairs]
