"""The plans of the Triton kernels; what the kernels compute is tested through the back end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from pyg_nas_np.ops import triton_kernels
from pyg_nas_np.ops.set_conv import MAX_DIM

widths = {"dim": st.integers(1, MAX_DIM), "channels": st.integers(0, 200)}


@pytest.mark.parametrize("make", [triton_kernels.convolve_plan, triton_kernels.pull_plan])
@given(**widths)
def test_a_plan_covers_dimensions_and_channels(make, dim: int, channels: int):
    plan = make(dim, channels)
    assert plan.dim == dim
    assert plan.pieces * plan.block_dim >= dim > (plan.pieces - 1) * plan.block_dim
    assert plan.parts * plan.block_channels >= channels
    assert plan.parts == 1 or (plan.parts - 1) * plan.block_channels < channels
    assert plan.block_channels <= triton_kernels.BLOCK_CHANNELS


@pytest.mark.parametrize("make", [triton_kernels.convolve_plan, triton_kernels.pull_plan])
@given(**widths)
def test_numbers_lie_at_even_places_to_be_loaded_in_pairs(make, dim: int, channels: int):
    plan = make(dim, channels)
    assert plan.start % 2 == plan.stop % 2 == plan.block_channels % 2 == 0
    assert plan.start >= dim
    assert plan.stop - plan.start == plan.parts * plan.block_channels


@pytest.mark.parametrize("make", [triton_kernels.convolve_plan, triton_kernels.pull_plan])
@given(**widths)
def test_every_thread_has_rows_of_its_own(make, dim: int, channels: int):
    plan = make(dim, channels)
    assert plan.rows % (32 * plan.warps) == 0
    assert plan.rows & (plan.rows - 1) == 0  # the ranges of Triton are powers of two


@given(**widths)
def test_dense_rows_need_no_places_between(dim: int, channels: int):
    for plan in (triton_kernels.convolve_plan(dim, channels), triton_kernels.pull_plan(dim, channels)):
        assert plan.dense == (plan.start == dim and plan.stop == dim + channels and plan.pieces == 1)


def test_configurations_name_every_kernel_and_every_constant_once():
    rows = list(triton_kernels.configurations())
    assert {name for name, *_ in rows} == {
        *("pack", "convolve", "pull", "combine", "convolve_wide", "pull_wide", "gradient_of_density"),
        *("locate", "scatter", "scatter_sorted", "gather", "gradient"),
    }
    keys = [(name, *sorted(constants.items())) for name, _, constants, _ in rows]
    assert len(set(keys)) == len(keys)
    for name, kernel, constants, options in rows:
        assert kernel is getattr(triton_kernels, name)
        # A launch passes them by position.
        assert list(constants) == kernel.arg_names[-len(constants) :]
        assert options["num_warps"] in (1, 2, 4, 8)


def test_wide_rows_are_covered():
    for channels in range(triton_kernels.WIDE_CHANNELS, 200):
        parts = triton_kernels.wide_parts(channels)
        assert (parts - 1) * triton_kernels.WIDE_SUMS < channels <= parts * triton_kernels.WIDE_SUMS
