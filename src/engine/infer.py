"""Class probabilities of image files: python infer.py photo.jpg [...]

Needs Pillow, NumPy and onnxruntime. Reads preprocess.json and the network in its own folder.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

warnings.simplefilter("error", Image.DecompressionBombWarning)  # refuse above 89 megapixels
FOLDER = Path(__file__).resolve().parent
RESIZE: dict = {"stretch": Image.Image.resize, "crop": ImageOps.fit}
TURNS: dict = dict(zip((2, 3, 4, 5, 6, 7, 8), (0, 3, 1, 5, 4, 6, 2), strict=True))  # of EXIF


def to_8_bit(pixels):
    values = pixels.astype(np.float64)
    highest = values.max(initial=0)
    values /= highest / 255 if highest > 65535 else 257 if highest > 255 else 1
    return values.clip(0, 255).round().astype(np.uint8)


def prepare(path, settings):  # -> uint8 (1, channels, size, size)
    mode, size = "RGB" if settings["channels"] == 3 else "L", (settings["image_size"],) * 2
    with Image.open(path, formats=settings["formats"]) as opened:
        opened.draft(mode, size)  # JPEG only: decode at a fraction of the size where that is enough
        opened.load()
        image: Image.Image = opened
        if (turn := TURNS.get(image.getexif().get(0x0112))) is not None:
            image = image.transpose(turn)
        if image.mode.startswith("I") or image.mode == "F":
            image = Image.fromarray(to_8_bit(np.asarray(image)))
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = RESIZE[settings["resize"]](image.convert(mode), size, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).reshape(*size, -1).transpose(2, 0, 1))[None]


def predict(session, path, settings):
    (logits,) = session.run(["logits"], {"images": prepare(path, settings)})[0]
    return (exponents := np.exp(logits - logits.max())) / exponents.sum()


def main(paths):
    settings = json.loads((FOLDER / "preprocess.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(FOLDER / settings["model"])
    for path in paths:
        probabilities = predict(session, path, settings)
        best = [(settings["classes"][i], probabilities[i]) for i in (-probabilities).argsort()[:3]]
        print(path, *(f"{name} {value:.4f}" for name, value in best), sep="\t")


if __name__ == "__main__":
    main(sys.argv[1:])
