"""Algorithms on batches of operation graphs, against listing every way."""

from __future__ import annotations

import math

import networkx as nx
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.features.operation_dag import levels, live_graphs, path_strings, path_sums
from pyg_nas_np.spaces import OperationGraph
from pyg_nas_np.spaces.operation_graph import pack

NAMES = ["conv", "none", "skip", "add"]


@st.composite
def batches(draw):
    graphs = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 6))
        nodes = [("input", {}), *((draw(st.sampled_from(NAMES)), {}) for _ in range(size)), ("output", {})]
        pairs = [(u, v) for v in range(1, size + 2) for u in range(v)]
        graphs.append(OperationGraph.of(nodes, draw(st.lists(st.sampled_from(pairs), max_size=14))))
    return graphs


def ways(graph: OperationGraph) -> list[list[int]]:
    """All ways from the input to the output around operations that give zero."""
    found = nx.MultiDiGraph(graph.edges)
    found.add_nodes_from(range(len(graph.nodes)))
    names = [node.op for node in graph.nodes]
    found.remove_nodes_from([v for v, name in enumerate(names) if name == "none"])
    return list(nx.all_simple_paths(found, names.index("input"), names.index("output")))


@given(batches())
def test_sums_along_ways(graphs):
    batch = pack(graphs)
    live = live_graphs(batch)
    convs = torch.tensor([[float(batch.operations[op].name == "conv")] for op in batch.op.tolist()]).double()
    sums = path_sums(live, convs)
    for row, graph in enumerate(graphs):
        found = [sum(graph.nodes[v].op == "conv" for v in way) for way in ways(graph)]
        alive = [live.live[int(batch.ptr[row]) + v].item() for v in range(len(graph.nodes))]
        assert alive == [any(v in way for way in ways(graph)) for v in range(len(graph.nodes))]
        if not found:
            assert sums.log_count[row] == -math.inf
            continue
        assert round(math.exp(float(sums.log_count[row]))) == len(found)
        assert sums.minimum[row].tolist() == [min(found)]
        assert sums.maximum[row].tolist() == [max(found)]
        torch.testing.assert_close(float(sums.mean[row, 0]), sum(found) / len(found), rtol=1e-9, atol=1e-9)


@given(batches())
def test_what_ways_spell(graphs):
    batch = pack(graphs)
    symbol = torch.tensor([NAMES.index(n) if (n := batch.operations[op].name) in NAMES else -1 for op in batch.op])
    live = live_graphs(batch)
    log_count = path_sums(live, torch.zeros(len(symbol), 0).double()).log_count
    spelled = path_strings(live, symbol, log_count, 1000, 8)
    # Identities with one input are contracted; one with several is still there, so both sides leave them out.
    skip = NAMES.index("skip")
    found = sorted(
        (owner, tuple(s for s in row if s >= 0 and s != skip))
        for owner, row in zip(spelled.owner.tolist(), spelled.symbols.tolist(), strict=True)
    )
    expected = sorted(
        (row, tuple(NAMES.index(graph.nodes[v].op) for v in way[1:-1] if graph.nodes[v].op != "skip"))
        for row, graph in enumerate(graphs)
        for way in ways(graph)
    )
    assert found == expected


def test_levels_hold_every_node_and_edge_once():
    edges = torch.tensor([[0, 0, 1, 3], [1, 2, 2, 2]])
    found = levels(edges, 5)
    assert sorted(torch.cat([level.nodes for level in found]).tolist()) == list(range(5))
    pairs = [(level.source.tolist(), level.nodes[level.target].tolist()) for level in found]
    assert pairs == [([], []), ([0], [1]), ([0, 1, 3], [2, 2, 2])]
