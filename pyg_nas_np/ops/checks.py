r"""Argument checks shared by the operators: every message names the argument and its value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_floating(**tensors: Tensor) -> None:
    r"""Requires floating tensors of one dtype and one device.

    Raises:
        TypeError: If an argument is not a tensor, or the dtypes differ or are not floating.
        ValueError: If the devices differ.
    """
    first_name, first = next(iter(tensors.items()))
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"'{name}' must be a tensor but is a {type(value).__name__}.")
        if value.dtype not in FLOATING:
            raise TypeError(f"'{name}' must be float64, float32, bfloat16 or float16 but is {value.dtype}.")
        # Under autocast the operators convert all of them themselves.
        if value.dtype != first.dtype and not torch.is_autocast_enabled(first.device.type):
            raise TypeError(f"'{name}' is {value.dtype} but '{first_name}' is {first.dtype}: convert one of them.")
        if value.device != first.device:
            raise ValueError(
                f"'{name}' is on {value.device} but '{first_name}' is on {first.device}: move one of them."
            )


def check_ptr(ptr: Tensor, name: str, device: torch.device) -> None:
    r"""Requires a vector of at least one 64-bit offset; its values are checked by :func:`check_values`."""
    if not isinstance(ptr, Tensor) or ptr.dtype != torch.int64:
        raise TypeError(f"'{name}' must be an int64 tensor but is {getattr(ptr, 'dtype', type(ptr).__name__)}.")
    if ptr.dim() != 1 or ptr.numel() < 1:
        raise ValueError(f"'{name}' must have shape [num_sets + 1] but has shape {list(ptr.shape)}.")
    if ptr.device != device:
        raise ValueError(f"'{name}' is on {ptr.device} but the points are on {device}: move one of them.")


def check_values(lengthscale: Tensor, **offsets: tuple[Tensor, int]) -> list[float]:
    r"""Checks the values of a length scale and of offsets, and returns the length scales.

    On another device they are copied together, because every copy waits for the device.

    Args:
        lengthscale: Length scales, which must be positive and finite.
        offsets: Offsets by the names of their arguments, each with the number of rows at which they must end.
    """
    scales, ptrs = lengthscale.detach().reshape(-1).double(), [ptr.detach() for ptr, _ in offsets.values()]
    if lengthscale.device.type != "cpu":
        host = torch.cat([scales.view(torch.int64), *ptrs]).cpu()
        parts = host.split([scales.numel(), *[ptr.numel() for ptr in ptrs]])
        scales, ptrs = parts[0].view(torch.float64), list(parts[1:])
    _check_positive(scales.numpy(), "lengthscale")
    for ptr, (name, (_, size)) in zip(ptrs, offsets.items(), strict=True):
        _check_offsets(ptr.numpy(), name, size)
    result: list[float] = scales.tolist()
    return result


def _check_offsets(values: NDArray[np.int64], name: str, size: int) -> None:
    r"""Requires offsets that start at 0, never decrease and end at :obj:`size`."""
    if values[0] != 0 or values[-1] != size:
        raise ValueError(
            f"'{name}' must run from 0 to the number of rows, {size}, but runs from {values[0]} to {values[-1]}."
        )
    down = values[1:] < values[:-1]
    if down.any():
        at = int(down.argmax())
        raise ValueError(
            f"'{name}' must not decrease but {name}[{at}] = {values[at]} is followed by {values[at + 1]}: "
            f"sort the rows by set and build the offsets with torch_geometric.utils.sparse.index2ptr."
        )


def _check_positive(values: NDArray[np.float64], name: str) -> None:
    r"""Requires positive finite values."""
    good = (values > 0) & (values < math.inf)
    if not good.all():
        raise ValueError(f"'{name}' must be positive and finite but contains {values[~good].item(0)}.")


def check_kernel_width(dim: int, name: str, low: int, high: int) -> None:
    r"""Requires between :obj:`low` and :obj:`high` dimensions of the inputs."""
    if not low <= dim <= high:
        raise ValueError(f"'{name}' must have {low} to {high} dimensions but has {dim}.")


def per_axis(value: float | int | Sequence[float] | Sequence[int], dim: int, name: str) -> list[float]:
    r"""Expands a number, or one per axis, into a list of one per axis."""
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * dim
    if len(values) != dim:
        raise ValueError(f"'{name}' must be a number or one per axis, {dim}, but is {list(values)}.")
    return values
