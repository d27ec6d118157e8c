r"""What is made within it does not depend on the defaults of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_nas_np.utils.defaults import FixedDefaults, fixed_defaults

MAKERS: dict[str, Callable[[], Tensor]] = {
    "zeros": lambda: torch.zeros(2),
    "full of floats": lambda: torch.full((2,), 0.1),
    "full of integers": lambda: torch.full((2,), 3),
    "tensor of floats": lambda: torch.tensor([0.1, 1 / 3]),
    "tensor of integers": lambda: torch.tensor([1, 2]),
    "tensor of booleans": lambda: torch.tensor([True]),
    "arange": lambda: torch.arange(3),
    "arange of floats": lambda: torch.arange(0.0, 1.0, 0.1),
    "linspace": lambda: torch.linspace(0, 1, 7),
    "numpy": lambda: torch.as_tensor(np.array([0.1, 0.2])),
    "typed": lambda: torch.tensor([0.1], dtype=torch.float64),
    "double": lambda: torch.tensor([0.1]).double(),
    "quotient": lambda: torch.tensor([1, 2, 3]) / 7,
    "quotient of tensors": lambda: torch.tensor([1, 2, 3]).div(torch.tensor(7)),
    "quotient of floats": lambda: torch.tensor([1, 2, 3]) / torch.tensor([7.0], dtype=torch.float64),
    "triangle": lambda: torch.triu_indices(3, 3)[0],
}


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    old = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(old)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_same_tensor_under_other_defaults(name: str, dtype: torch.dtype) -> None:
    expected = MAKERS[name]()
    with defaults(dtype, "meta"):
        found = fixed_defaults(MAKERS[name])()
    assert (found.dtype, found.device) == (expected.dtype, expected.device)
    assert torch.equal(found, expected)


def test_the_context_itself_changes_nothing() -> None:
    for make in MAKERS.values():
        expected = make()
        with FixedDefaults():
            found = make()
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_a_named_type_and_device_are_kept() -> None:
    with FixedDefaults():
        assert torch.zeros(2, dtype=torch.float16, device="meta").device.type == "meta"
        assert torch.tensor([1.0], dtype=torch.float16).dtype == torch.float16


def test_the_defaults_of_the_process_stay() -> None:
    with defaults(torch.float64, "meta"):
        fixed_defaults(lambda: torch.zeros(1))()
        assert torch.zeros(1).dtype == torch.float64
        assert torch.zeros(1).device.type == "meta"
