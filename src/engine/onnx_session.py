"""Sessions of onnxruntime on the CPU."""

from pathlib import Path
from typing import Any

import torch


def open_session(source: Path | bytes) -> Any:
    """Return a session of a graph, with as many threads as torch has in this process.

    Without its last level of optimization at half precision: there, onnxruntime 1.32 crashes at
    some networks (vit_b_16).

    Args:
        source: a file, or its content, from which no other file is read.
    """
    import onnx
    import onnxruntime

    content = source if isinstance(source, bytes) else source.read_bytes()
    weights = onnx.load_from_string(content).graph.initializer
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights):
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
