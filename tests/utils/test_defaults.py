r"""What is made within it does not depend on the defaults of the process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import BaseTorchFunctionMode
from typing_extensions import Self

from pyg_nas_np.utils import defaults
from pyg_nas_np.utils.defaults import FixedDefaults, fixed_defaults

Defaults = Callable[[], AbstractContextManager[None]]

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
    "logspace": lambda: torch.logspace(-1, 1, 3, base=2.0),
    "numpy": lambda: torch.as_tensor(np.array([0.1, 0.2])),
    "tensor of a tensor": lambda: torch.as_tensor(torch.zeros(2)),
    "typed": lambda: torch.tensor([0.1], dtype=torch.float64),
    "double": lambda: torch.tensor([0.1]).double(),
    "quotient": lambda: torch.tensor([1, 2, 3]) / 7,
    "quotient of tensors": lambda: torch.tensor([1, 2, 3]).div(torch.tensor(7)),
    "quotient of floats": lambda: torch.tensor([1, 2, 3]) / torch.tensor([7.0], dtype=torch.float64),
    "whole quotient": lambda: torch.div(torch.tensor([10, 21]), 4, rounding_mode="floor"),
    "quotient by a float": lambda: torch.tensor([1, 2, 3]) / 7.0,
    "product with a float": lambda: 0.1 * torch.arange(3) + 0.3,
    "difference from a float": lambda: 0.1 - torch.arange(3),
    "logarithm": lambda: torch.arange(1, 4).log(),
    "fraction": lambda: 1 / torch.arange(1, 4),
    "float of an integer": lambda: torch.arange(3).float() / 7,
    "triangle": lambda: torch.triu_indices(3, 3)[0],
}


@pytest.mark.parametrize("name", MAKERS)
def test_same_tensor_under_other_defaults(name: str, other_defaults: Defaults) -> None:
    expected = MAKERS[name]()
    with other_defaults():
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


def test_the_defaults_of_the_process_stay(other_defaults: Defaults) -> None:
    with other_defaults():
        fixed_defaults(lambda: torch.zeros(1))()
        assert torch.zeros(1).dtype != torch.float32
        assert torch.zeros(1).device.type == "meta"


def test_functions_in_functions_fix_them_once(other_defaults: Defaults, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    class Counted(FixedDefaults):
        def __enter__(self) -> Self:
            entered.append(self)
            return super().__enter__()

    monkeypatch.setattr(defaults, "FixedDefaults", Counted)
    make = functools.reduce(lambda inner, _: fixed_defaults(lambda: inner()), range(5), lambda: torch.zeros(1) + 0.1)
    with other_defaults():
        assert make().dtype == torch.float32
    assert len(entered) == 1


def test_contexts_in_between_count(other_defaults: Defaults) -> None:
    """Code of a user that is called back may set a device, or one of ours another type."""
    make = fixed_defaults(lambda: torch.arange(3) / 2)

    def halves(context: AbstractContextManager[object]) -> Tensor:
        with context:
            return make()

    with other_defaults():
        for context in (torch.device("meta"), FixedDefaults(torch.float64), BaseTorchFunctionMode()):
            found = fixed_defaults(halves)(context)
            assert (found.dtype, found.device.type) == (torch.float32, "cpu")
