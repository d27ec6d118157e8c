r"""A device that is not there, for tests of code that moves tensors on machines without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

PRETENDED = torch.device("xla", 0)
r"""A device type that PyTorch knows and initialises nothing for."""

_MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class PretendedDevice(TorchDispatchMode):
    r"""Computes on the CPU what is on :data:`PRETENDED`, and refuses what a real device would.

    Inside the ``with`` block, tensors move there by ``to`` and back by ``cpu()``. An operation on tensors of both
    places fails, but for numbers (tensors without a dimension), as with CUDA. The mode is one of its thread.

    Example:
        >>> with PretendedDevice():
        ...     x = torch.ones(2).to(PRETENDED)
        ...     print(x.device, (x + x).cpu())
        xla:0 tensor([2., 2.])
    """

    count = 0
    """Operations inside the block."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return _computed(func, args, kwargs or {})


class _Elsewhere(Tensor):
    """A tensor of the CPU that says it is on another device."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _Elsewhere:
        made: _Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=PRETENDED,
        )
        made.held = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} on {PRETENDED}"

    # PyTorch would look for the real device.
    def __float__(self) -> float:
        return float(self.held)

    def __int__(self) -> int:
        return int(self.held)

    def __bool__(self) -> bool:
        return bool(self.held)

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        return _Elsewhere(self.held.contiguous(memory_format=memory_format))

    def __getitem__(self, index: Any) -> Tensor:
        return _Elsewhere(self.held[_inner(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.held[_inner(index)] = _inner(value)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


def _inner(tree: Any) -> Any:
    return tree_map_only(_Elsewhere, lambda tensor: tensor.held, tree)


def _computed(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, _Elsewhere) for tensor in tensors)
    if there and func not in _MOVES:
        for tensor in tensors:
            if tensor.dim() and not isinstance(tensor, _Elsewhere):
                raise RuntimeError(f"{func}: a tensor {list(tensor.shape)} of the CPU beside one on {PRETENDED}")
    wanted = kwargs.get("device")
    options = dict(_inner(kwargs)) | ({} if wanted is None else {"device": torch.device("cpu")})
    result = func(*_inner(args), **options)
    if func._schema.name.endswith("_") and isinstance(args[0], _Elsewhere):
        return args[0]
    if there if wanted is None else torch.device(wanted) == PRETENDED:
        return tree_map_only(Tensor, _Elsewhere, result)
    return result
