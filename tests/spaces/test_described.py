import pytest
import torch

from pyg_nas_np.spaces import (
    GraphSpace,
    MobileNetV3Space,
    NASBench101Space,
    NASBench201Space,
    NASBenchGraphSpace,
    OperationGraph,
    ParameterSpace,
    to_networkx,
)
from pyg_nas_np.spaces.described import described_graphs, has_graphs
from pyg_nas_np.spaces.operations import IDENTITY, POOL, ZERO

CELLS = [NASBench101Space(), NASBench201Space(), NASBenchGraphSpace(), MobileNetV3Space()]


@pytest.mark.parametrize("space", CELLS, ids=lambda space: space.name)
def test_graphs_of_cells_are_those_of_the_space(space):
    archs = space.sample(12, torch.Generator().manual_seed(0))
    graphs = described_graphs(space, archs)
    assert graphs.num_graphs == 12
    assert [op.name for op in graphs.operations] == list(space.op_names)
    for row, arch in enumerate(archs):
        one, expected = graphs.select(torch.tensor([row])), to_networkx(space, arch)
        assert one.op.numel() == expected.number_of_nodes()
        assert {tuple(edge) for edge in one.edge_index.T.tolist()} == set(expected.edges)
        names = [graphs.operations[op].name for op in one.op.tolist()]
        assert names == [name for _, name in expected.nodes(data="op")]
    # Sorted by target, then source.
    keys = graphs.edge_index[1] * graphs.op.numel() + graphs.edge_index[0]
    assert bool((keys.diff() > 0).all())


@pytest.mark.parametrize("space", CELLS, ids=lambda space: space.name)
def test_every_operation_is_described(space):
    for op in described_graphs(space, space.sample(1)).operations[2:]:
        assert op.kind != op.name or op.name == "identity"


def test_roles_and_attributes():
    space = NASBench201Space()
    graphs = described_graphs(space, torch.tensor([6111]))
    kinds = {op.name: op.kind for op in graphs.operations}
    assert kinds["none"] == ZERO
    assert kinds["skip_connect"] == IDENTITY
    assert kinds["avg_pool_3x3"] == POOL
    kernel = graphs.attributes[:, graphs.attribute_names.index("kernel")]
    names = [graphs.operations[op].name for op in graphs.op.tolist()]
    for name, value in zip(names, kernel.tolist(), strict=True):
        expected = {"nor_conv_1x1": 1.0, "nor_conv_3x3": 3.0, "avg_pool_3x3": 3.0}.get(name)
        assert value == expected if expected else value != value


def test_own_graphs_are_passed_on():
    graph = OperationGraph.of([("conv", {"kernel": 3.0}), ("linear", {})], [(0, 1)])
    space = GraphSpace([graph, OperationGraph.of([("conv", {"kernel": 5.0}), ("linear", {})], [(0, 1)])])
    assert has_graphs(space)
    assert described_graphs(space, [graph]).op.tolist() == space.operation_graphs([graph]).op.tolist()
    assert not has_graphs(ParameterSpace.from_records([{"a": 1}, {"a": 2}]))
