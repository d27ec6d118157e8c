"""Descriptors of graphs of described operations."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.features import MetaFeatures, OperationFeatures, OperationNetworks
from pyg_nas_np.spaces import GraphSpace, NASBench201Space, Operation, OperationGraph, SampledGraphSpace
from pyg_nas_np.spaces.operation_graph import Node
from pyg_nas_np.spaces.testing import seeded

OPS = (Operation("conv3x3", kind="conv", kernel=3), Operation("conv1x1", kind="conv", kernel=1))


def drawn(generator):
    """Up to seven nodes of all sorts between an input and an output, some recurrent."""

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    count = 2 + draw(6)
    names = ["conv3x3", "conv1x1", "skip_connect", "none", "avg_pool", "add"]
    nodes = [("input", {})]
    edges = [(0, count + 1)]
    for i in range(1, count + 1):
        nodes.append((names[draw(6)], {"channels": 2.0 ** (3 + draw(4))} if draw(2) else {}))
        edges += [(draw(i), i) for _ in range(1 + draw(2))]
    nodes.append(("output", {}))
    edges += [(i, count + 1) for i in range(1, count + 1) if draw(2)]
    recurrent = [(1 + draw(count), 1 + draw(count))] if draw(4) == 0 else []
    return OperationGraph.of(nodes, edges, recurrent)


SPACE = SampledGraphSpace(drawn, OPS)
FEATURES = OperationFeatures(SPACE)
NETWORKS = OperationNetworks(SPACE, num_functions=24, rank=8)


def in_another_order(graph: OperationGraph, order: list[int]) -> OperationGraph:
    """The same graph in another topological order, which is not the canonical one."""
    priority = {node: i for i, node in enumerate(order)}
    missing = {v: sum(target == v for _, target in graph.edges) for v in range(len(graph.nodes))}
    to: dict[int, int] = {}
    while len(to) < len(graph.nodes):
        v = min((v for v in missing if v not in to and missing[v] == 0), key=priority.__getitem__)
        to[v] = len(to)
        for source, target in graph.edges:
            missing[target] -= source == v
    nodes = [Node("") for _ in to]
    for v, i in to.items():
        nodes[i] = graph.nodes[v]
    moved = [
        tuple(sorted(((to[u], to[v]) for u, v in part), key=lambda edge: edge[::-1]))
        for part in (graph.edges, graph.recurrent)
    ]
    return OperationGraph(tuple(nodes), *moved)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.permutations(range(10)))
def test_the_order_of_nodes_does_not_matter(seed, order):
    graph = drawn(seeded(seed))
    other = in_another_order(graph, order)
    assert OperationGraph.from_json(other.to_json()) == graph
    for features in (FEATURES, NETWORKS):
        one, same = features.table([graph]), features.table([other])
        torch.testing.assert_close(same, one, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_what_is_beside_a_graph_in_a_batch_does_not_matter(seed):
    graphs = SPACE.sample(5, seeded(seed), replace=True)
    for features in (FEATURES, NETWORKS):
        alone = torch.cat([features.table([graph]) for graph in graphs])
        torch.testing.assert_close(features.table(graphs), alone, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def cells():
    """A hundred cells of NAS-Bench-201 as graphs that this package knows nothing of."""
    space = NASBench201Space()
    index = space.sample_indices(100, seeded())
    dense = space.dense(index)
    graphs = []
    for ops, adjacency, size in zip(dense.ops, dense.adjacency, dense.num_nodes.tolist(), strict=True):
        nodes = [(space.op_names[op], {}) for op in ops[:size].tolist()]
        graphs.append(OperationGraph.of(nodes, [tuple(edge) for edge in adjacency.nonzero().tolist()]))
    vocabulary = [Operation("avg_pool_3x3", kind="pool")]
    return index, GraphSpace([*graphs, graphs[0]], vocabulary)


@pytest.mark.parametrize(
    "name",
    [f"path_{kind}_{op}" for kind in ("min", "max", "mean") for op in ("nor_conv_3x3", "avg_pool_3x3", "work")]
    + ["dead", "bypass", "live_nor_conv_1x1"],
)
def test_cells_are_described_as_by_meta_features(cells, name):
    index, space = cells
    ours, theirs = OperationFeatures(space, standardize=False), MetaFeatures(NASBench201Space(), standardize=False)
    found = ours.table()[: len(index), ours.feature_names.index(name)]
    torch.testing.assert_close(found, theirs.table(index)[:, theirs.feature_names.index(name)])


def one_way(*nodes, edges=None):
    return OperationGraph.of(list(nodes), edges or [(i, i + 1) for i in range(len(nodes) - 1)])


def test_golden_values_of_a_small_graph():
    conv = ("conv3x3", {})
    branched = one_way(
        ("input", {}), conv, ("conv1x1", {}), ("skip", {}), ("add", {}), ("output", {}),
        edges=[(0, 1), (1, 2), (0, 3), (2, 4), (3, 4), (4, 5)],
    )  # fmt: skip
    plain, double = one_way(("input", {}), conv), one_way(("input", {}), conv, ("skip", {}), conv, conv)
    features = OperationFeatures(GraphSpace([branched, plain, double], OPS), standardize=False)
    row = dict(zip(features.feature_names, features.table()[0].tolist(), strict=True))
    assert (row["path_min_work"], row["path_max_work"], row["path_mean_conv3x3"]) == (0.0, 2.0, 0.5)
    # That is, the identity is no node of the live part, and both ways pass the sum.
    assert row["live_nodes"] == 5.0
    assert row["live_edges"] == 5.0
    assert row["log_paths"] == pytest.approx(0.6931, abs=1e-4)


def test_ways_beyond_any_float_are_counted():
    nodes, edges = [("input", {})], []
    for i in range(1200):
        nodes += [("conv3x3", {}), ("add", {})]
        edges += [(2 * i, 2 * i + 1), (2 * i, 2 * i + 2), (2 * i + 1, 2 * i + 2)]
    deep = OperationGraph.of(nodes, edges)
    features = OperationFeatures(GraphSpace([deep, one_way(("input", {}), ("conv3x3", {}))], OPS), standardize=False)
    row = dict(zip(features.feature_names, features.table()[0].tolist(), strict=True))
    assert row["log_paths"] == pytest.approx(1200 * 0.693147, rel=1e-4)
    assert row["path_mean_work"] == pytest.approx(600.0, rel=1e-4)
    assert bool(OperationNetworks(features.space, num_functions=8).table().isfinite().all())


def test_recurrent_edges_change_what_networks_compute():
    nodes = [("input", {}), ("linear", {}), ("tanh", {}), ("output", {})]
    edges = [(0, 1), (1, 2), (2, 3)]
    space = GraphSpace([OperationGraph.of(nodes, edges), OperationGraph.of(nodes, edges, [(2, 1)])])
    table = OperationNetworks(space, num_functions=16).table()
    assert float((table[0] - table[1]).norm()) > 0.1


def test_unknown_operations_and_attributes_are_described_too():
    other = one_way(("input", {}), ("attention", {"heads": 4}), ("output", {}))
    for features in (FEATURES, NETWORKS):
        table = features.table([other])
        assert bool(table.isfinite().all())
        assert table.dtype == torch.float32
        assert features.table([]).shape == (0, table.size(1))


def test_attributes_that_span_decades_are_on_a_log_scale():
    graphs = [one_way(("input", {}), ("linear", {"width": 2.0**i})) for i in range(1, 11)]
    features = OperationFeatures(GraphSpace(graphs))
    column = features.table()[:, features.feature_names.index("sum_width_linear")]
    steps = column.diff()
    torch.testing.assert_close(steps, steps[:1].expand(9), rtol=1e-4, atol=1e-5)


def test_groups_cover_all_columns_and_costs_are_one():
    graphs = SPACE.sample(30, seeded())
    features = OperationFeatures(GraphSpace(graphs, OPS, costs={"params": range(30)}))
    groups = features.feature_groups
    assert sorted(itertools.chain.from_iterable(groups.values())) == list(range(len(features.feature_names)))
    assert [features.feature_names[i] for i in groups["cost"]] == ["log_params"]
    assert len(set(features.feature_names)) == len(features.feature_names)


def test_graphs_that_are_all_alike_are_told():
    with pytest.raises(ValueError, match="alike"):
        OperationFeatures(GraphSpace([one_way(("a", {}), ("b", {}))] * 2)).table()


def test_other_defaults_change_nothing(foreign_defaults):
    graphs = SPACE.sample(8, seeded())
    before = [OperationFeatures(GraphSpace(graphs)).table(), OperationNetworks(GraphSpace(graphs)).table()]
    with foreign_defaults():
        after = [OperationFeatures(GraphSpace(graphs)).table(), OperationNetworks(GraphSpace(graphs)).table()]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_rows_of_a_pool_are_those_of_its_table():
    space = GraphSpace(SPACE.sample(20, seeded()), OPS)
    few, many = torch.tensor([3, 1]), torch.arange(19, -1, -1)
    for features in (OperationFeatures(space), OperationNetworks(space, num_functions=16)):
        whole = features.table()
        for rows in (few, many):
            torch.testing.assert_close(features.table(rows), whole[rows], rtol=1e-4, atol=1e-4)
        whole.zero_()
        assert float(features.table().abs().max()) > 0
