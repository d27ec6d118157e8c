"""Columns of tables of descriptors."""

from __future__ import annotations

import torch

from pyg_nas_np.features.tables import informative, reference_sample
from pyg_nas_np.spaces import NASBench201Space
from tests.conftest import ToySpace


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
