"""Columns of tables of descriptors."""

from __future__ import annotations

import pickle

import pytest
import torch

from pyg_nas_np.features.tables import KeptRows, informative, reference_sample, seeded_sample, space_sample
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace
from tests.conftest import ToySpace


def lengths(words):
    CALLS.append(list(words))
    return torch.tensor([[float(len(word)), 1.0] for word in words]).reshape(-1, 2)


CALLS: list[list[str]] = []


def test_rows_are_computed_once():
    CALLS.clear()
    rows = KeptRows(lengths)
    assert rows(["a", "bb", "a"])[:, 0].tolist() == [1.0, 2.0, 1.0]
    assert rows(["bb", "ccc"])[:, 0].tolist() == [2.0, 3.0]
    assert rows([]).shape == (0, 2)
    assert CALLS == [["a", "bb"], ["ccc"], []]
    copy = pickle.loads(pickle.dumps(rows))
    assert copy(["bb"])[:, 0].tolist() == [2.0]
    assert CALLS[-1] == ["bb"]


def test_memory_is_bounded():
    CALLS.clear()
    rows = KeptRows(lengths, limit=2)
    for _ in range(2):
        assert rows(["a", "bb", "ccc"])[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert rows(["a"])[0, 0] == 1.0
    assert CALLS == [["a", "bb", "ccc"]] * 2 + [["a"]]


def test_the_reference_is_the_pool_the_space_or_a_sample():
    parameters = {"depth": Integer(1, 9)}
    pool = [{"depth": 3}, {"depth": 5}]
    assert reference_sample(ParameterSpace(parameters, pool=pool), 10) == pool
    assert len(reference_sample(ParameterSpace(parameters), 100)) == 100
    space = NASBench201Space()
    assert len(set(reference_sample(space, 50))) == 50
    assert reference_sample(space, 20_000)[7] == space[7]


@pytest.mark.parametrize("size", [1, 50])
def test_the_reference_is_the_same_each_time(size):
    space = NASBench201Space()
    assert reference_sample(space, size) == reference_sample(space, size)


def test_constant_and_repeated_columns_are_left_out():
    raw = torch.tensor([[1.0, 2.0, 2.0, 2.0], [1.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    found = informative([("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")], raw)
    assert found.names == ["b", "d"]
    assert found.groups == {"x": [0], "y": [1]}
    assert found.scale(raw, standardize=False).tolist() == [[2.0, 2.0], [5.0, 5.0]]


def test_bins_of_a_histogram_share_a_scale():
    raw = torch.tensor([[0.0, 0.0], [2.0, 200.0]], dtype=torch.float64)
    found = informative([("a", "x"), ("b", "x")], raw, {"x"})
    assert float(found.std[0]) == float(found.std[1])


def test_small_spaces_are_their_own_reference():
    assert len(reference_sample(ToySpace(), 1000)) == 128
    assert len(reference_sample(NASBench201Space(), 50)) == 50


def test_a_space_is_known_by_indices_where_it_has_some():
    indexed = space_sample(NASBench201Space(), 8)
    assert torch.equal(indexed, seeded_sample(NASBench201Space(), 8))
    flat = ParameterSpace(width=Integer(1, 100))
    assert list(space_sample(flat, 8)) == list(reference_sample(flat, 8))
