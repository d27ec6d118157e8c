from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from pyg_nas_np.spaces import NASBench101Space, NASBench201Space, NASBenchGraphSpace
from pyg_nas_np.spaces.dense import DenseGraphs, collate, from_batch, to_batch
from pyg_nas_np.utils import InvalidArchitectureError

NUM_OPS = 5


@st.composite
def dense_graphs(draw, min_size=0, max_size=6):
    """Random DAGs of one to six nodes, padded to the largest or further."""
    count = draw(st.integers(min_size, max_size))
    sizes = [draw(st.integers(1, 6)) for _ in range(count)]
    width = max(sizes, default=0) + draw(st.integers(0, 2))
    adjacency = torch.zeros(count, width, width, dtype=torch.bool)
    ops = torch.full((count, width), -1)
    for i, size in enumerate(sizes):
        bits = draw(st.integers(0, 2 ** (size * (size - 1) // 2) - 1))
        for edge, (source, target) in enumerate(torch.combinations(torch.arange(size)).tolist()):
            adjacency[i, source, target] = bool(bits >> edge & 1)
        ops[i, :size] = torch.tensor(draw(st.lists(st.integers(0, NUM_OPS - 1), min_size=size, max_size=size)))
    return DenseGraphs(adjacency, ops, torch.tensor(sizes, dtype=torch.long))


def one_by_one(graphs):
    """The graphs as PyG users make them: one object each."""
    return [
        Data(
            x=torch.eye(NUM_OPS)[ops[:size]],
            edge_index=adjacency.nonzero().t().contiguous(),
        )
        for adjacency, ops, size in zip(graphs.adjacency, graphs.ops, graphs.num_nodes.tolist(), strict=True)
    ]


def assert_same(graphs, expected):
    width = min(graphs.ops.size(1), expected.ops.size(1))
    for wide in (graphs, expected):
        assert not wide.node_mask[:, width:].any()
        assert not wide.adjacency[:, width:].any()
    assert torch.equal(graphs.ops[:, :width], expected.ops[:, :width])
    assert torch.equal(graphs.adjacency[:, :width, :width], expected.adjacency[:, :width, :width])
    assert torch.equal(graphs.num_nodes, expected.num_nodes)


# -- agreement with PyG -----------------------------------------------------------------------------------------------


@given(dense_graphs(min_size=2))
def test_collate_equals_that_of_pyg(graphs):
    data, slices = collate(graphs, NUM_OPS)
    expected, expected_slices = InMemoryDataset.collate(one_by_one(graphs))
    assert data.keys() == expected.keys()
    assert slices.keys() == expected_slices.keys()
    for key in data.keys():  # noqa: SIM118
        assert data[key].dtype == expected[key].dtype
        assert torch.equal(data[key], expected[key]), key
        assert torch.equal(slices[key], expected_slices[key]), key


@given(dense_graphs(min_size=1))
def test_batch_equals_that_of_pyg(graphs):
    batch, expected = to_batch(graphs, NUM_OPS), Batch.from_data_list(one_by_one(graphs))
    assert batch.num_graphs == expected.num_graphs
    assert set(batch.keys()) == set(expected.keys())
    for key in batch.keys():  # noqa: SIM118
        assert batch[key].dtype == expected[key].dtype
        assert torch.equal(batch[key], expected[key]), key
    for i in range(batch.num_graphs):
        assert batch[i].to_dict().keys() == expected[i].to_dict().keys()
        for key, value in expected[i].to_dict().items():
            assert torch.equal(batch[i][key], value), key


@given(dense_graphs(min_size=2, max_size=4))
def test_batches_of_batches_are_ordinary_graphs(graphs):
    again = next(iter(DataLoader(to_batch(graphs, NUM_OPS).to_data_list(), batch_size=len(graphs.ops))))
    assert_same(from_batch(again.x, again.edge_index, again.batch), graphs)


# -- round trips ------------------------------------------------------------------------------------------------------


@given(dense_graphs(min_size=1))
def test_round_trip(graphs):
    batch = to_batch(graphs, NUM_OPS)
    assert_same(from_batch(batch.x, batch.edge_index, batch.batch), graphs)
    assert_same(from_batch(batch.x, batch.edge_index, batch.batch, batch.num_graphs), graphs)


@given(dense_graphs(min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_edges_does_not_matter(graphs, random):
    batch = to_batch(graphs, NUM_OPS)
    order = list(range(batch.num_edges))
    random.shuffle(order)
    assert_same(from_batch(batch.x, batch.edge_index[:, order], batch.batch), graphs)


@given(dense_graphs(min_size=1, max_size=1))
def test_a_single_graph_needs_no_batch_vector(graphs):
    (data,) = one_by_one(graphs)
    assert_same(from_batch(data.x, data.edge_index), graphs)


@given(dense_graphs(min_size=1), st.data())
def test_selection_by_index_and_by_mask(graphs, data):
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(graphs.ops) - 1))), dtype=torch.long)
    chosen = graphs.select(index)
    assert torch.equal(chosen.adjacency, graphs.adjacency[index])
    assert torch.equal(chosen.num_nodes, chosen.node_mask.sum(dim=1))
    mask = torch.zeros(len(graphs.ops), dtype=torch.bool)
    mask[index] = True
    assert_same(graphs.select(mask), graphs.select(mask.nonzero().flatten()))


def test_graphs_without_any_graph():
    graphs = DenseGraphs(
        torch.zeros(0, 3, 3, dtype=torch.bool), torch.full((0, 3), -1), torch.zeros(0, dtype=torch.long)
    )
    data, slices = collate(graphs, NUM_OPS)
    assert data.x.shape == (0, NUM_OPS)
    assert data.edge_index.shape == (2, 0)
    assert slices["x"].tolist() == slices["edge_index"].tolist() == [0]
    assert to_batch(graphs, NUM_OPS).num_graphs == 0


def test_trailing_graphs_without_nodes_are_kept_when_counted():
    graphs = from_batch(torch.eye(2), torch.tensor([[0], [1]]), torch.zeros(2, dtype=torch.long), num_graphs=3)
    assert graphs.num_nodes.tolist() == [2, 0, 0]
    assert graphs.adjacency.sum() == 1


# -- bad input --------------------------------------------------------------------------------------------------------

NO_EDGES = torch.empty(2, 0, dtype=torch.long)


@pytest.mark.parametrize(
    ("row", "value"), [(0, [0.0, 0.0]), (1, [1.0, 1.0]), (2, [0.5, 0.5]), (2, [2.0, -1.0]), (0, [float("nan"), 1.0])]
)
def test_rows_that_are_not_one_hot_are_named(row, value):
    x = torch.eye(2)[[0, 1, 0]]
    x[row] = torch.tensor(value)
    with pytest.raises(InvalidArchitectureError, match=f"row {row} of x is not a one-hot operation"):
        from_batch(x, NO_EDGES)


@pytest.mark.parametrize("x", [torch.empty(0, 3), torch.ones(3), torch.ones(2, 1, 1)])
def test_x_of_another_shape(x):
    with pytest.raises(InvalidArchitectureError, match=r"x must have shape \[num_nodes, num_ops\]"):
        from_batch(x, NO_EDGES)


@pytest.mark.parametrize(
    ("batch", "num_graphs", "message"),
    [
        ([1, 0], None, "batch must be sorted"),
        ([0], None, r"batch must have one entry for each of the 2 nodes, got \[1\]"),
        ([-1, 0], None, "graph -1"),
        ([0, 2], 2, "graph 2, which is none of 2 graphs"),
    ],
)
def test_batch_vectors_that_do_not_fit(batch, num_graphs, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        from_batch(torch.eye(2), NO_EDGES, torch.tensor(batch), num_graphs)


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (torch.zeros(3, 1, dtype=torch.long), r"edge_index must be an integer tensor \[2, num_edges\], got .*\[3, 1\]"),
        (torch.zeros(2, 1), r"edge_index must be an integer tensor \[2, num_edges\], got torch\.float32"),
        (torch.tensor([[0], [4]]), "edge 0 → 4 leaves the 4 nodes"),
        (torch.tensor([[-1], [1]]), "edge -1 → 1 leaves the 4 nodes"),
        (torch.tensor([[0, 1], [1, 2]]), "edge 1 → 2 joins graphs 0 and 1"),
    ],
)
def test_edges_that_do_not_fit(edge_index, message):
    with pytest.raises(InvalidArchitectureError, match=message):
        from_batch(torch.eye(2)[[0, 1, 0, 1]], edge_index, torch.tensor([0, 0, 1, 1]))


def test_more_operations_than_columns():
    graphs = DenseGraphs(torch.zeros(2, 1, 1, dtype=torch.bool), torch.tensor([[0], [3]]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="operation id 3 needs more than 2 columns"):
        collate(graphs, 2)


@pytest.mark.parametrize("space", [NASBench101Space(), NASBench201Space(), NASBenchGraphSpace()], ids=repr)
def test_graphs_that_are_handed_out_may_be_written_into(space):
    for archs in (None, torch.arange(5), [space[i] for i in range(5)]):
        before = [part.clone() for part in space.dense(archs)]
        for part in space.dense(archs):
            part.fill_(1)
        for part, expected in zip(space.dense(archs), before, strict=True):
            assert torch.equal(part, expected)


@pytest.mark.parametrize("space", [NASBench101Space(), NASBench201Space(), NASBenchGraphSpace()], ids=str)
def test_graphs_need_nodes_and_edges(space):
    graph = space.encode(space[0])
    for data, name in ((Data(edge_index=graph.edge_index), "x"), (Data(x=graph.x), "edge_index"), (Data(), "x")):
        with pytest.raises(InvalidArchitectureError, match=f"needs a tensor {name}, got NoneType"):
            space.decode(data)
