"""Reading an exported ONNX file back, which may come from a stranger, as a network to evaluate."""

import importlib.util
import json
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..inference.calibration import Calibration
from ..inference.classifier import Classifier
from ..runs import checkpoint
from ..runs.reading import read_bytes
from .export_checks import compare_pixels, random_images
from .export_files import describe
from .export_formats import check_format, read_onnx, silence, write_onnx
from .onnx_session import open_session

MAX_BYTES = 2**31 - 1  # of a protobuf message
MAX_NODES = 100_000
MAX_ELEMENTS = 2**28  # of a value for one image: 1 GiB of float32
MAX_METADATA = 10_000_000  # characters
DOMAINS = ("", "ai.onnx")
NUMBERS = ("channels", "image_size")
LISTS = ("classes", "mean", "std")


class Exported(nn.Module):
    """An exported network: images from 0 to 1, (N, C, H, W), to logits (N, num_classes).

    Its session starts at the first images, in the process that runs it, since the threads of a
    session do not survive the start of loader processes.
    """

    def __init__(self, content: bytes):
        super().__init__()
        self.content = content
        self.session: Any = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give the graph the pixels from 0 to 255 that it takes."""
        pixels = (images * 255).round().to(torch.uint8).cpu()
        return self.compute(pixels).to(images.device)

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> logits (N, num_classes)."""
        if self.session is None:
            self.session = open_session(self.content)
        (logits,) = self.session.run(["logits"], {"images": pixels.numpy()})
        return torch.from_numpy(logits)


class ExportedClassifier(Classifier):
    """An exported network with all that predictions need."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> logits (N, num_classes); the graph normalizes."""
        network: Any = self.model
        return network.compute(images)


def export_for_now(classifier: Classifier, ckpt: Path) -> ExportedClassifier:
    """Export a network into memory, without a file that stays.

    Raises:
        UserError: as `export`.
    """
    check_format("onnx")
    with TemporaryDirectory() as folder, silence():
        path = Path(folder, "network.onnx")
        description = describe(classifier, ckpt)
        write_onnx(classifier, random_images(classifier, 2), path, description)
        compare_pixels(classifier, read_onnx(path), None, "")
        # The temperature is in the graph.
        confidences = Calibration(confidences=classifier.calibration.confidences)
        return ExportedClassifier(Exported(path.read_bytes()), description, confidences)


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
    try:
        content = read_bytes(path, MAX_BYTES)
        description = _check(content)
        _check_session(open_session(content), description)
    except MemoryError:
        raise
    except Exception as error:  # there is no end of ways in which a file can be wrong
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"{path} is no network exported by this project: {reason[0][:200]}.",
            "Give an .onnx file that export.py has written, and check where this one comes from.",
        ) from error
    return Exported(content), description


def _check(content: bytes) -> dict[str, Any]:
    """Return the description in the metadata of a graph that holds nothing which runs unbounded."""
    import onnx

    model = onnx.load_from_string(content)
    _check_graph(model)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if sum(map(len, texts.values())) > MAX_METADATA:
        raise ValueError("its metadata are too large")
    if "resize_inside" in texts:
        raise ValueError("it takes photos of any size; export it without resize=true")
    missing = [key for key in (*LISTS, *NUMBERS, "resize") if key not in texts]
    if missing:
        raise ValueError(f"its metadata lack {', '.join(missing)}")
    description = {key: json.loads(texts[key]) for key in (*LISTS, *NUMBERS)}
    description["resize"] = texts["resize"]
    problem = checkpoint.find_problem(description)
    if problem is not None:
        raise ValueError(problem)
    _check_sizes(model, description)
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


def _check_sizes(model: Any, description: dict[str, Any]) -> None:
    """Refuse a graph with a value for one image that is large, or of a size that is not known."""
    from onnx.shape_inference import infer_shapes

    shape = model.graph.input[0].type.tensor_type.shape
    sizes = (1, description["channels"], description["image_size"], description["image_size"])
    if [dimension.dim_value for dimension in shape.dim[1:]] != list(sizes[1:]):
        raise ValueError("it does not take the images that its metadata describe")
    shape.dim[0].dim_value = 1
    del model.graph.value_info[:]  # what the file says itself is not believed
    graph = infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {tensor.name for tensor in graph.initializer}
    for value in graph.value_info:
        shape = value.type.tensor_type.shape
        if all(dimension.HasField("dim_value") for dimension in shape.dim):
            known.add(value.name)
            if prod(dimension.dim_value for dimension in shape.dim) > MAX_ELEMENTS:
                raise ValueError(f"its value {value.name} is too large")
    known |= {value.name for value in (*graph.input, *graph.output)}
    unknown = [name for node in graph.node for name in node.output if name and name not in known]
    if unknown:
        raise ValueError(f"the size of its value {unknown[0]} is not known")


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
