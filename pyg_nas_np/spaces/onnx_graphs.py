r"""Graphs of operations from ONNX files (extra ``onnx``)."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from pyg_nas_np.spaces.operation_graph import OperationGraph
from pyg_nas_np.utils import InvalidArchitectureError, foreign_file, require
from pyg_nas_np.utils.files import read_bytes

_NAMES = {
    "BatchNormalization": "batch_norm", "LayerNormalization": "layer_norm", "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm", "GlobalAveragePool": "adaptive_avg_pool2d",
    "GlobalMaxPool": "adaptive_max_pool2d", "ReduceMean": "mean", "Concat": "cat", "Clip": "hardtanh",
    "Resize": "interpolate", "Gemm": "linear", "HardSwish": "hardswish", "LeakyRelu": "leaky_relu", "PRelu": "prelu",
    "Attention": "scaled_dot_product_attention",
}  # fmt: skip

_PASSING = frozenset(
    {"Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Cast", "Dropout", "Slice", "Pad"}
)


def from_onnx(path: str | os.PathLike[str]) -> OperationGraph:
    r"""Reads the graph of a network from an ONNX file, named and described as those of traced modules.

    Weights are not used, and those in files beside it are not read. Control flow (``If``, ``Loop``) is one node.

    Args:
        path: The file.

    Raises:
        DataFileError: If the file is missing, damaged or not an ONNX model.
        InvalidArchitectureError: If no output depends on an input.
        MissingExtraError: If onnx is not installed.
    """
    onnx = require("onnx", "onnx")
    data = read_bytes(path)
    with foreign_file(path, "an ONNX model", "export it again"):
        model = onnx.load_model_from_string(data)
        if not model.graph.node and not model.graph.output:
            raise ValueError("it has no graph")
        model = onnx.shape_inference.infer_shapes(model)
        nodes, edges = _read(onnx, model.graph)
    if not any(target == len(nodes) - 1 for _, target in edges):
        raise InvalidArchitectureError(f"{os.fspath(path)}: no output depends on an input")
    return OperationGraph.of(nodes, edges)


def _read(onnx: Any, graph: Any) -> tuple[list[tuple[str, dict[str, float]]], list[tuple[int, int]]]:
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    nodes: list[tuple[str, dict[str, float]]] = []
    edges: list[tuple[int, int]] = []
    made: dict[str, int] = {}
    for value in graph.input:
        # Older files list weights among the inputs.
        if value.name not in weights:
            made[value.name] = len(nodes)
            size = _size(shapes[value.name])
            nodes.append(("input", {"elements": size["elements"]} if "elements" in size else {}))
    for node in graph.node:
        sources = [made[name] for name in node.input if name in made]
        if not sources:
            continue
        if node.op_type in _PASSING and len(set(sources)) == 1:
            made.update(dict.fromkeys(node.output, sources[0]))
            continue
        settings = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        held = [weights[name] for name in node.input if name in weights]
        edges += [(source, len(nodes)) for source in sources]
        made.update(dict.fromkeys(node.output, len(nodes)))
        nodes.append(_described(node.op_type, settings, held, shapes.get(node.output[0], [])))
    edges += [(made[value.name], len(nodes)) for value in graph.output if value.name in made]
    nodes.append(("output", {}))
    return nodes, edges


def _described(
    kind: str, settings: dict[str, Any], held: list[list[int]], shape: list[int]
) -> tuple[str, dict[str, float]]:
    attributes = _size(shape)
    spatial = settings.get("kernel_shape") or (held[0][2:] if kind.startswith("Conv") and held else [])
    if spatial:
        attributes["kernel"] = math.prod(spatial) ** (1 / len(spatial))
        for name, key in (("stride", "strides"), ("dilation", "dilations")):
            values = settings.get(key) or [1]
            attributes[name] = math.prod(values) ** (1 / len(values))
    if parameters := sum(math.prod(dims) for dims in held):
        attributes["parameters"] = float(parameters)
    name = _NAMES.get(kind, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower())
    out = math.prod(shape)
    if kind in ("Conv", "ConvTranspose") and held:
        groups = settings.get("group", 1)
        # The weights of a transposed convolution begin with its inputs.
        inside = held[0][1] * groups if kind == "Conv" else held[0][0]
        attributes |= {"groups": float(groups), "in_channels": float(inside)}
        if kind == "Conv":
            attributes["macs"] = float(out * math.prod(held[0][1:]))
    elif kind in ("Gemm", "MatMul") and held:
        name = "linear"
        inside = held[0][1 if settings.get("transB") else 0]
        attributes |= {"in_channels": float(inside), "macs": float(out * inside)}
    if name in ("conv", "conv_transpose", "max_pool", "average_pool"):
        name = f"{name.replace('average', 'avg')}{len(spatial) or 2}d"
    return name, {key: value for key, value in attributes.items() if key != "macs" or value}


def _size(shape: list[int]) -> dict[str, float]:
    """Elements of one example and channels, where the file knows them."""
    if not shape:
        return {}
    found = {"elements": float(math.prod(shape[1:]))} if all(shape[1:]) else {}
    channels = shape[1] if len(shape) >= 4 else shape[-1]
    return found | ({"channels": float(channels)} if channels and len(shape) > 1 else {})
