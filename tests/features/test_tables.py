from __future__ import annotations

import pickle

import pytest
import torch

from pyg_nas_np.features.tables import KeptRows, informative, reference_sample
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace


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


def test_bins_of_a_histogram_have_one_scale():
    raw = torch.tensor([[0.0, 0.0], [0.0, 4.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    names = [("rare", "h"), ("common", "h")]
    assert informative(names, raw, {"h"}).std.unique().numel() == 1
    assert informative(names, raw).std.unique().numel() == 2


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
