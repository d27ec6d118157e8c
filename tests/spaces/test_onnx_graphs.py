"""Graphs of operations from ONNX files."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from pyg_nas_np.spaces import GraphSpace, trace
from pyg_nas_np.spaces.onnx_graphs import from_onnx
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError

onnx = pytest.importorskip("onnx")


def weight(name, *shape):
    return onnx.numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name)


def value(name, *shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def written(path, nodes, output="y", shape=(1, 4)):
    weights = [weight("w", 8, 3, 3, 3), weight("b", 8), weight("h", 4, 8)]
    graph = onnx.helper.make_graph(nodes, "net", [value("x", 1, 3, 6, 6)], [value(output, *shape)], weights)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


@pytest.fixture
def network(tmp_path):
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"]),
        make("Add", ["c", "r"], ["a"]),
        make("GlobalAveragePool", ["a"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "h"], ["y"], transB=1),
    ]
    return written(tmp_path / "net.onnx", nodes)


def test_it_is_the_graph_of_the_same_module(network):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4, bias=False)

        def forward(self, x):
            x = self.conv(x)
            x = x + torch.relu(x)
            return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    expected = trace(Net(), torch.empty(1, 3, 6, 6)).graph
    found = from_onnx(network)
    assert [node.op for node in found.nodes] == [node.op for node in expected.nodes]
    assert found.edges == expected.edges
    assert [dict(node.attributes) for node in found.nodes] == [dict(node.attributes) for node in expected.nodes]
    assert len(GraphSpace([found, expected])) == 2


def test_damaged_files_are_refused(network, tmp_path, mutations):
    for i, content in enumerate(mutations(network.read_bytes(), count=60)):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(content)
        with contextlib.suppress(DataFileError, InvalidArchitectureError):
            from_onnx(path)
    with pytest.raises(DataFileError, match="missing"):
        from_onnx(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(DataFileError, match="not an ONNX model"):
        from_onnx(tmp_path / "empty.onnx")


def test_an_output_that_ignores_the_input_is_told(tmp_path):
    node = onnx.helper.make_node("Identity", ["h"], ["y"])
    with pytest.raises(InvalidArchitectureError, match="no output depends"):
        from_onnx(written(tmp_path / "net.onnx", [node], shape=(4, 8)))
