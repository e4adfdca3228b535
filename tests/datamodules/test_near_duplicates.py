"""Copies of images are found; other images are not taken for copies."""

import io

import numpy as np
import pytest
from helpers import random_images
from PIL import Image

from src.datamodules.near_duplicates import BITS, MAX_DISTANCE, difference_hash, near_pairs

IMAGES = random_images(50, 3, 64, seed=1)


def as_pixels(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def recompressed(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((31, 31)),
        recompressed,
        lambda image: image.convert("L"),
        lambda image: image.point(lambda value: value * 0.9),
    ],
)
def test_copies_are_near_and_others_are_not(change):
    originals = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in IMAGES]
    hashes = [difference_hash(as_pixels(image)) for image in originals]
    resembling = {i for pair in near_pairs(hashes) for i in pair}  # by chance: few colours each
    assert len(resembling) < 10
    originals = [image for i, image in enumerate(originals) if i not in resembling]
    hashes = [difference_hash(as_pixels(image)) for image in originals]
    hashes += [difference_hash(as_pixels(change(image))) for image in originals[:5]]
    assert near_pairs(hashes) == [(i, len(originals) + i) for i in range(5)]


def test_the_distance_counts_bits(monkeypatch):
    monkeypatch.setattr("src.datamodules.near_duplicates.CHUNK", 2)
    hashes = [np.zeros(BITS, dtype=bool) for _ in range(3)]
    hashes[1][:MAX_DISTANCE] = True
    hashes[2][: 2 * MAX_DISTANCE + 1] = True
    assert near_pairs(hashes) == [(0, 1)]
    assert near_pairs([]) == []


def test_an_image_without_contrast_has_no_hash():
    assert difference_hash(np.full((3, 8, 8), 200, dtype=np.uint8)) is None
