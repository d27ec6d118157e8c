"""The argument checks name the argument, its value and the cure."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.ops.checks import check_floating, check_kernel_width, check_ptr, check_values, per_axis
from pyg_nas_np.ops.testing import pointers

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_good_tensors_pass(dtype: torch.dtype):
    check_floating(x=torch.zeros(2, dtype=dtype), y=torch.zeros(3, dtype=dtype))
    assert check_values(torch.tensor([[0.5], [2.0]], dtype=dtype)) == [0.5, 2.0]
    assert check_values(torch.zeros(0, dtype=dtype)) == []


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([1.0], TypeError, "'y' must be a tensor but is a list"),
        (torch.zeros(2, dtype=torch.int64), TypeError, "'y' must be float64, .* but is torch.int64"),
        (torch.zeros(2).double(), TypeError, "'y' is torch.float64 but 'x' is torch.float32: convert one"),
        (torch.zeros(2, device="meta"), ValueError, "'y' is on meta but 'x' is on cpu: move one"),
    ],
)
def test_tensors_that_do_not_fit(y: object, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        check_floating(x=torch.zeros(2), y=y)  # type: ignore[arg-type]


def test_autocast_converts_by_itself():
    with torch.autocast("cpu", torch.bfloat16):
        check_floating(x=torch.zeros(2), y=torch.zeros(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("ptr", "error", "message"),
    [
        ([0, 2], TypeError, "'ptr' must be an int64 tensor but is list"),
        (torch.zeros(2, dtype=torch.int32), TypeError, "'ptr' must be an int64 tensor but is torch.int32"),
        (torch.zeros(0, dtype=torch.int64), ValueError, r"'ptr' must have shape \[num_sets \+ 1\] but has shape \[0\]"),
        (torch.zeros(1, 2, dtype=torch.int64), ValueError, r"has shape \[1, 2\]"),
        (torch.zeros(2, dtype=torch.int64, device="meta"), ValueError, "'ptr' is on meta but the points are on cpu"),
    ],
)
def test_offsets_of_another_kind(ptr: object, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        check_ptr(ptr, "ptr", CPU)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 9), max_size=6))
def test_offsets_of_any_sets_pass(sizes: list[int]):
    ptr = pointers(sizes)
    check_ptr(ptr, "ptr", CPU)
    check_values(torch.ones(()), ptr=(ptr, sum(sizes)))
    with pytest.raises(ValueError, match=f"'ptr' .* rows, {sum(sizes) + 1}, but runs from 0 to {sum(sizes)}"):
        check_values(torch.ones(()), ptr=(ptr, sum(sizes) + 1))


def test_offsets_that_go_back_are_named():
    with pytest.raises(ValueError, match=r"ptr\[1\] = 4 is followed by 3: sort .*index2ptr"):
        check_values(torch.ones(()), ptr=(torch.tensor([0, 4, 3, 5]), 5))


@pytest.mark.parametrize("value", [0.0, -1.5, math.inf, math.nan])
def test_what_is_not_positive_is_named(value: float):
    with pytest.raises(ValueError, match=f"'lengthscale' must be positive and finite but contains {value}"):
        check_values(torch.tensor([1.0, value]))


class OfADevice(torch.Tensor):
    """A CPU tensor that says it lies on a GPU, and counts how often it is copied to the host."""

    copies = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")

    def cpu(self) -> torch.Tensor:
        OfADevice.copies += 1
        return self.as_subclass(torch.Tensor)


def test_values_of_a_device_are_copied_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OfADevice, "copies", 0)
    scale, ptr, other = (v.as_subclass(OfADevice) for v in (torch.tensor([0.5, 2.0]), pointers([2, 1]), pointers([4])))
    assert check_values(scale, ptr=(ptr, 3), other=(other, 4)) == [0.5, 2.0]
    assert OfADevice.copies == 1
    with pytest.raises(ValueError, match="'other' must run from 0 to the number of rows, 5, but runs from 0 to 4"):
        check_values(scale, ptr=(ptr, 3), other=(other, 5))


def test_widths_are_bounded():
    check_kernel_width(1, "x", 1, 3)
    check_kernel_width(3, "x", 1, 3)
    for dim in (0, 4):
        with pytest.raises(ValueError, match=f"'x' must have 1 to 3 dimensions but has {dim}"):
            check_kernel_width(dim, "x", 1, 3)


def test_a_number_serves_every_axis():
    assert per_axis(2, 3, "spacing") == [2.0, 2.0, 2.0]
    assert per_axis((1, 2.5), 2, "spacing") == [1.0, 2.5]
    with pytest.raises(ValueError, match=r"'spacing' must be a number or one per axis, 2, but is \[1.0\]"):
        per_axis([1.0], 2, "spacing")
