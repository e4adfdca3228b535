"""The formats of an export: ONNX and pt2, which both take pixels and return logits.

Formats: https://onnx.ai and https://docs.pytorch.org/docs/stable/export.html
"""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..inference.classifier import Classifier

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_MIN_TORCH = (2, 8)  # the exporter of torch 2.6 fails inside onnxscript; 2.7 was not tried

DYNAMIC_BATCH = ({0: torch.export.Dim("batch", min=1)},)

Network = Callable[[torch.Tensor], torch.Tensor]  # uint8 images -> logits


def check_format(name: str) -> None:
    """Raise a `UserError` unless a format is known and what it needs is installed."""
    if name not in WRITERS:
        raise UserError(f"format={name} is unknown.", f"Choose {' or '.join(WRITERS)}.")
    if name != "onnx":
        return
    missing = [package for package in ONNX_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"format=onnx needs {', '.join(missing)}.",
            'Install the extra: pip install -e ".[export]"',
        )
    if torch_version() < ONNX_MIN_TORCH:
        raise UserError(
            f"format=onnx needs torch {ONNX_MIN_TORCH[0]}.{ONNX_MIN_TORCH[1]}; this is "
            f"{torch.__version__}.",
            "Update torch, or use format=pt2.",
        )


def check_precision(precision: str, kind: str) -> None:
    """Raise a `UserError` unless a precision is known and the format has it."""
    if precision not in ("float32", "int8") or (precision == "int8" and kind != "onnx"):
        raise UserError(
            f"precision={precision} with format={kind} is unknown.",
            "Choose precision=float32, or precision=int8 with format=onnx.",
        )


def torch_version() -> tuple[int, ...]:
    """Return the major and minor version of torch."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def _write_onnx(
    classifier: Classifier, example: torch.Tensor, path: Path, metadata: dict[str, Any]
) -> None:
    with _export_errors():
        program: Any = torch.onnx.export(
            classifier,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=DYNAMIC_BATCH,
            external_data=False,
            verbose=False,
        )
        for key, value in metadata.items():
            text = value if isinstance(value, str) else json.dumps(value)
            program.model.metadata_props[key] = text
        program.save(path, external_data=False)


def _read_onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def compute(images: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return compute


def _write_pt2(
    classifier: Classifier, example: torch.Tensor, path: Path, metadata: dict[str, Any]
) -> None:
    with _export_errors():
        program = torch.export.export(classifier, (example,), dynamic_shapes=DYNAMIC_BATCH)
    extra = {"metadata.json": json.dumps(metadata)}
    torch.export.save(program, path, extra_files=extra)


def _read_pt2(path: Path) -> Network:
    return torch.export.load(path).module()


WRITERS = {"onnx": _write_onnx, "pt2": _write_pt2}
READERS = {"onnx": _read_onnx, "pt2": _read_pt2}


@contextmanager
def _export_errors() -> Iterator[None]:
    """Raise a UserError for what cannot be part of a graph; the cause keeps its traceback."""
    try:
        yield
    except Exception as error:  # the exporters raise errors of many kinds, also plain Exception
        raise UserError(
            f"The network cannot be exported: {str(error).strip().splitlines()[0]}.",
            "Operations that depend on pixel values or on the batch size cannot be exported.",
        ) from error


@contextmanager
def silence() -> Iterator[None]:
    """Suppress the exporters' log messages, warnings and prints about successful steps."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
