"""Exported networks of lower precision, int8 or fp16, and what that costs and saves."""

import copy
import logging
import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ..errors import UserError
from ..inference.classifier import Classifier
from .export_checks import MAX_IMAGES, own_data, random_images
from .export_formats import Network, read_onnx, write_onnx

log = logging.getLogger(__name__)
MAX_HALF = 8  # images that torch computes at half precision, which is slow on a CPU


class HalfClassifier(nn.Module):
    """uint8 (N, C, H, W) -> float32 logits, by a network in half precision.

    Normalization stays in float32, so that only the network's own values are rounded.
    """

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.classifier = classifier
        self.model = copy.deepcopy(classifier.model).half()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> logits (N, num_classes)."""
        return self.model(self.classifier.normalize(images).half()).float()


def reduce_precision(
    cfg: DictConfig,
    stored: dict[str, Any],
    classifier: Classifier,
    part: Path,
    metadata: dict[str, Any],
    images: torch.Tensor | None,
) -> dict[str, Any]:
    """Replace a float32 graph by one of `cfg.precision`; return what was measured of both.

    Args:
        part: the graph, with `metadata`.
        images: uint8 (N, C, H, W) to compare and, for int8, to calibrate with; None: there are
            none.

    Raises:
        UserError: int8 without images, or a network whose values are too large for fp16.
    """
    from .quantize import calibration_images, measure, quantize

    data, reason = None, ""
    try:
        data = own_data(stored, cfg.data.root)
        data.setup("fit")
    except Exception as error:  # missing data cause errors of any kind
        data, reason = None, error.problem if isinstance(error, UserError) else str(error)
    result: dict[str, Any] = {}
    if cfg.precision == "int8":
        if cfg.path is None and data is not None:
            images = calibration_images(data)
        if images is None:
            raise UserError(
                f"precision=int8 needs images, and the data cannot be read here: {reason}",
                "Give their folder with data.root=..., or other images with path=...",
            )
        reduced = quantize(part, images)
        result["calibration_images"] = len(images)
    else:
        images = random_images(classifier, MAX_IMAGES) if images is None else images
        reduced = part.with_name("half.onnx")
        half = HalfClassifier(classifier)
        write_onnx(half, random_images(classifier, 2), reduced, metadata)
    compared = images[: MAX_HALF if cfg.precision == "fp16" else MAX_IMAGES]
    # By torch at half precision: onnxruntime converts to float32 on a CPU, as no device does.
    network: Network = half if cfg.precision == "fp16" else read_onnx(reduced)
    with torch.inference_mode():
        before, after = (compute(compared).softmax(1) for compute in (read_onnx(part), network))
    if not after.isfinite().all():
        raise UserError(
            f"As {cfg.precision}, the network gives no numbers: its values are too large.",
            "No file was written. Export without precision=.",
        )
    result |= {
        "max_probability_difference": (before - after).abs().max().item(),
        "float32": measure(part, images, data),
        cfg.precision: measure(reduced, images, data),
    }
    os.replace(reduced, part)
    return result


def log_precision(measured: dict[str, Any], precision: str) -> None:
    """Log what `reduce_precision` has measured."""
    if "calibration_images" in measured:
        log.info("int8, calibrated on %d images:", measured["calibration_images"])
    else:
        log.info("%s, for devices that compute with it; on a CPU onnxruntime converts:", precision)
    for name in ("float32", precision):
        row = measured[name]
        log.info(
            "  %s: %.2f MB, %.2f ms for one image here", name, row["megabytes"], row["latency_ms"]
        )
    difference = measured["max_probability_difference"]
    log.info("  largest difference of probabilities from float32: %.1e", difference)
    if "val_images" not in measured[precision]:
        log.info("  accuracy not measured: give the folder of its own data with data.root=...")
        return
    correct, total = (measured[precision][key] for key in ("val_correct", "val_images"))
    before = measured["float32"]["val_correct"]
    log.info(
        "  validation accuracy %.4f before, %.4f as %s: %+.4f on %s images",
        before / total,
        correct / total,
        precision,
        (correct - before) / total,
        f"{total:,}",
    )
