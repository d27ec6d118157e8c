"""The radial kernels and their windows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np import ops
from pyg_nas_np.ops.radial import radial, radial_at, radius_for


@pytest.mark.parametrize("kernel", ops.KERNELS)
def test_the_gradient_factor_is_the_derivative(kernel: str):
    r = torch.linspace(0.1, 4, 30, dtype=torch.float64, requires_grad=True)
    k, q = radial(r.square(), kernel)
    (slope,) = torch.autograd.grad(k.sum(), r)
    torch.testing.assert_close(q * r, -slope)
    assert k[7].item() == pytest.approx(radial_at(r[7].item(), kernel), rel=1e-12)


@pytest.mark.parametrize("kernel", ops.KERNELS)
def test_at_distance_zero(kernel: str):
    k, q = radial(torch.zeros(1), kernel)
    assert k.item() == 1
    assert q.item() == pytest.approx({"rbf": 1, "matern32": 3, "matern52": 5 / 3}[kernel])


@pytest.mark.parametrize(("error", "radius"), [(1e-8, 6.07), (1e-4, 4.29), (3.7e-6, 5.0)])
def test_radii_of_the_rbf_kernel(error: float, radius: float):
    assert radius_for(error) == pytest.approx(radius, abs=0.01)


@given(
    scale=st.floats(0.01, 10),
    spacing=st.floats(0.01, 10),
    exponent=st.floats(-10, -0.1),
    kernel=st.sampled_from(ops.KERNELS),
)
def test_a_window_is_the_smallest_that_keeps_the_bound(scale: float, spacing: float, exponent: float, kernel: str):
    error = 10**exponent
    (window,) = ops.window_for(scale, spacing, error, kernel)
    assert radial_at(0.5 * window * spacing / scale, kernel) <= error * (1 + 1e-9)
    if window > 1:
        assert radial_at(0.5 * (window - 1) * spacing / scale, kernel) >= error * (1 - 1e-9)


def test_windows_per_axis():
    assert ops.window_for([0.1, 0.2], 0.05) == ops.window_for(0.1, 0.05) + ops.window_for(0.2, 0.05)
    assert len(ops.window_for(torch.tensor(0.1), [0.1, 0.2, 0.3])) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 0.0), "'spacing' must be positive and finite"),
        ((math.nan, 0.1), "'lengthscale' must be positive and finite"),
        ((0.1, 0.1, 1.0), "'error' must be a weight between 0 and 1 but is 1.0"),
        ((0.1, 0.1, 0.5, "box"), "'kernel' must be one of"),
        (([0.1, 0.1], [0.1, 0.1, 0.1]), "one per axis each"),
    ],
)
def test_bad_windows_are_named(arguments: tuple[object, ...], message: str):
    with pytest.raises(ValueError, match=message):
        ops.window_for(*arguments)  # type: ignore[arg-type]


def test_default_dtype_and_device_change_no_window(foreign_defaults):
    scale = torch.tensor(0.1)
    expected = ops.window_for(scale, 0.05), ops.window_for([0.1, 0.3], 0.05)
    with foreign_defaults():
        assert (ops.window_for(scale, 0.05), ops.window_for([0.1, 0.3], 0.05)) == expected
