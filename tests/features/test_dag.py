from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.features.dag import laplacian_spectrum, live_part, path_statistics, topological
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.utils import InvalidArchitectureError

ZERO = 4


@st.composite
def dags(draw, max_nodes=7):
    """A random labelled DAG in topological order, not necessarily connected; operation 4 outputs zero."""
    size = draw(st.integers(2, max_nodes))
    bits = draw(st.lists(st.booleans(), min_size=size * size, max_size=size * size))
    adjacency = torch.tensor(bits).view(size, size).triu(1)
    ops = torch.tensor([0, *draw(st.lists(st.integers(2, ZERO), min_size=size - 2, max_size=size - 2)), 1])
    return DenseGraphs(adjacency[None], ops[None], torch.tensor([size]))


def permuted(graphs, order):
    return DenseGraphs(graphs.adjacency[:, order][:, :, order], graphs.ops[:, order], graphs.num_nodes)


def live_paths(graphs):
    graph = nx.DiGraph(graphs.adjacency[0].int().numpy())
    ops = graphs.ops[0].tolist()
    graph.remove_nodes_from([v for v in list(graph) if ops[v] == ZERO])
    return list(nx.all_simple_paths(graph, ops.index(0), ops.index(1)))


@given(dags(), st.randoms(use_true_random=False))
def test_topological_order_keeps_the_graph(graphs, random):
    order = list(range(graphs.ops.size(1)))
    random.shuffle(order)
    ordered = topological(permuted(graphs, order))
    assert not ordered.adjacency.tril().any()
    before, after = (nx.DiGraph(g.adjacency[0].int().numpy()) for g in (graphs, ordered))
    for graph, ops in ((before, graphs.ops[0]), (after, ordered.ops[0])):
        nx.set_node_attributes(graph, {v: int(op) for v, op in enumerate(ops)}, "op")
    assert nx.is_isomorphic(before, after, node_match=lambda a, b: a["op"] == b["op"])


def test_padding_survives_reordering():
    adjacency = torch.zeros(2, 3, 3, dtype=torch.bool)
    adjacency[0, 1, 0] = adjacency[1, 0, 1] = adjacency[1, 1, 2] = True
    graphs = topological(DenseGraphs(adjacency, torch.tensor([[1, 0, -1], [0, 2, 1]]), torch.tensor([2, 3])))
    assert graphs.ops.tolist() == [[0, 1, -1], [0, 2, 1]]
    assert graphs.adjacency.nonzero().tolist() == [[0, 0, 1], [1, 0, 1], [1, 1, 2]]


@given(dags())
def test_live_part_is_the_union_of_live_paths(graphs):
    alive = live_part(graphs, [ZERO])
    paths = live_paths(graphs)
    assert set(alive.ops[0].ge(0).nonzero().flatten().tolist()) == {v for path in paths for v in path}
    edges = {edge for path in paths for edge in pairwise(path)}
    assert {(i, j) for _, i, j in alive.adjacency.nonzero().tolist()} == edges
    assert int(alive.num_nodes) == len({v for path in paths for v in path})


@given(dags(), st.integers(0, 2**31))
def test_path_statistics_equal_those_of_listed_paths(graphs, seed):
    weights = torch.randn(1, graphs.ops.size(1), 2, generator=torch.Generator().manual_seed(seed))
    alive = live_part(graphs, [ZERO])
    stats = path_statistics(alive, weights)
    paths = live_paths(graphs)
    assert int(stats.num_paths) == len(paths)
    if not paths:
        assert not stats.minimum.any()
        assert not stats.maximum.any()
        assert not stats.mean.any()
        return
    sums = torch.stack([weights[0, path].sum(0) for path in paths])
    torch.testing.assert_close(stats.minimum[0], sums.amin(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stats.maximum[0], sums.amax(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stats.mean[0], sums.mean(0), atol=1e-5, rtol=1e-5)


@given(dags())
def test_depth_is_the_longest_distance(graphs):
    alive = live_part(graphs, [ZERO])
    ones = (alive.ops > 0).unsqueeze(2).float()
    depth = path_statistics(alive, ones).depth[0, :, 0]
    longest: dict[int, int] = {}
    for path in live_paths(graphs):
        for distance, v in enumerate(path):
            longest[v] = max(longest.get(v, 0), distance)
    assert {v: int(depth[v]) for v in longest} == longest


@given(dags())
@settings(max_examples=50)
def test_spectrum_equals_networkx(graphs):
    values = laplacian_spectrum(graphs.adjacency, graphs.node_mask)[0]
    graph = nx.Graph(graphs.adjacency[0].int().numpy())
    expected = np.sort(np.linalg.eigvalsh(nx.normalized_laplacian_matrix(graph).toarray()))
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-8)


def test_spectrum_of_padding_is_zero():
    adjacency = torch.zeros(1, 4, 4, dtype=torch.bool)
    adjacency[0, 0, 1] = True
    mask = torch.tensor([[True, True, False, False]])
    assert laplacian_spectrum(adjacency, mask)[0].tolist() == pytest.approx([0.0, 2.0, 0.0, 0.0], abs=1e-12)


def test_cycles_are_named():
    adjacency = torch.zeros(2, 4, 4, dtype=torch.bool)
    adjacency[:, 0, 1] = adjacency[:, 2, 3] = adjacency[:, 1, 2] = True
    adjacency[1, 2, 1] = True
    ops = torch.tensor([[0, 2, 2, 1]] * 2)
    with pytest.raises(InvalidArchitectureError, match="graph 1 has a cycle"):
        topological(DenseGraphs(adjacency, ops, torch.tensor([4, 4])))


@pytest.mark.parametrize(("ops", "message"), [([0, 2, 0, 1], "2 input nodes"), ([0, 2, 2, 2], "0 output nodes")])
def test_ends_must_be_unique(ops, message):
    graphs = DenseGraphs(torch.zeros(1, 4, 4, dtype=torch.bool), torch.tensor([ops]), torch.tensor([4]))
    with pytest.raises(InvalidArchitectureError, match=message):
        topological(graphs)
