"""Exporting a checkpoint for other programs, and comparing it with the trained network."""

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from ..errors import UserError
from ..inference.calibration import Calibration, read_calibration
from ..inference.classifier import Classifier, build_network
from ..runs import checkpoint
from ..runs.reading import check_folder
from .export_checks import TOLERANCE, compare_files, compare_pixels, random_images, real_images
from .export_files import INFER, TEMPLATE, check_replaced, describe, write_files
from .export_formats import READERS, WRITERS, check_format, check_variant, silence
from .export_hub import export_hub
from .export_photo import put_resize_inside
from .export_precision import log_precision, reduce_precision

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
    check_variant(cfg.format, cfg.precision, cfg.resize)
    classifier = _classifier(stored)
    ckpt = checkpoint.find(cfg.ckpt)
    write = export_hub if cfg.format == "hub" else _export_graph
    target, differences, not_compared = write(cfg, stored, classifier, ckpt)
    _log(classifier, target, differences, not_compared)
    log.info("%s", target.parent if cfg.format == "hub" else target)
    return target


def _classifier(stored: dict[str, Any]) -> Classifier:
    """The network with its temperature, which becomes a part of the graph."""
    calibration = read_calibration(stored)
    if calibration.known is not None:
        log.info("Not exported: what predict.py recognizes unknown images by")
    exported = Calibration(calibration.temperature, calibration.confidences)
    return Classifier(build_network(stored), stored["description"], exported).eval()


def _export_graph(
    cfg: DictConfig, stored: dict[str, Any], classifier: Classifier, ckpt: Path
) -> tuple[Path, dict[str, float], str | None]:
    """Write the graph with what lies beside it, and log what was measured of its variants.

    Returns:
        The file, the differences of logits, and why real images are not compared.
    """
    check_format(cfg.format)
    target = _target_path(cfg, ckpt)
    check_replaced(target.parent / INFER, TEMPLATE.read_text(encoding="utf-8").splitlines()[0])
    images, source = real_images(cfg.path, cfg.data.root, stored, classifier)
    settings = describe(classifier, ckpt)
    # Everything is made and compared in a folder of its own, and moved when it is right.
    with TemporaryDirectory(prefix=".export-", dir=target.parent) as name:
        part = Path(name) / target.name
        with silence():
            WRITERS[cfg.format](classifier, random_images(classifier, 2), part, settings)
            exported = READERS[cfg.format](part)
            differences = compare_pixels(classifier, exported, images, source)
            if cfg.precision != "float32":
                measured = reduce_precision(cfg, stored, classifier, part, settings, images)
                settings[cfg.precision] = measured
            if cfg.resize:
                settings |= put_resize_inside(classifier, part, settings)
        write_files(part.parent, part, settings)
        if cfg.path is not None and cfg.format == "onnx":
            settings["parity"] = compare_files(classifier, cfg.path, part.parent)
            write_files(part.parent, part, settings)
        for file in part.parent.iterdir():
            os.replace(file, target.parent / file.name)
    _log_variants(cfg, settings)
    return target, differences, None if images is not None else source


def _log_variants(cfg: DictConfig, settings: dict[str, Any]) -> None:
    if cfg.precision != "float32":
        log_precision(settings[cfg.precision], cfg.precision)
    if cfg.resize:
        log.info(
            "Resizes inside: takes a uint8 photo (H, W, %d) and returns probabilities; largest "
            "difference on random photos %.1e",
            settings["channels"],
            settings["resize_inside"]["max_probability_difference"],
        )
    if "parity" in settings:
        _log_parity(settings["parity"])


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


def _log_parity(parity: dict[str, Any]) -> None:
    for name, row in parity.items():
        log.info(
            "predict.py and %s on %s files: largest difference of probabilities %.1e, "
            "%s predictions differ",
            name,
            f"{row['files']:,}",
            row["max_probability_difference"],
            f"{row['flipped']:,}",
        )


def _target_path(cfg: DictConfig, ckpt: Path) -> Path:
    target = Path(cfg.output).expanduser().absolute() if cfg.output else ckpt.absolute().parent
    if not cfg.output:
        check_folder(target)  # it may come from somebody else
    suffix = f".{cfg.format}"
    if target.is_dir():
        precision = "" if cfg.precision == "float32" else f".{cfg.precision}"
        return target / f"{ckpt.stem}{precision}{'.photo' if cfg.resize else ''}{suffix}"
    if target.suffix != suffix:
        raise UserError(
            f"output={cfg.output} does not end in {suffix}.",
            "Name a file that does, a folder, or another format=.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
