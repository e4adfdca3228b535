"""What lies beside an exported network: how images are prepared, and a program without torch."""

import shutil
from pathlib import Path
from typing import Any

from ..datamodules.decode import FORMATS
from ..errors import UserError
from ..inference.classifier import Classifier
from ..runs.files import write_json
from ..runs.reading import UNREADABLE, read_text

PREPROCESS = "preprocess.json"
INFER = "infer.py"
TEMPLATE = Path(__file__).with_name(INFER)
MAX_TEXT = 1_000_000  # bytes


def describe(classifier: Classifier, ckpt: Path) -> dict[str, Any]:
    """Return all that a program needs to prepare images for the network and to name its outputs."""
    mode = "RGB" if classifier.channels == 3 else "L"
    return {
        "run": run_name(ckpt),
        "classes": classifier.classes,
        "channels": classifier.channels,
        "color_order": "RGB" if classifier.channels == 3 else "grey",
        "image_size": classifier.image_size,
        "resize": classifier.resize,
        "fill": [round(255 * value) for value in classifier.mean.flatten().tolist()],
        "interpolation": "bilinear",
        "antialias": True,
        "input": "uint8 (N, channels, image_size, image_size), 0 to 255, not normalized",
        "output": "logits (N, classes), divided by the temperature",
        "temperature": classifier.calibration.temperature,
        "normalization": "inside the network: (pixels / 255 - mean) / std",
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
        "formats": list(FORMATS),
        "jpeg": f"decoded by Pillow after Image.draft({mode!r}, (image_size, image_size))",
        "exif": "rotated and mirrored as the orientation says",
        "alpha": "put on white",
        "cmyk": f"converted to {mode} by Pillow, without its colour profile",
        "bit_depth": "grey with 16 or 32 bits: divided by 257 where the largest value is above "
        "255, by (largest / 255) where it is above 65535, and rounded",
        "order": "EXIF, bit depth, alpha, colour, resize",
    }


def run_name(ckpt: Path) -> str:
    """Return the name of the run folder of a checkpoint, or that of a file outside of one."""
    folder = ckpt.absolute().parent
    return folder.parent.name if folder.name == "checkpoints" else ckpt.name


def check_replaced(path: Path, mark: str) -> None:
    """Raise a `UserError` if a file is there without the text that an export writes into it."""
    if not path.exists():
        return
    try:
        text = read_text(path, MAX_TEXT)
    except UNREADABLE:
        text = ""
    if mark not in text:
        raise UserError(
            f"{path} would be replaced, and it was not written by export.py.",
            "Move it, or name another folder with output=.",
        )


def write_files(folder: Path, graph: Path, settings: dict[str, Any]) -> None:
    """Write preprocess.json, and for ONNX infer.py, which needs no package of this project."""
    write_json(folder / PREPROCESS, {"model": graph.name, **settings})
    if graph.suffix == ".onnx":
        shutil.copyfile(TEMPLATE, folder / INFER)
