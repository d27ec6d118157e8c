r"""Independence of PyTorch's default dtype and default device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

P = ParamSpec("P")
R = TypeVar("R")

_FLOATS = frozenset(
    {
        torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace,
        torch.normal,
    }
)  # fmt: skip
_OTHERS = frozenset(
    {
        torch.arange, torch.as_tensor, torch.asarray, torch.full, torch.randint, torch.randperm, torch.tensor,
        torch.tril_indices, torch.triu_indices,
    }
)  # fmt: skip
_QUOTIENTS = frozenset(
    {
        torch.div, torch.true_divide, torch.sqrt, torch.exp, torch.log, torch.log2, torch.log1p,
        Tensor.div, Tensor.true_divide, Tensor.__truediv__, Tensor.__rtruediv__, Tensor.reciprocal,
        Tensor.sqrt, Tensor.exp, Tensor.log, Tensor.log2, Tensor.log1p,
    }
)  # fmt: skip
_SUMS = frozenset(
    {
        torch.add, torch.sub, torch.mul, torch.pow, Tensor.add, Tensor.sub, Tensor.mul, Tensor.pow,
        Tensor.__add__, Tensor.__radd__, Tensor.__sub__, Tensor.__rsub__, Tensor.__mul__, Tensor.__rmul__,
        Tensor.__pow__, Tensor.__rpow__,
    }
)  # fmt: skip


class FixedDefaults(TorchFunctionMode):
    r"""Within it, new tensors of its thread have a fixed type and device unless a call names others.

    Args:
        dtype: Type of new floating-point tensors, and of quotients and roots of integers.
        device: Their device.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.dtype, self.device = dtype, torch.device(device)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _are_fixed:
            return self.dtype == torch.float32 and self.device.type == "cpu"
        kwargs = dict(kwargs or {})
        if (func in _FLOATS or func in _OTHERS) and kwargs.get("device") is None:
            # torch.as_tensor of a tensor keeps its device.
            given = next((value for value in args if isinstance(value, Tensor)), None)
            kwargs["device"] = self.device if given is None else given.device
        if func in _FLOATS and kwargs.get("dtype") is None:
            kwargs["dtype"] = self.dtype
        elif _promotes(func, args, kwargs):
            args = tuple(value.to(self.dtype) if isinstance(value, Tensor) else value for value in args)
        result = func(*args, **kwargs)
        if func in _OTHERS and kwargs.get("dtype") is None and _is_floating(result) and not _typed(args):
            # A list of Python numbers is converted again, because the first conversion may have rounded.
            result = func(*args, **{**kwargs, "dtype": self.dtype})
        return result


def fixed_defaults(function: Callable[P, R]) -> Callable[P, R]:
    r"""Makes a function independent of :func:`torch.set_default_dtype` and :func:`torch.set_default_device`.

    There is no overhead if these have PyTorch's initial values.

    Example:
        >>> halves = fixed_defaults(lambda: torch.arange(3) / 2)
        >>> torch.set_default_dtype(torch.float64)
        >>> halves().dtype
        torch.float32
        >>> torch.set_default_dtype(torch.float32)
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.get_default_dtype() == torch.float32 and torch.get_default_device().type == "cpu":
            return function(*args, **kwargs)
        # One context in another doubles the Python calls for every operation.
        if has_torch_function((None,)) and handle_torch_function(_are_fixed, ()):
            return function(*args, **kwargs)
        with FixedDefaults():
            return function(*args, **kwargs)

    return wrapped


def _are_fixed() -> bool:
    """Whether PyTorch's initial defaults are fixed already; other modes, if innermost, call this body."""
    return False


def _promotes(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether integers are converted to the default type."""
    if func in _QUOTIENTS or (func in _SUMS and any(isinstance(value, float) for value in args)):
        return kwargs.get("rounding_mode") is None and not any(map(_is_floating, args))
    return False


def _typed(args: tuple[Any, ...]) -> bool:
    return any(hasattr(value, "dtype") for value in args)


def _is_floating(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex()
    return False
