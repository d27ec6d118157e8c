"""Descriptions of operations."""

from __future__ import annotations

import pytest

from pyg_nas_np.spaces import Operation


def test_common_names_have_a_meaning():
    kinds = {name: Operation(name).kind for name in ("none", "skip_connect", "input", "output", "Identity", "conv3x3")}
    assert kinds == {
        "none": "zero",
        "skip_connect": "identity",
        "input": "input",
        "output": "output",
        "Identity": "identity",
        "conv3x3": "conv3x3",
    }
    assert Operation("none", kind="conv").kind == "conv"


def test_operations_are_values():
    assert Operation("c", stride=2, kernel=3) == Operation("c", kernel=3.0, stride=2)
    assert len({Operation("c", kernel=3), Operation("c", kernel=3), Operation("c", kernel=5)}) == 2
    assert Operation("c", kernel=3).attributes == {"kernel": 3.0}


@pytest.mark.parametrize("value", ["3", None, float("nan"), float("inf")])
def test_attributes_are_numbers(value):
    with pytest.raises(ValueError, match="kernel"):
        Operation("c", kernel=value)


def test_an_operation_needs_a_name():
    with pytest.raises(ValueError, match="name"):
        Operation("")
