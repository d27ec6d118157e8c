"""Spaces of the user's own graphs: a pool, and a function that draws them."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data

from pyg_nas_np.features import OperationInputs, shared_descriptors
from pyg_nas_np.spaces import GraphSpace, Operation, SampledGraphSpace, Scores, operation_graph
from pyg_nas_np.spaces.operation_graph import OperationGraph
from pyg_nas_np.spaces.testing import SpaceTestCase, seeded
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError

OPS = (Operation("conv3x3", kind="conv", kernel=3), Operation("conv1x1", kind="conv", kernel=1))


def branching(generator: torch.Generator | None) -> OperationGraph:
    """Two to four convolutions of several widths behind an input, some in a row, some side by side."""

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    count = 2 + draw(3)
    nodes = [("input", {})]
    edges = []
    for i in range(1, count + 1):
        nodes.append((OPS[draw(2)].name, {"channels": 2 ** (3 + draw(4))}))
        edges.append((draw(i), i))
    ends = set(range(1, count + 1)) - {u for u, _ in edges}
    return OperationGraph.of([*nodes, ("output", {})], [*edges, *((end, count + 1) for end in sorted(ends))])


class TestPool(SpaceTestCase):
    symmetric = False  # the nearest of one need not have it among their own nearest

    def make_space(self):
        graphs = SampledGraphSpace(branching, OPS).sample(40, seeded(7))
        return GraphSpace(graphs, OPS, costs={"params": range(40), "nodes": lambda graph: len(graph.nodes)})


class TestSampled(SpaceTestCase):
    symmetric = False  # values that no drawn graph has are not on the way back

    def make_space(self):
        return SampledGraphSpace(branching, OPS, costs={"nodes": nodes_of})


def nodes_of(graph: OperationGraph) -> int:
    return len(graph.nodes)


def chain(*ops: str, **attributes: float) -> nx.DiGraph:
    graph = nx.DiGraph()
    nx.add_path(graph, range(len(ops)))
    for node, op in enumerate(ops):
        graph.nodes[node].update(op=op, **attributes)
    return graph


def test_networkx_and_pyg_tell_the_same():
    graph = nx.MultiDiGraph([("a", "b"), ("a", "b"), ("b", "c")])
    graph.add_edge("c", "b", recurrent=True)
    for node, op, width in (("a", "x", 8), ("b", "cell", 16), ("c", "y", None)):
        graph.nodes[node].update(op=op, width=width)
    data = Data(
        op=["cell", "x", "y"],
        width=torch.tensor([16.0, 8.0, torch.nan]),
        edge_index=torch.tensor([[1, 1, 0, 2], [0, 0, 2, 0]]),
        recurrent=torch.tensor([False, False, False, True]),
        num_nodes=3,
    )
    found = operation_graph(graph)
    assert found == operation_graph(data)
    assert found.edges == ((0, 1), (0, 1), (1, 2))
    assert found.recurrent == ((2, 1),)
    assert found.nodes[2].attributes == ()


def test_ids_and_one_hot_rows_name_operations():
    edges = torch.tensor([[0], [1]])
    by_id = Data(op=torch.tensor([1, 0]), edge_index=edges, num_nodes=2)
    one_hot = Data(x=torch.tensor([[0.0, 1.0], [1.0, 0.0]]), edge_index=edges)
    assert operation_graph(by_id, OPS) == operation_graph(one_hot, OPS)
    assert operation_graph(by_id, OPS).nodes[0].op == "conv1x1"


def test_attributes_of_the_operation_hold_unless_a_node_has_its_own():
    graph = chain("conv3x3", "conv3x3", "new")
    graph.nodes[1]["kernel"] = 5
    space = GraphSpace([graph], OPS)
    packed = space.operation_graphs()
    assert packed.attributes[:, packed.attribute_names.index("kernel")].tolist()[:2] == [3.0, 5.0]
    assert [op.name for op in space.operations] == ["conv3x3", "conv1x1", "new"]
    assert packed.of_kind("conv").tolist() == [True, True, False]


def test_unknown_names_still_work():
    space = SampledGraphSpace(branching, OPS)
    packed = space.operation_graphs([operation_graph(chain("input", "attention", "output", heads=4))])
    assert packed.operations[: len(space.operations)] == space.operations
    assert packed.operations[-1] == Operation("attention")
    assert packed.attribute_names[-1] == "heads"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph([(0, 1)]), "graph 1: node 0 has no 'op'"),
        (nx.Graph(), "graph 1: a Graph has no directions"),
        (nx.DiGraph(), "at least one node"),
        (chain("conv", activation="relu"), "activation='relu' of node 0"),
        (chain("conv", ""), "node 1 has no operation name"),
        (Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2), "names no operations"),
        (Data(op=torch.tensor([0, 5]), edge_index=torch.tensor([[0], [1]]), num_nodes=2), "operation id 5"),
        (Data(op=["a", "b"], edge_index=torch.tensor([[0], [7]]), num_nodes=2), r"edge \(0, 7\)"),
        ("conv-conv", "a str is not a graph"),
        (chain("output", "input"), "graph 1 has no way from an input to an output"),
    ],
)
def test_what_is_no_graph_is_named(graph, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        GraphSpace([chain("conv", "relu"), graph], OPS)


def test_a_cycle_is_named_with_the_cure():
    graph = chain("a", "b", "c")
    graph.add_edge(2, 1)
    with pytest.raises(InvalidArchitectureError, match=r"1 \(b\) → 2 \(c\) → 1 \(b\) form a cycle; mark .* recurrent"):
        GraphSpace([graph])
    graph.edges[2, 1]["recurrent"] = True
    assert GraphSpace([graph])[0].recurrent == ((2, 1),)


def test_an_empty_pool_and_wrong_costs_are_refused():
    with pytest.raises(InvalidArchitectureError, match="at least one graph"):
        GraphSpace([])
    for column in ([1.0, 2.0], [float("nan")]):
        with pytest.raises(InvalidLabelsError, match="costs\\['params'\\]"):
            GraphSpace([chain("a")], costs={"params": column})


def test_neighbors_of_a_pool_are_the_nearest():
    space = GraphSpace([chain("a", "b", "c"), chain("a", "b", "d"), chain("x", "y", "z"), chain("a", "b")])
    assert [space.index(found) for found in space.neighbors(space[0])] == [3, 1, 2]


def test_isomorphic_candidates_are_equal_and_keep_their_rows():
    other = nx.relabel_nodes(chain("a", "b"), {0: "q", 1: "p"})
    space = GraphSpace([chain("a", "b"), chain("c"), other], costs={"ms": [1, 2, 3]})
    assert len(space) == 3
    assert space[2] == space[0]
    assert space.index(space[2]) == 0
    assert space.neighbors(space[0]) == [space[1]]


def test_a_sampler_that_repeats_itself_does_not_wait_forever():
    space = SampledGraphSpace(lambda generator: chain("a", "b"))
    with pytest.raises(ValueError, match="cannot draw n=2 distinct"):
        space.sample(2)
    assert len(space.sample(2, replace=True)) == 2
    with pytest.raises(InvalidArchitectureError, match="no single edit"):
        SampledGraphSpace(lambda generator: chain("a")).mutate(operation_graph(chain("a")))


def test_is_member_restricts_edits():
    space = SampledGraphSpace(branching, OPS, is_member=lambda graph: len(graph.edges) <= 8)
    for arch in space.sample(4, seeded()):
        assert all(len(found.edges) <= 8 for found in space.neighbors(arch))


def test_a_pool_has_scores_that_may_be_unknown():
    space = GraphSpace([chain("a"), chain("b")], scores={"swap": [2.0, math.nan], "nodes": lambda g: len(g.nodes)})
    assert isinstance(space, Scores)
    assert space.scores(torch.tensor([0]))["swap"].tolist() == [2.0]
    assert space.scores([space[1]])["nodes"].tolist() == [float(len(space[1].nodes))]
    assert bool(space.scores()["swap"][1].isnan())
    assert space.costs() == {}
    with pytest.raises(InvalidLabelsError, match=r"scores\['swap'\] must be one number for each of 1 graphs, got 2"):
        GraphSpace([chain("a")], scores={"swap": [1.0, 2.0]})


def gate(first, second, **edge):
    """A blend of two states; the first input is taken where the gate is open."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from([("x", {"op": "input"}), (1, {"op": "tanh"}), (2, {"op": "relu"}), ("h", {"op": "blend"})])
    graph.add_edges_from([("x", 1), ("x", 2)])
    graph.add_edge(first, "h", slot=0)
    graph.add_edge(second, "h", slot=1, **edge)
    return graph


