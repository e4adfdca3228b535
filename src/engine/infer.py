"""Class probabilities of image files: python infer.py photo.jpg (see preprocess.json)"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

warnings.simplefilter("error", Image.DecompressionBombWarning)  # refuse above 89 megapixels
FOLDER, BILINEAR = Path(__file__).resolve().parent, Image.Resampling.BILINEAR
TURNS: dict = dict(zip((2, 3, 4, 5, 6, 7, 8), (0, 3, 1, 5, 4, 6, 2), strict=True))  # of EXIF


def to_8_bit(pixels):
    values = pixels.astype(np.float64)
    highest = values.max(initial=0)
    values /= highest / 255 if highest > 65535 else 257 if highest > 255 else 1
    return values.clip(0, 255).round().astype(np.uint8)


def prepare(path, settings):  # -> uint8 (1, channels, size, size), or (height, width, channels)
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
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert(mode)
    if settings.get("resize_inside"):  # the graph resizes
        return np.asarray(image).reshape(image.height, image.width, -1)
    if settings["resize"] == "pad":
        scale = size[0] / max(image.size)
        inside = image.resize([max(1, round(side * scale)) for side in image.size], BILINEAR)
        image = Image.new(mode, size, tuple(settings["fill"]))
        image.paste(inside, ((size[0] - inside.width) // 2, (size[1] - inside.height) // 2))
    else:
        resize = ImageOps.fit if settings["resize"] == "crop" else Image.Image.resize
        image = resize(image, size, BILINEAR)
    return np.ascontiguousarray(np.asarray(image).reshape(*size, -1).transpose(2, 0, 1))[None]


def open_session(settings):
    options = onnxruntime.SessionOptions()
    if "fp16" in settings:  # all optimizations: onnxruntime 1.32 crashes at some networks on a CPU
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(FOLDER / settings["model"], options)


def predict(session, path, settings):
    output = session.run(None, {session.get_inputs()[0].name: prepare(path, settings)})[0]
    if settings.get("resize_inside"):
        return output  # the graph gives probabilities
    logits = output[0].astype(np.float64)
    return np.exp(logits - np.logaddexp.reduce(logits))


if __name__ == "__main__":
    settings = json.loads((FOLDER / "preprocess.json").read_text(encoding="utf-8"))
    session = open_session(settings)
    for path in sys.argv[1:]:
        values = predict(session, path, settings)
        best = (f"{settings['classes'][i]} {values[i]:.4f}" for i in (-values).argsort()[:3])
        print(path, *best, sep="\t")
