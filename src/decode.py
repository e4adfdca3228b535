"""One picture file -> uint8 (C, size, size). Training, evaluation and prediction all decode through here, so they agree."""

import os
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Nothing else is opened, whatever a file's content claims to be: Pillow would hand PostScript to a program that runs it.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
ORIENTATION = 0x0112  # EXIF 2.3, table 4: how the camera was held
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns above 89 and refuses above 179 megapixels; a warning nobody reads protects nobody, so the first limit refuses.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(path: str | os.PathLike, size: int, channels: int = 3, resize: str = "stretch") -> np.ndarray:
    """Read a picture file and bring it to a fixed size.

    Args:
        path: the file.
        size: height and width of the result, in pixels.
        channels: 1 for grey, 3 for RGB.
        resize: `stretch` to the square whatever the aspect, or `crop` the middle square behind a resize of the shorter side.

    Returns:
        uint8 (channels, size, size). EXIF rotation is applied, transparency is put on white, 16-bit grey is scaled to 8 bit.

    Raises:
        ValueError: no picture, cut short, or so large that it looks like a decompression bomb. The text says which.
    """
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("the file is empty")
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "JPEG":
                image.draft("RGB" if channels == 3 else "L", (size, size))  # decode at 1/2, 1/4 or 1/8 where that is enough
            return to_array(image, size, channels, resize)
    except ValueError as error:
        raise error if str(error) else ValueError("it cannot be decoded") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError("it is so large that it looks like a decompression bomb") from None
    except Image.UnidentifiedImageError:
        raise ValueError("it is no picture") from None
    except (OSError, SyntaxError, EOFError, MemoryError, IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        # Pillow's format readers raise many kinds of error on damaged bytes; the system's name the file once more.
        raise ValueError(f"it cannot be decoded ({getattr(error, 'strerror', None) or error})") from None


def to_array(image: Image.Image, size: int, channels: int = 3, resize: str = "stretch") -> np.ndarray:
    """A Pillow picture -> uint8 (channels, size, size); see `decode`."""
    image.load()  # a TIFF is turned by this, and then says so no more
    orientation = image.getexif().get(ORIENTATION)
    if orientation in TURNS:  # by hand: ImageOps.exif_transpose writes the whole EXIF anew, and fails on odd ones
        image = image.transpose(TURNS[orientation])
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(to_8_bit(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    if resize == "crop":
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    elif image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.array(image)  # a copy: torch wants memory that it may write to
    return np.ascontiguousarray(array.transpose(2, 0, 1)) if channels == 3 else array[None]


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """16- and 32-bit pixels as uint8: by 257 where the values need 16 bits, unchanged where they fit 8."""
    values = pixels.astype(np.float64)
    highest = values.max(initial=0)
    if highest > 255:
        values = values / (257 if highest <= 65535 else highest / 255)
    return values.clip(0, 255).round().astype(np.uint8)


def is_image_name(path: Path) -> bool:
    """Whether a file's name says that it is a picture, and does not hide it."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
