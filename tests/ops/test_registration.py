"""Registration of an operator; those of the package pass PyTorch's own checks in their tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, library

from pyg_nas_np.ops.registration import register, register_autocast


def _scale(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return factor * x, x.sum()


def _fake(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(())


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.factor = inputs[1]
    ctx.like = output[0].shape


def _backward(ctx: Any, grad: Tensor, grad_sum: Tensor) -> tuple[Tensor, None]:
    return ctx.factor * grad + grad_sum, None


@pytest.fixture(scope="module")
def scale() -> Any:
    operator = register("scale_of_a_test", _scale, _fake, _setup, _backward)
    register_autocast("scale_of_a_test")
    return operator


def test_the_schema_is_that_of_the_annotations(scale: Any) -> None:
    assert str(scale._schema) == "pyg_nas_np::scale_of_a_test(Tensor x, float factor) -> (Tensor, Tensor)"
    assert scale is torch.ops.pyg_nas_np.scale_of_a_test.default


def test_it_passes_the_checks_of_pytorch(scale: Any) -> None:
    for needs_gradient in (False, True):
        library.opcheck(scale, (torch.ones(3, requires_grad=needs_gradient), 2.0))


def test_gradients(scale: Any) -> None:
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scale(x, 3.0), [x])
    with torch.no_grad():
        assert not scale(x, 3.0)[0].requires_grad


def test_autocast_computes_in_single_precision(scale: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert scale(torch.ones(2, dtype=torch.bfloat16), 2.0)[0].dtype == torch.float32
