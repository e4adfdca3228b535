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
from torch import nn

from ..errors import UserError
from ..inference.classifier import Classifier
from .onnx_session import open_session

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_MIN_TORCH = (2, 8)  # the exporter of torch 2.6 fails inside onnxscript; 2.7 was not tried

PRECISIONS = ("float32", "fp16", "int8")
DYNAMIC_BATCH = ({0: torch.export.Dim("batch", min=1)},)

Network = Callable[[torch.Tensor], torch.Tensor]  # uint8 images -> logits


def check_format(name: str) -> None:
    """Raise a `UserError` unless a format is known and what it needs is installed."""
    if name not in WRITERS:
        raise UserError(f"format={name} is unknown.", f"Choose hub, {' or '.join(WRITERS)}.")
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


def check_variant(kind: str, precision: str, resize: bool) -> None:
    """Raise a `UserError` unless a format has this precision and can resize inside."""
    if precision not in PRECISIONS or (precision != "float32" and kind != "onnx"):
        raise UserError(
            f"precision={precision} with format={kind} is unknown.",
            "Choose precision=float32, or precision=fp16 or int8 with format=onnx.",
        )
    if resize and (kind != "onnx" or precision == "int8"):
        raise UserError(
            f"resize=true is not possible with format={kind} precision={precision}.",
            "Choose format=onnx with precision=float32 or fp16, or leave resize=true out.",
        )


def torch_version() -> tuple[int, ...]:
    """Return the major and minor version of torch."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def write_onnx(
    network: nn.Module,
    example: torch.Tensor,
    path: Path,
    metadata: dict[str, Any],
    names: tuple[str, str] = ("images", "logits"),
    dynamic_shapes: Any = DYNAMIC_BATCH,
) -> None:
    """Write a graph with the `names` of its input and output, and its metadata.

    Raises:
        UserError: the network cannot be exported.
    """
    with _export_errors():
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=dynamic_shapes,
            external_data=False,
            verbose=False,
        )
        for key, value in metadata.items():
            text = value if isinstance(value, str) else json.dumps(value)
            program.model.metadata_props[key] = text
        program.save(path, external_data=False)


def read_onnx(path: Path) -> Network:
    """Return a graph with one input and one output as a function of tensors."""
    session = open_session(path)
    (given,) = session.get_inputs()

    def compute(images: torch.Tensor) -> torch.Tensor:
        (output,) = session.run(None, {given.name: images.numpy()})
        return torch.from_numpy(output)

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


WRITERS: dict[str, Callable[..., None]] = {"onnx": write_onnx, "pt2": _write_pt2}
READERS = {"onnx": read_onnx, "pt2": _read_pt2}


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