def test_the_order_of_inputs_tells_gates_apart():
    one, other = operation_graph(gate(1, 2)), operation_graph(gate(2, 1))
    assert one != other
    assert one == OperationGraph.from_json(one.to_json())
    space = GraphSpace([one, other, operation_graph(gate(1, 1)), operation_graph(gate(2, 2))])
    rows = shared_descriptors(space).table([one, other])
    assert float((rows[0] - rows[1]).abs().max()) > 0.1
    # The words that all spaces share have none for slots, so that no encoder is asked about such cells.
    assert OperationInputs(space).understood < 0.8


def test_pyg_and_networkx_number_inputs_alike():
    edge_index = torch.tensor([[0, 0, 1, 2, 3], [1, 2, 3, 3, 3]])
    data = Data(op=["input", "tanh", "relu", "blend"], edge_index=edge_index)
    data.slot, data.recurrent = torch.tensor([-1, -1, 0, 1, 2]), torch.tensor([0, 0, 0, 0, 1])
    graph = gate(1, 2)
    graph.add_edge("h", "h", slot=2, recurrent=True)
    assert operation_graph(data) == operation_graph(graph)
    assert [op for op, _ in operation_graph(data).nodes].count("slot") == 3
    assert len(operation_graph(data).recurrent) == 1


@pytest.mark.parametrize("slot", [-1, 0.5, "left", math.inf, math.nan])
def test_slots_are_whole_numbers(slot):
    graph = nx.DiGraph([(0, 1)])
    nx.set_node_attributes(graph, "linear", "op")
    graph.edges[0, 1]["slot"] = slot
    with pytest.raises(InvalidArchitectureError, match=r"has slot .*number the inputs"):
        operation_graph(graph)


@pytest.mark.parametrize("name", ["slot", "recurrent"])
def test_columns_of_edges_have_one_entry_an_edge(name):
    data = Data(op=["input", "tanh"], edge_index=torch.tensor([[0], [1]]))
    data[name] = torch.zeros(2)
    with pytest.raises(InvalidArchitectureError, match="one entry for each of 1 edges"):
        operation_graph(data)
