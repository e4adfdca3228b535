"""Exporting a checkpoint for other programs, and comparing it with the trained network."""

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig

from ..errors import UserError
from ..inference.calibration import Calibration, read_calibration
from ..inference.classifier import Classifier, build_network
from ..runs import checkpoint
from ..runs.reading import check_folder
from .export_checks import (
    TOLERANCE,
    compare_files,
    compare_pixels,
    own_data,
    random_images,
    real_images,
)
from .export_files import check_program, describe, write_files
from .export_formats import READERS, WRITERS, check_format, check_precision, silence

log = logging.getLogger(__name__)


def export(cfg: DictConfig) -> Path:
    """Write `cfg.ckpt` as `cfg.format` to `cfg.output` if both networks compute the same logits.

    The graph takes uint8 `images` (N, C, H, W) with any N and returns `logits` (N, num_classes).
    Normalization is inside. The file holds class names, size, channels and the way in which images
    are prepared: ONNX in `metadata_props`, pt2 in the extra file `metadata.json`. The same is
    written beside it as preprocess.json, for ONNX with infer.py, which predicts files.

    Returns:
        The path of the exported file.

    Raises:
        UserError: no such checkpoint or format, missing packages, or a network that cannot be
            exported or computes other logits after the export.
    """
    stored = checkpoint.read(cfg.ckpt)
    check_format(cfg.format)
    check_precision(cfg.precision, cfg.format)
    calibration = read_calibration(stored)
    # Of the calibration, the temperature is part of the graph.
    only_temperature = Calibration(calibration.temperature)
    classifier = Classifier(build_network(stored), stored["description"], only_temperature).eval()
    ckpt = checkpoint.find(cfg.ckpt)
    is_int8 = cfg.precision == "int8"
    target = _target_path(ckpt, cfg.output, f".{cfg.format}", ".int8" if is_int8 else "")
    check_program(target.parent)
    images, source = real_images(cfg.path, cfg.data.root, stored, classifier)
    settings = describe(classifier, ckpt)
    # Everything is made and compared in a folder of its own, and moved when it is right.
    with TemporaryDirectory(prefix=".export-", dir=target.parent) as name:
        part = Path(name) / target.name
        with silence():
            WRITERS[cfg.format](classifier, random_images(classifier, 2), part, settings)
            exported = READERS[cfg.format](part)
            differences = compare_pixels(classifier, exported, images, source)
            if is_int8:
                settings["int8"] = _quantize(cfg, stored, part, images)
        write_files(part.parent, part, settings)
        parity = None
        if cfg.path is not None and cfg.format == "onnx":
            parity = compare_files(classifier, cfg.path, part.parent)
            write_files(part.parent, part, settings | {"parity": parity})
        for file in part.parent.iterdir():
            os.replace(file, target.parent / file.name)
    _log(classifier, target, differences, None if images is not None else source)
    if is_int8:
        _log_int8(settings["int8"])
    if parity is not None:
        _log_parity(parity)
    if calibration.known is not None:
        log.info("Not exported: what predict.py recognizes unknown images by")
    log.info("%s", target)
    return target


def _log(
    classifier: Classifier, target: Path, differences: dict[str, float], not_compared: str | None
) -> None:
    log.info("Largest difference from the logits of the trained network (allowed: %g):", TOLERANCE)
    for name, difference in differences.items():
        log.info("  %.1e on %s", difference, name)
    if not_compared is not None:
        log.info("  not compared on real images: %s", not_compared)
    size = classifier.image_size
    log.info("Takes uint8 images (N, %d, %d, %d), not normalized", classifier.channels, size, size)
    megabytes = target.stat().st_size / 1e6
    log.info("Returns logits of %d classes; %.1f MB", len(classifier.classes), megabytes)


def _quantize(
    cfg: DictConfig, stored: dict[str, Any], part: Path, images: torch.Tensor | None
) -> dict[str, Any]:
    """Replace a graph by its int8 version; return what was measured of both."""
    from .quantize import calibration_images, measure, quantize

    data, reason = None, ""
    try:
        data = own_data(stored, cfg.data.root)
        data.setup("fit")
    except Exception as error:  # missing data cause errors of any kind
        data, reason = None, error.problem if isinstance(error, UserError) else str(error)
    if cfg.path is None and data is not None:
        images = calibration_images(data)
    if images is None:
        raise UserError(
            f"precision=int8 needs images, and the data cannot be read here: {reason}",
            "Give their folder with data.root=..., or other images with path=...",
        )
    quantized = quantize(part, images)
    measured = {"float32": measure(part, images, data), "int8": measure(quantized, images, data)}
    os.replace(quantized, part)
    return {"calibration_images": len(images), **measured}


def _log_int8(measured: dict[str, Any]) -> None:
    log.info("int8, calibrated on %d images:", measured["calibration_images"])
    for name in ("float32", "int8"):
        row = measured[name]
        log.info(
            "  %s: %.2f MB, %.2f ms for one image here", name, row["megabytes"], row["latency_ms"]
        )
    if "val_images" not in measured["int8"]:
        log.info("  accuracy not measured: give the folder of its own data with data.root=...")
        return
    correct, total = (measured["int8"][key] for key in ("val_correct", "val_images"))
    before = measured["float32"]["val_correct"]
    log.info(
        "  validation accuracy %.4f before, %.4f as int8: %+.4f on %s images",
        before / total,
        correct / total,
        (correct - before) / total,
        f"{total:,}",
    )


def _log_parity(parity: dict[str, Any]) -> None:
    log.info(
        "predict.py and infer.py on %s files: largest difference of probabilities %.1e, "
        "%s predictions differ",
        f"{parity['files']:,}",
        parity["max_probability_difference"],
        f"{parity['flipped']:,}",
    )


def _target_path(ckpt: Path, output: str | None, suffix: str, tag: str) -> Path:
    target = Path(output).expanduser().absolute() if output else ckpt.absolute().parent
    if output is None:
        check_folder(target)  # it may come from somebody else
    if target.is_dir():
        return target / f"{ckpt.stem}{tag}{suffix}"
    if target.suffix != suffix:
        raise UserError(
            f"output={output} does not end in {suffix}.",
            "Name a file that does, a folder, or another format=.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
