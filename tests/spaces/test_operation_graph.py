"""A graph of operations as a value."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.spaces import Operation
from pyg_nas_np.spaces.operation_graph import OperationGraph, pack
from pyg_nas_np.utils import InvalidArchitectureError


@st.composite
def graphs_twice(draw):
    """The parts of one graph, with its nodes in two orders."""
    size = draw(st.integers(1, 8))
    nodes = [(draw(st.sampled_from("ab")), {"k": draw(st.sampled_from([1, 3]))}) for _ in range(size)]
    pairs = [(u, v) for u in range(size) for v in range(u + 1, size)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []
    ends = st.integers(0, size - 1)
    recurrent = draw(st.lists(st.tuples(ends, ends), max_size=2))
    order = draw(st.permutations(range(size)))
    to = {node: i for i, node in enumerate(order)}
    moved = [[(to[u], to[v]) for u, v in draw(st.permutations(part))] for part in (edges, recurrent)]
    return (nodes, edges, recurrent), ([nodes[i] for i in order], *moved)


@given(graphs_twice())
def test_isomorphic_graphs_are_equal(pair):
    one, other = (OperationGraph.of(*parts) for parts in pair)
    assert one == other
    assert hash(one) == hash(other)
    assert one.to_json() == other.to_json()
    assert OperationGraph.from_json(one.to_json()) == one
    assert all(u < v for u, v in one.edges)
    # Building again from the canonical form changes nothing.
    assert OperationGraph.of([(n.op, dict(n.attributes)) for n in one.nodes], one.edges, one.recurrent) == one


def test_other_graphs_are_not_equal():
    nodes = [("a", {}), ("b", {}), ("b", {}), ("c", {})]
    graphs = [
        OperationGraph.of(nodes, [(0, 1), (1, 2), (2, 3)]),
        OperationGraph.of(nodes, [(0, 1), (0, 2), (1, 3), (2, 3)]),
        OperationGraph.of(nodes, [(0, 1), (0, 1), (1, 2), (2, 3)]),
        OperationGraph.of(nodes, [(0, 1), (1, 2), (2, 3)], [(2, 1)]),
        OperationGraph.of([("a", {"k": 1}), *nodes[1:]], [(0, 1), (1, 2), (2, 3)]),
    ]
    assert len(set(graphs)) == len(graphs)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"nodes": [["a"]], "edges": []}', '{"nodes": [["a", {"k": "x"}]], "edges": []}', "[" * 5000]
    + [json.dumps({"nodes": [["a", {}]], "edges": edges}) for edges in ([[0]], [[0, 1]], [[0, 0]], [[0, 0.5]], 3)],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InvalidArchitectureError):
        OperationGraph.from_json(text)


def test_batches_hold_the_graphs_one_after_another():
    first = OperationGraph.of([("conv", {"kernel": 3}), ("relu", {})], [(0, 1)], [(1, 0)])
    second = OperationGraph.of([("relu", {})], [])
    batch = pack([first, second, first], [Operation("relu")])
    assert batch.num_graphs == 3
    assert batch.batch.tolist() == [0, 0, 1, 2, 2]
    assert batch.recurrent_index.tolist() == [[1, 4], [0, 3]]
    chosen = batch.select(torch.tensor([2, 2, 1]))
    again = pack([first, first, second], batch.operations, batch.attribute_names)
    for one, other in zip(chosen, again, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))
    assert pack([]).num_graphs == 0
