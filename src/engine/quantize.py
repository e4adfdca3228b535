"""Quantising an exported ONNX network to 8-bit integers, and what that costs and saves.

Method: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..datamodules import ImageDataModule
from .onnx_session import open_session

CALIBRATION_IMAGES = 200
REPEATS = 30  # of one image, for the latency


class _Reader(CalibrationDataReader):
    def __init__(self, images: torch.Tensor):
        self.rows: Iterator[torch.Tensor] = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        row = next(self.rows, None)
        return None if row is None else {"images": row.numpy()}


def quantize(path: Path, images: torch.Tensor) -> Path:
    """Write an int8 version beside a graph, with ranges of activations measured on images.

    Args:
        path: an exported graph, which keeps its content.
        images: uint8 (N, C, H, W).

    Returns:
        The path of the new graph.
    """
    prepared, target = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        _Reader(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    return target


def calibration_images(data: ImageDataModule) -> torch.Tensor:
    """Return random training images without augmentation, uint8 (N, C, H, W)."""
    count = data.sizes()["train"]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return data.images("train", order[:CALIBRATION_IMAGES])


def measure(path: Path, images: torch.Tensor, data: ImageDataModule | None) -> dict[str, Any]:
    """Return the size, the latency of one image, and the validation accuracy where data are given.

    The latency is the median of `REPEATS` calls with one image after three others.
    """
    session = open_session(path)
    seconds = []
    for _ in range(REPEATS + 3):
        start = time.perf_counter()
        session.run(["logits"], {"images": images[:1].numpy()})
        seconds.append(time.perf_counter() - start)
    result: dict[str, Any] = {
        "megabytes": path.stat().st_size / 1e6,
        "latency_ms": 1000 * median(seconds[3:]),
    }
    if data is not None:
        labels = data.labels("val")
        correct = 0
        for positions in torch.arange(len(labels)).split(16):
            pixels = data.images("val", positions).numpy()
            (logits,) = session.run(["logits"], {"images": pixels})
            correct += int((torch.from_numpy(logits).argmax(1) == labels[positions]).sum())
        result |= {"val_images": len(labels), "val_correct": correct}
    return result
