from __future__ import annotations

import numpy as np
import pytest
import torch

from pyg_nas_np.utils import check_count, seeded


@pytest.mark.parametrize("value", [3, np.int64(3), torch.tensor(3)])
def test_whole_numbers_come_in_any_form(value):
    assert type(check_count("n", value)) is int
    assert check_count("n", value, 3) == 3
    assert seeded(value).initial_seed() == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, "x", None, float("nan"), torch.tensor(1.5)])
def test_others_are_named(value):
    with pytest.raises(ValueError, match=r"^batch must be (at least 1|a whole number), got"):
        check_count("batch", value)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "x", None])
def test_seeds_that_no_generator_takes(seed):
    with pytest.raises(ValueError, match="a seed must be a whole number from 0"):
        seeded(seed)


def test_seeds_are_those_of_torch():
    for seed in (0, 7, 2**63, 2**64 - 1):
        assert (
            torch.rand(3, generator=seeded(seed)).tolist()
            == torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist()
        )
