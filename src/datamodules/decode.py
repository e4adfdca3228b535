"""Decoding of one image file to uint8 (C, size, size).

Training, evaluation and prediction all decode here, so that they agree.
"""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = {
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".avif", ".heic", ".heif",
}  # fmt: skip
ImageSource = str | os.PathLike | bytes | IO[bytes]  # a path, or the content of a file
ORIENTATION = 0x0112  # EXIF 2.3, table 4
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

try:
    from pillow_heif import register_heif_opener
except ImportError:  # HEIC is then refused with the name of the extra, see `decode`
    HEIF_IS_READ = False
else:
    register_heif_opener()
    HEIF_IS_READ = True
Image.init()  # loads the plugins
# Nothing else is opened, by content: Pillow would run Ghostscript on PostScript. AVIF and HEIF are
# left out where they cannot be read, since Pillow fails at a format that it does not know.
KNOWN = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "HEIF")
FORMATS = tuple(name for name in KNOWN if name in Image.OPEN)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

# Pillow warns above 89 megapixels and refuses above 179; here the first limit refuses.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(
    source: ImageSource,
    size: int,
    channels: int = 3,
    resize: str = "stretch",
    fill: Sequence[float] = (0.5,),
) -> np.ndarray:
    """Read an image file and bring it to a fixed size.

    Args:
        source: a path, the bytes of a file, or a file that is open for reading bytes.
        channels: 1 for grey, 3 for RGB.
        resize: `stretch` to the square, `crop` the central square after a resize of the shorter
            side, or `pad` to the square after a resize of the longer side.
        fill: colour of the padding, from 0 to 1: one value per channel, or one for all.

    Returns:
        uint8 (channels, size, size). EXIF rotation is applied, transparency is put on white, 16-bit
        grey is scaled to 8 bit.

    Raises:
        ValueError: the file is not an image, is damaged, or so large that it may be a
            decompression bomb. The text says which.
    """
    try:
        content = _openable(source)
        with Image.open(content, formats=FORMATS) as image:
            if image.format == "JPEG":
                # Decode at 1/2, 1/4 or 1/8 of the size where that is enough.
                image.draft("RGB" if channels == 3 else "L", (size, size))
            return to_array(image, size, channels, resize, fill)
    except ValueError:
        raise
    except Image.UnidentifiedImageError:
        raise ValueError(_unidentified(content)) from None
    except Exception as error:  # Pillow raises nearly any type on damaged bytes
        reason = getattr(error, "strerror", None) or error  # not the path as well
        raise ValueError(f"it cannot be decoded ({reason})") from None


def _openable(source: ImageSource) -> str | os.PathLike | io.BytesIO:
    """What Pillow opens, which is not empty."""
    if isinstance(source, str | os.PathLike):
        is_empty = os.path.getsize(source) == 0  # devices and pipes too, which may never end
    else:
        source = source if isinstance(source, bytes) else source.read()
        is_empty = not source
        source = io.BytesIO(source)
    if is_empty:
        raise ValueError("the file is empty")
    return source


def _unidentified(source: str | os.PathLike | io.BytesIO) -> str:
    """Why Pillow does not know the format of a file."""
    if isinstance(source, io.BytesIO):
        start = source.getvalue()[:12]
    else:
        with open(source, "rb") as file:
            start = file.read(12)
    if not HEIF_IS_READ and start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS:
        return 'it is HEIC, which needs the extra `heif`: pip install -e ".[heif]"'
    return "it is not an image"


def to_array(
    image: Image.Image,
    size: int,
    channels: int = 3,
    resize: str = "stretch",
    fill: Sequence[float] = (0.5,),
) -> np.ndarray:
    """A Pillow image -> uint8 (channels, size, size); see `decode`."""
    image.load()  # this rotates a TIFF, and its EXIF no longer says so afterwards
    orientation = image.getexif().get(ORIENTATION)
    if orientation in TRANSPOSITIONS:  # ImageOps.exif_transpose rewrites the EXIF, and may fail
        image = image.transpose(TRANSPOSITIONS[orientation])
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(to_8_bit(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    if resize == "crop":
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    elif resize == "pad":
        image = pad(image, size, fill)
    elif image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.array(image)  # a copy: torch needs writable memory
    if channels == 1:
        return array[None]
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def pad(image: Image.Image, size: int, fill: Sequence[float]) -> Image.Image:
    """Resize the longer side of a grey or RGB image to `size`, and fill up the square."""
    height, width = contained(image.height, image.width, size)
    levels = tuple(round(255 * value) for value in fill)
    colour = levels[0] if image.mode == "L" else levels * (3 // len(levels))
    square = Image.new(image.mode, (size, size), colour)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def contained(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width in equal proportions, the longer one `size` and the other at least 1."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """16- and 32-bit pixels as uint8: scaled if their values need more than 8 bits."""
    values = pixels.astype(np.float64)
    highest = values.max(initial=0)
    if highest > 65535:
        values = values / (highest / 255)
    elif highest > 255:
        values = values / 257
    return values.clip(0, 255).round().astype(np.uint8)


def is_image_name(path: Path) -> bool:
    """Whether the name of a file is that of an image, and not of a hidden file."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
