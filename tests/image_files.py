"""Image files of every kind, readable and broken, under names that break programs."""

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
from helpers import random_images
from PIL import Image

NAMES = [
    "a=b", "1,2", "x(1)", "y[1]", "with blanks", "猫", "it's", "{z}", "${x}", "line\nbreak", "100%",
    "-dash", "semi;colon",
]  # fmt: skip
KINDS = [
    "jpg", "png", "grey", "rgba", "la", "palette", "16-bit", "1-bit", "cmyk", "exif", "bmp", "gif",
    "webp", "tif", "renamed",
]  # fmt: skip
PNG_MODES = {"grey": "L", "rgba": "RGBA", "la": "LA", "palette": "P", "1-bit": "1"}


def make_image(seed: int, size: int = 24) -> Image.Image:
    return Image.fromarray(random_images(1, 3, size, seed)[0].transpose(1, 2, 0))


def save_as(image: Image.Image, kind: str, stem: str) -> None:
    """Save an image in one of `KINDS`."""
    if kind in PNG_MODES:
        image.convert(PNG_MODES[kind]).save(f"{stem}.png")
    elif kind == "16-bit":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(f"{stem}.PNG")
    elif kind == "cmyk":
        image.convert("CMYK").save(f"{stem}.jpeg")
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(f"{stem}.jpg", exif=exif)
    elif kind == "renamed":
        image.save(f"{stem}.jpg", format="PNG")
    else:
        image.save(f"{stem}.{kind}")


def write_readable(folder: Path, count: int) -> None:
    """Readable images of every kind in nested folders, under names that break programs."""
    for i, kind in zip(range(count), itertools.cycle(KINDS)):
        # A folder may be named like an image.
        inside = folder / ("", "sub", "sub/猫 (2)", "folder.jpg")[i % 4]
        inside.mkdir(parents=True, exist_ok=True)
        save_as(make_image(i), kind, f"{inside}/{NAMES[i % len(NAMES)]} {i}")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def encode(kind: str) -> bytes:
    content = io.BytesIO()
    make_image(0, 64).save(content, format=kind)
    return content.getvalue()


def write_broken(folder: Path) -> set[str]:
    """30 files that cannot be read; returns their names."""
    folder.mkdir(parents=True)
    jpeg, png = encode("JPEG"), encode("PNG")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" * 99)) + png_chunk(b"IEND", b"")
    contents = {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header only.jpg": jpeg[:20],
        "empty.jpg": b"",
        "empty.png": b"",
        "text.jpg": b"not an image at all\n" * 9,
        "page.png": b"<!DOCTYPE html><html></html>",
        "half.png": png[: len(png) // 2],
        "no checksum.png": png[:40] + b"\0\0\0\0" + png[44:],
        "bomb.png": png[:8] + header + data,
        "noise.gif": bytes(range(256)),
        "start.gif": b"GIF89a",
        "noise.tif": b"II*\0" + b"\xff" * 60,
        "start.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
        "noise.bmp": b"BM" + b"\xff" * 60,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / f"again {name}").write_bytes(content)
    (folder / "dangling.jpg").symlink_to(folder / "gone.jpg")
    (folder / "circular.png").symlink_to(folder / "circular.png")
    return {path.name for path in folder.iterdir()}
