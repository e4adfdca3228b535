"""Decoding: every kind of image to uint8, and damaged or hostile files refused."""

import io
import os
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from src.datamodules.decode import HEIF_IS_READ, contained, decode, is_image_name, to_8_bit
from src.datamodules.transforms import resize

GREY = Image.fromarray(np.full((9, 12), 100, np.uint8))
RANDOM = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA", "CMYK", "I;16", "1", "F", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_modes_become_grey_or_rgb(mode, channels, tmp_path):
    path = tmp_path / ("image.jpg" if mode == "YCbCr" else "image.tif")
    image = GREY.convert("RGB").convert(mode) if mode in ("P", "CMYK", "YCbCr") else GREY
    if mode == "I;16":
        image = Image.fromarray(np.full((9, 12), 100 * 257, np.uint16))
    elif mode not in ("P", "CMYK", "YCbCr"):
        image = GREY.point(lambda _: 255).convert("1") if mode == "1" else GREY.convert(mode)
    image.save(path)
    pixels = decode(path, 8, channels)
    assert pixels.shape == (channels, 8, 8) and pixels.dtype == np.uint8
    expected = 255 if mode == "1" else 100
    assert abs(pixels.astype(int) - expected).max() <= 2


def test_transparency_is_put_on_white(tmp_path):
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (decode(tmp_path / "clear.png", 8) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_is_applied(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    RANDOM.resize((40, 64)).save(path, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR))
    assert (decode(path, 32) == expected.transpose(2, 0, 1)).all()


def test_exif_that_pillow_cannot_write_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    gradient = np.zeros((32, 32, 3), np.uint8)
    gradient[:] = np.arange(0, 256, 8)[:, None, None]
    upright = Image.fromarray(gradient)
    content = io.BytesIO()
    upright.rotate(90).save(content, "JPEG", exif=exif, quality=95)
    damaged = content.getvalue().replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x02")
    (tmp_path / "odd.jpg").write_bytes(damaged)
    difference = decode(tmp_path / "odd.jpg", 32).astype(int) - gradient.transpose(2, 0, 1)
    assert abs(difference).mean() < 8


def test_crop_keeps_the_aspect(tmp_path):
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", 10, resize="crop") == 200).all()
    assert (decode(tmp_path / "wide.png", 10) == 0).any()


@pytest.mark.parametrize(("width", "height"), [(30, 10), (10, 30), (900, 1), (5, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pad_keeps_all_and_fills_with_the_colour(width, height, channels, tmp_path):
    Image.new("RGB", (width, height), (200, 200, 200)).save(tmp_path / "a.png")
    fill = [0.2, 0.4, 0.6][:channels]
    pixels = decode(tmp_path / "a.png", 30, channels, "pad", fill)
    rows, columns = contained(height, width, 30)
    image = (pixels == 200).all(0)
    assert image.sum() == rows * columns == image.any(1).sum() * image.any(0).sum()
    outside = pixels[:, ~image]
    assert (outside == np.array([[51], [102], [153]])[:channels]).all()
    tensor = torch.full((2, channels, height, width), 200, dtype=torch.uint8)
    assert (resize(tensor, 30, "pad", fill).numpy() == pixels).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 100, 255], [0, 100, 255]), ([0, 257, 65535], [0, 1, 255]), ([0, 70000], [0, 255])],
)
def test_more_than_8_bits_are_scaled(values, expected):
    assert to_8_bit(np.array(values)).tolist() == expected


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """The bytes of a PNG file with these chunks, right or wrong."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        checksum = zlib.crc32(name + body).to_bytes(4, "big")
        content += len(body).to_bytes(4, "big") + name + body + checksum
    return content


BITMAP = b"BM" + b"\0" * 8 + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
HOSTILE = {
    "bomb.png": png(60_000, 60_000, (b"IDAT", zlib.compress(b"\0" * 1_000_000))),
    "text_bomb.png": png(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 80_000_000))),
    "no_pixels.png": png(0, 0),
    "bomb.bmp": BITMAP + (2**31 - 1).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + b"\0" * 24,
    "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",  # its next directory is this one
    "empty.jpg": b"",
    "page.png": b"<html>404 Not Found</html>",
    "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "noise.jpg": b"\xff\xd8\xff" + bytes(range(256)) * 20,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(ValueError):
        decode(tmp_path / name, 32)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_truncated_files_are_refused(suffix, tmp_path):
    path = tmp_path / f"image.{suffix}"
    RANDOM.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError):
        decode(path, 32)


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes")
def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError):
            decode(path, 32)
    with pytest.raises(ValueError, match=r"it cannot be decoded \(No such file"):
        decode(tmp_path / "gone.jpg", 32)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path):
    Image.new("RGB", (40, 20), (200, 100, 50)).save(tmp_path / "a.avif")
    assert abs(decode(tmp_path / "a.avif", 8).mean((1, 2)) - [200, 100, 50]).max() < 4


@pytest.mark.skipif(not HEIF_IS_READ, reason="needs the extra `heif`")
def test_heic(tmp_path):
    Image.new("RGB", (80, 64), (200, 100, 50)).save(tmp_path / "a.heic", format="HEIF")
    path = tmp_path / "a.heic"
    assert abs(decode(path, 8).mean((1, 2)) - [200, 100, 50]).max() < 4
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError):
        decode(path, 8)


@pytest.mark.skipif(HEIF_IS_READ, reason="the extra `heif` is installed")
@pytest.mark.parametrize("as_bytes", [False, True])
def test_heic_without_its_extra_names_it(tmp_path, as_bytes):
    content = b"\0\0\0\x18ftypheic" + bytes(40)
    (tmp_path / "a.heic").write_bytes(content)
    with pytest.raises(ValueError, match="extra `heif`"):
        decode(content if as_bytes else tmp_path / "a.heic", 8)


def test_names_of_images(tmp_path):
    names = ["a.JPG", "a.webp", ".a.jpg", "a.txt", "jpg"]
    assert [name for name in names if is_image_name(tmp_path / name)] == ["a.JPG", "a.webp"]
