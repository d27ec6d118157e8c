from __future__ import annotations

import itertools
from collections import Counter

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.features import PathEncoding
from pyg_nas_np.features.dag import topological
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.dense import DenseGraphs

SPACE = NASBench101Space()


def listed(cell):
    """Sequences of operations of all paths from the input to the output."""
    graph = nx.from_numpy_array(cell.adjacency[0].numpy(), create_using=nx.DiGraph)
    ops = cell.ops[0].tolist()
    paths = nx.all_simple_paths(graph, ops.index(0), ops.index(1))
    return Counter(tuple(ops[v] for v in path[1:-1]) for path in paths)


@settings(max_examples=40)
@given(index=st.integers(0, 423_623))
def test_counts_are_those_of_listed_paths(index):
    cell = SPACE.dense(torch.tensor([index]))
    encoding = PathEncoding((2, 3, 4), 5)
    assert encoding.num_columns == 364
    counts = dict(zip(encoding.words(), encoding(cell)[0].tolist(), strict=True))
    assert Counter({word: int(count) for word, count in counts.items() if count}) == listed(cell)


@settings(max_examples=30)
@given(index=st.integers(0, 423_623), max_columns=st.sampled_from([1, 16, 40, 200]))
def test_long_sequences_share_columns(index, max_columns):
    cell = SPACE.dense(torch.tensor([index]))
    encoding = PathEncoding((2, 3, 4), 5, max_columns)
    assert encoding.num_columns == len(encoding.words()) <= max(max_columns, 16)
    suffix, expected = encoding.suffix, Counter()
    for word, count in listed(cell).items():
        expected[len(word), word[-suffix:]] += count
    keys = [(length, word) for length in range(6) for word in itertools.product((2, 3, 4), repeat=min(length, suffix))]
    assert [word for _, word in keys] == encoding.words()
    assert [expected[key] for key in keys] == encoding(cell)[0].tolist()


@settings(max_examples=20)
@given(index=st.integers(0, 423_623), data=st.data())
def test_the_order_of_the_nodes_does_not_matter(index, data):
    cell = SPACE.dense(torch.tensor([index]))
    order = torch.tensor(data.draw(st.permutations(range(int(cell.num_nodes)))))
    shuffled = DenseGraphs(cell.adjacency[:, order][:, :, order], cell.ops[:, order], cell.num_nodes)
    encoding = PathEncoding((2, 3, 4), 5)
    assert torch.equal(encoding(topological(shuffled)), encoding(cell))


def test_operations_outside_the_alphabet_block_the_way():
    space = NASBench201Space()
    cell = space.dense([space.from_str("|p~0|+|p~0|p~1|+|p~0|p~1|p~2|".replace("p", "avg_pool_3x3"))])
    pool = int(cell.ops[0, 1])
    assert PathEncoding((pool,), 3)(cell).tolist() == [[0.0, 1.0, 2.0, 1.0]]
    assert PathEncoding((2, 3), 3)(cell).sum() == 0
    # Sequences beyond the longest are not counted.
    assert PathEncoding((pool,), 2)(cell).tolist() == [[0.0, 1.0, 2.0]]


def test_cells_without_inner_nodes():
    edge = torch.tensor([[[False, True], [False, False]]])
    cell = DenseGraphs(edge, torch.tensor([[0, 1]]), torch.tensor([2]))
    assert PathEncoding((2, 3), 0)(cell).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("letters", "longest", "limit", "suffix"), [(9, 4, 4096, 3), (3, 5, 4096, 5), (5000, 2, 10, 1)]
)
def test_limit_of_columns(letters, longest, limit, suffix):
    assert PathEncoding(range(2, 2 + letters), longest, limit).suffix == suffix
