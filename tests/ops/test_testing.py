"""The suite of a back end passes on sound ones (their own tests), and fails on back ends with a fault."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np import ops
from pyg_nas_np.ops import testing
from pyg_nas_np.ops.testing import GridTestCase, SetConvTestCase, pointers, rounding


class SetConv(SetConvTestCase):
    backend = "reference"


class Grid(GridTestCase):
    backend = "reference"


def faulty(function, fault):
    """The function with a fault where the suite calls it for the back end under test, but not as the reference."""

    def call(*args, **kwargs):
        results = function(*args, **kwargs)
        if args[0].dtype == torch.float64:
            return results
        return fault(*results)

    return call


FAULTS = {
    "density off by 0.1 %": lambda density, signal: (density * 1.001, signal),
    "signal off by 0.1 %": lambda density, signal: (density, signal * 1.001),
    "gradients lost": lambda density, signal: (density, signal.detach() + 0 * density.sum()),
    "another shape": lambda density, signal: (density, signal.unsqueeze(0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault):
    case = SetConv()
    x, y, scale = case.randn(7, 2), case.randn(7, 3, seed=1), torch.ones(1, 2, dtype=torch.float64)

    def run(x, y, scale):
        return ops.set_conv(x, y, x, scale, pointers([3, 4]), pointers([3, 4]))

    case.check(run, [x, y, scale], torch.float32)
    with pytest.raises(AssertionError):
        case.check(faulty(run, FAULTS[fault]), [x, y, scale], torch.float32)


def test_pytest_collects_subclasses_only():
    for kind in (SetConvTestCase, GridTestCase):
        assert not kind.__name__.startswith("Test")
    assert [name for name in vars(testing) if name.startswith("Test")] == []


def test_pointers_are_offsets():
    assert pointers([]).tolist() == [0]
    assert pointers([2, 0, 3]).tolist() == [0, 2, 2, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("terms", [1, 100, 10000])
def test_rounding_bounds_what_the_order_of_a_sum_changes(dtype, terms):
    values = torch.rand(terms, generator=torch.Generator().manual_seed(0), dtype=dtype)
    one, other = values.sum(), values.flip(0).cumsum(0)[-1]
    assert (one - other).abs() <= rounding(dtype, terms) * one
