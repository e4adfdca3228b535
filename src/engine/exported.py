"""Reading an exported ONNX file back, which may come from a stranger, as a network to evaluate."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..runs import checkpoint
from ..runs.reading import read_bytes

MAX_BYTES = 2**31 - 1  # of a protobuf message
MAX_NODES = 100_000
MAX_METADATA = 10_000_000  # characters
DOMAINS = ("", "ai.onnx")
NUMBERS = ("channels", "image_size")
LISTS = ("classes", "mean", "std")


class Exported(nn.Module):
    """An exported network: images from 0 to 1, (N, C, H, W), to logits (N, num_classes)."""

    def __init__(self, session: Any):
        super().__init__()
        self.session = session

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give the graph the pixels from 0 to 255 that it takes."""
        pixels = (images * 255).round().to(torch.uint8).cpu().numpy()
        (logits,) = self.session.run(["logits"], {"images": pixels})
        return torch.from_numpy(logits).to(images.device)


def read_exported(path: Path) -> tuple[Exported, dict[str, Any]]:
    """Return the network of an ONNX file, and a checkpoint's `description` made of its metadata.

    Raises:
        UserError: the file is missing, or is no export of this project.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{path} needs {package}.", 'Install the extra: pip install -e ".[export]"'
            )
    import onnxruntime

    try:
        content = read_bytes(path, MAX_BYTES)
        description = _check(content)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # From bytes, so that no other file is read.
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        _check_session(session, description)
    except MemoryError:
        raise
    except Exception as error:  # there is no end of ways in which a file can be wrong
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"{path} is no network exported by this project: {reason[0][:200]}.",
            "Give an .onnx file that export.py has written, and check where this one comes from.",
        ) from error
    return Exported(session), description


def _check(content: bytes) -> dict[str, Any]:
    """Return the description in the metadata of a graph that holds nothing which runs unbounded."""
    import onnx

    model = onnx.load_from_string(content)
    _check_graph(model)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if sum(map(len, texts.values())) > MAX_METADATA:
        raise ValueError("its metadata are too large")
    missing = [key for key in (*LISTS, *NUMBERS, "resize") if key not in texts]
    if missing:
        raise ValueError(f"its metadata lack {', '.join(missing)}")
    description = {key: json.loads(texts[key]) for key in (*LISTS, *NUMBERS)}
    description["resize"] = texts["resize"]
    problem = checkpoint.find_problem(description)
    if problem is not None:
        raise ValueError(problem)
    return description


def _check_graph(model: Any) -> None:
    from onnx import AttributeProto, TensorProto

    graph = model.graph
    if model.functions or graph.sparse_initializer or len(graph.node) > MAX_NODES:
        raise ValueError("it holds functions, sparse tensors or too many operations")
    for node in graph.node:
        kinds = {attribute.type for attribute in node.attribute}
        if kinds & {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
            raise ValueError(f"it holds a loop or branch ({node.op_type})")
        if node.domain not in DOMAINS:
            raise ValueError(f"it holds an operation of {node.domain}")
    for tensor in graph.initializer:
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            raise ValueError("its weights are in another file")


def _check_session(session: Any, description: dict[str, Any]) -> None:
    channels, size = description["channels"], description["image_size"]
    inputs = [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()]
    outputs = [(o.name, o.type) for o in session.get_outputs()]
    if inputs != [("images", "tensor(uint8)", [channels, size, size])]:
        raise ValueError("it does not take the images that its metadata describe")
    if outputs != [("logits", "tensor(float)")]:
        raise ValueError("it does not return logits")
    pixels = torch.zeros(1, channels, size, size, dtype=torch.uint8).numpy()
    (logits,) = session.run(["logits"], {"images": pixels})
    if logits.shape != (1, len(description["classes"])):
        raise ValueError("it does not return one logit per class")
