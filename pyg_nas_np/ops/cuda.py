r"""The CUDA back end: launches the Triton kernels.

With ``TRITON_INTERPRET=1`` the same code runs on CPU tensors, for tests without a GPU. float64 uses the reference.
Nothing here synchronises with the device.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import struct
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.ops import reference
from pyg_nas_np.ops.radial import KERNELS
from pyg_nas_np.utils import BackendUnavailableError

if TYPE_CHECKING:
    from pyg_nas_np.ops import triton_kernels


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_available() -> bool:
    r"""Returns whether the Triton kernels can run on this machine's CUDA devices."""
    return _installed() and torch.cuda.is_available()


def require_device(device: torch.device) -> None:
    r"""Checks that the Triton kernels can run on a device.

    Raises:
        BackendUnavailableError: If Triton is not installed or the device is not a CUDA device.
    """
    if not _installed():
        raise BackendUnavailableError(
            "The back end 'cuda' needs Triton, which comes with the CUDA builds of PyTorch; otherwise: "
            "pip install triton"
        )
    if device.type != "cuda" and not _interpreted():
        raise BackendUnavailableError(f"The back end 'cuda' was asked for, but the tensors are on '{device}'.")


_NOWHERE = contextlib.nullcontext()

# Compiled kernels by what they depend on. Triton's own look-up derives that from every argument of every launch, which
# takes longer than the rest of the launch.
_compiled: dict[tuple[Any, ...], Any] = {}
_MOST_COMPILED = 10_000  # grids of ever new shapes are specialised


def _launch(
    kernel: Any,
    grid: tuple[int, ...],
    tensors: tuple[Tensor, ...],
    numbers: tuple[float, ...],
    constants: dict[str, int | bool | str],
    **options: int,
) -> None:
    r"""Launches a kernel.

    Args:
        kernel: The kernel.
        grid: Programs per axis, at most three.
        tensors: Its pointers, in the order of its signature.
        numbers: Its arguments of fixed types that it is not specialised on, likewise.
        constants: All others, likewise.
        options: Those of Triton's compiler.
    """
    if 0 in grid:
        return
    if _interpreted():
        kernel[grid](*tensors, *numbers, **constants)  # the interpreter accepts no options
        return
    device = tensors[0].get_device()
    # Kernels are specialised on the alignment of pointers.
    aligned = not any([tensor.data_ptr() % 16 for tensor in tensors])  # noqa: C419  a generator takes twice as long
    key = (kernel.__name__, device, *constants.values(), *[tensor.dtype for tensor in tensors])
    compiled = _compiled.get(key) if aligned else None
    # Triton launches on the current device, which need not be that of the tensors.
    with _NOWHERE if device < 0 or device == torch.cuda.current_device() else torch.cuda.device(device):
        if compiled is not None:
            compiled[(*grid, 1, 1)[:3]](*tensors, *numbers, *constants.values())
            return
        assert [*constants] == kernel.arg_names[-len(constants) :], "the launch above is by position"
        # Later versions of Triton fuse multiply-adds only on request.
        compiled = kernel[grid](*tensors, *numbers, **constants, num_stages=1, enable_fp_fusion=True, **options)
    if aligned:
        if len(_compiled) >= _MOST_COMPILED:
            _compiled.clear()
        _compiled[key] = compiled


def _width(size: int, most: int) -> int:
    r"""Returns the power of two that covers a width, at least the 16 that tensor cores need."""
    return min(max(16, 1 << max(0, size - 1).bit_length()), most)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@cache
def _kernels() -> Any:
    r"""Returns the module of the kernels, which imports Triton."""
    from pyg_nas_np.ops import triton_kernels

    return triton_kernels


def _tiles(own: Tensor, other: Tensor, sets: int, rows: int, programs: int, most: int) -> tuple[int, int]:
    r"""Returns the number of tiles that cover one side of a ragged batch, and of programs that split the other side.

    Both are bounds that need no value of ``ptr`` on the host. If there are too few tiles to fill the device, several
    programs split the work of a tile, up to :obj:`most` on a multiprocessor, or more where sets may differ in size.
    """
    tiles = own.size(0) // rows + sets
    wanted = _multiprocessors(own.device) * most * (1 if sets == 1 else _kernels().RAGGED_FACTOR)
    splits = math.ceil(wanted / max(1, tiles * programs))
    return tiles, max(1, min(splits, other.size(0) // max(1, sets * _kernels().LEAST_SHARE)))


def _precision(dtype: torch.dtype) -> str:
    r"""Returns how tensor cores multiply: float32 by three products of TF32, unless the user allows one."""
    if dtype == torch.float32:
        return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
    # The interpreter would multiply the bits of bfloat16 as integers.
    return "tf32" if _interpreted() else "half"


def _is_paired(value: Tensor) -> bool:
    r"""Returns whether contiguous rows of an even width can be loaded in pairs of float32."""
    return value.dtype == torch.float32 and value.data_ptr() % 8 == 0


def _heads(x: Tensor) -> int:
    return x.size(1) if x.dim() == 3 else 1


class _Side(NamedTuple):
    r"""Sources or targets: contiguous rows of coordinates and of values, which are the same if packed, and offsets."""

    x: Tensor
    values: Tensor
    ptr: Tensor
    packed: bool = False


def _paired(
    side: _Side,
    plan: triton_kernels.Plan,
    channels: int,
    eps: float = 0.0,
    density: Tensor | None = None,
    signal: Tensor | None = None,
    grad_density: Tensor | None = None,
    constant: Tensor | None = None,
) -> _Side:
    r"""Returns a side whose rows can be loaded in pairs: itself, or its coordinates and values in rows of float32.

    With a density, the values are gradients of a signal that was divided by it. If given, :obj:`constant` is filled
    with the gradient of the density itself.
    """
    if plan.dense and density is None and _is_paired(side.x) and _is_paired(side.values):
        return side
    x, values, ptr, _ = side
    constants = _kernels().pack_constants(plan, channels, density is not None, constant is not None)
    packed = torch.empty((*x.shape[:-1], plan.stop), dtype=torch.float32, device=x.device)
    optional = [packed if value is None else value for value in (density, signal, grad_density, constant)]
    rows = x.size(0) * _heads(x)
    _launch(
        _kernels().pack,
        (-(-rows // _kernels().PACK_ROWS),),
        (x, values, *optional, packed),
        (rows, eps),
        constants,
        num_warps=_kernels().ROW_WARPS,
    )
    return _Side(packed, packed, ptr, True)


def set_conv(
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv`.

    The axis of heads may be missing. A length scale ``[H, 1]`` is shared by all dimensions.
    """
    sources = _Side(x_src.contiguous(), y_src.contiguous(), ptr_src.contiguous())
    targets = _Side(x_dst.contiguous(), x_dst, ptr_dst.contiguous())
    return _convolve(targets, sources, lengthscale, kernel, eps, normalize)


def _convolve(
    own: _Side,
    other: _Side,
    lengthscale: Tensor,
    kernel: str,
    eps: float,
    normalize: bool,
    with_density: bool = True,
    density_other: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns the sums of weights and of weighted values.

    Without the sums of weights, the values are gradients of a signal that was divided by :obj:`density_other`.
    """
    kernels, dtype, device = _kernels(), other.values.dtype, own.x.device
    rows, heads, dim, channels = own.x.size(0), _heads(own.x), own.x.size(-1), other.values.size(-1)
    sets, lead = own.ptr.numel() - 1, own.x.shape[:-1]
    wide = channels >= kernels.WIDE_CHANNELS
    plan = kernels.convolve_plan(dim, channels)
    if wide:
        parts, block, most = kernels.wide_parts(channels), kernels.WIDE_ROWS, kernels.WIDE_PROGRAMS
    else:
        parts, block, most = plan.parts, plan.rows, kernels.PROGRAMS
    tiles, splits = _tiles(own.x, other.x, sets, block, heads * parts, most)
    # What several programs share is added in float32, and divided afterwards.
    signal = _shares(splits, (*lead, channels), dtype, device)
    density = _shares(splits, lead, dtype, device) if with_density else signal
    grid, numbers = (tiles * splits, heads, parts), (sets, rows, splits, *lengthscale.stride(), eps)
    form = KERNELS.index(kernel), lengthscale.size(1) == 1, with_density
    divide = normalize and splits == 1
    if wide:
        rates = signal if density_other is None else density_other
        _launch(
            kernels.convolve_wide,
            grid,
            (own.x, other.x, other.values, lengthscale, rates, own.ptr, other.ptr, density, signal),
            numbers,
            kernels.convolve_wide_constants(
                heads, dim, channels, *form, divide if with_density else density_other is not None, _precision(dtype)
            ),
            **kernels.CONVOLVE_OPTIONS,
        )
    else:
        other = _paired(other, plan, channels, eps, density_other)
        _launch(
            kernels.convolve,
            grid,
            (own.x, other.x, other.values, lengthscale, own.ptr, other.ptr, density, signal),
            numbers,
            kernels.convolve_constants(heads, plan, channels, other.packed, *form, divide),
            num_warps=plan.warps,
        )
    if splits == 1:
        return density, signal
    if not with_density:
        return density, signal.sum(0).to(dtype)
    sums = torch.empty(lead, dtype=dtype, device=device), torch.empty((*lead, channels), dtype=dtype, device=device)
    _launch(
        kernels.combine,
        (-(-rows * heads // kernels.COMBINE_ROWS), max(1, -(-channels // kernels.COMBINE_CHANNELS))),
        (density, signal, *sums),
        (rows * heads, splits, eps),
        kernels.combine_constants(channels, normalize),
        num_warps=kernels.ROW_WARPS,
    )
    return sums


def _shares(number: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    r"""Returns memory for a result, or in float32 for a number of parts of it."""
    if number == 1:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.empty((number, *shape), dtype=torch.float32, device=device)


def set_conv_backward(
    grad_density: Tensor,
    grad_signal: Tensor,
    density: Tensor,
    signal: Tensor,
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_backward`; gradients that are not needed are empty.

    The gradient of a length scale has the shape of the length scale, ``[H, D]`` or ``[H, 1]``.
    """
    kernels, dim, channels = _kernels(), x_src.size(-1), y_src.size(-1)
    grad_density, grad_signal = grad_density.contiguous(), grad_signal.contiguous()
    if normalize:
        density, signal = density.contiguous(), signal.contiguous()
    sources = _Side(x_src.contiguous(), y_src.contiguous(), ptr_src.contiguous())
    targets = _Side(x_dst.contiguous(), grad_signal, ptr_dst.contiguous())
    wide = channels >= kernels.WIDE_CHANNELS
    if need_y and (wide or not need_x):
        divided_by = density if normalize else None
        _, grad_y = _convolve(sources, targets, lengthscale, kernel, eps, False, False, divided_by)
    elif not need_y:
        grad_y = y_src.new_empty(0)
    if not need_x:
        return y_src.new_empty(0), grad_y, y_src.new_empty(0), y_src.new_empty(0)
    # The gradient of a signal that was divided by the density reaches the density, too.
    constant = torch.empty_like(grad_density, dtype=torch.float32) if normalize else grad_density
    if wide and normalize:
        _launch(
            kernels.gradient_of_density,
            (-(-constant.numel() // kernels.COMBINE_ROWS),),
            (grad_density, grad_signal, density, signal, constant),
            (constant.numel(), eps),
            kernels.gradient_of_density_constants(channels),
            num_warps=kernels.ROW_WARPS,
        )
    elif not wide:
        plan = kernels.pull_plan(dim, channels)
        sources = _paired(sources, plan, channels)
        targets = _paired(
            targets, plan, channels, eps, *((density, signal, grad_density, constant) if normalize else ())
        )
    density = density if normalize else constant
    form = _Form(dim, channels, kernel, normalize, eps, lengthscale, density, constant, y_src.dtype)
    grad_x_dst, _, grad_scale = _pull(targets, sources, form, True, False)
    with_values = need_y and not wide
    grad_x_src, sums, _ = _pull(sources, targets, form, False, with_values)
    return grad_x_src, sums if with_values else grad_y, grad_x_dst, grad_scale


class _Form(NamedTuple):
    r"""What both launches of a backward pass depend on."""

    dim: int
    channels: int
    kernel: str
    normalize: bool
    eps: float
    lengthscale: Tensor
    density: Tensor
    constant: Tensor
    dtype: torch.dtype


def _pull(
    own: _Side, other: _Side, form: _Form, own_is_target: bool, with_values: bool
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the gradients of one side's locations, optionally of its values, and for targets of the length scale.

    What is not computed stands for memory that the kernel does not touch.
    """
    kernels, (dim, channels, kernel, normalize, eps, lengthscale, density, constant, dtype) = _kernels(), form
    rows, heads, sets, device = own.x.size(0), _heads(own.x), own.ptr.numel() - 1, own.x.device
    wide = channels >= kernels.WIDE_CHANNELS
    plan = kernels.pull_plan(dim, channels)
    if wide:
        parts, pieces, block, most = 1, 1, kernels.WIDE_ROWS, kernels.WIDE_PROGRAMS
    else:
        parts, pieces, block, most = plan.parts, plan.pieces, plan.rows, kernels.PROGRAMS
    tiles, splits = _tiles(own.x, other.x, sets, block, heads * parts * pieces, most)
    # What several programs share is added in float32.
    lead = own.x.shape[:-1]
    grad_x = _shares(parts * splits, (*lead, dim), dtype, device)
    grad_v = _shares(splits, (*lead, channels), dtype, device) if with_values else grad_x
    slots = parts * tiles * splits
    grad_scale = _shares(slots, lengthscale.shape, torch.float32, device) if own_is_target else grad_x
    numbers = sets, rows, splits, *lengthscale.stride()
    sides = KERNELS.index(kernel), lengthscale.size(1) == 1, own_is_target
    if wide:
        _launch(
            kernels.pull_wide,
            (tiles * splits, heads),
            (*own[:2], *other[:2], lengthscale, density, constant, own.ptr, other.ptr, grad_x, grad_scale),
            (*numbers, eps),
            kernels.pull_wide_constants(heads, dim, channels, *sides, normalize, _precision(dtype)),
            **kernels.PULL_OPTIONS,
        )
    else:
        _launch(
            kernels.pull,
            (tiles * splits, heads, parts * pieces),
            (*own[:2], *other[:2], lengthscale, constant, own.ptr, other.ptr, grad_x, grad_v, grad_scale),
            numbers,
            kernels.pull_constants(heads, plan, channels, own.packed, other.packed, *sides, with_values),
            **kernels.pull_options(plan, with_values),
        )
    return (
        _total(grad_x, parts * splits, dtype),
        _total(grad_v, splits, dtype) if with_values else grad_v,
        _total(grad_scale, slots, torch.float32) if own_is_target else grad_scale,
    )


def _total(parts: Tensor, number: int, dtype: torch.dtype) -> Tensor:
    return parts if number == 1 else parts.sum(0).to(dtype)


_AXES = ("SHAPE0", "SHAPE1", "SHAPE2", "WINDOW0", "WINDOW1", "WINDOW2")


class _Windows(NamedTuple):
    r"""Windows of all points on grids of three dimensions; missing leading dimensions have one cell."""

    first: Tensor  # [N, 3], int32
    offset: Tensor  # [N, 3], float32
    step: Tensor  # [3], float32
    batch: Tensor  # [N], int32
    key: Tensor | None  # [N]: number of the first cell among those that windows of all sets begin at
    shape: tuple[int, int, int]
    window: tuple[int, int, int]

    @property
    def axes(self) -> dict[str, int | bool | str]:
        r"""Shape and window as arguments of kernels."""
        return dict(zip(_AXES, (*self.shape, *self.window), strict=True))


def _windows(
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    keys: torch.dtype | None = None,
) -> _Windows:
    (points, dim), sets = x.shape, ptr.numel() - 1
    missing = (1,) * (3 - dim)
    device = x.device
    first = torch.empty((points, 3), dtype=torch.int32, device=device)
    offset = torch.empty((points, 3), dtype=torch.float32, device=device)
    windows = _Windows(
        first,
        offset,
        torch.empty(3, dtype=torch.float32, device=device),
        torch.empty(points, dtype=torch.int32, device=device),
        None if keys is None else torch.empty(points, dtype=keys, device=device),
        (*missing, *shape),  # type: ignore[arg-type]
        (*missing, *window),  # type: ignore[arg-type]
    )
    _launch(
        _kernels().locate,
        (-(-points // _kernels().LOCATE_POINTS),),
        (
            x.contiguous(),
            origin.contiguous(),
            lengthscale.contiguous(),
            ptr.contiguous(),
            *windows[:4],
            first if windows.key is None else windows.key,
        ),
        (points, sets, (sets - 1).bit_length(), *[_bits(step) for step in (*missing, *spacing)]),
        {**windows.axes, "DIM": dim, "KEYS": keys is not None, "BLOCK_POINTS": _kernels().LOCATE_POINTS},
        num_warps=_kernels().LOCATE_WARPS,
    )
    return windows


def _bits(number: float) -> int:
    r"""Returns the bits of a double as an integer, because Triton would pass the number in single precision."""
    return int.from_bytes(struct.pack("<d", number), "little", signed=True)


def set_conv_to_grid(
    x: Tensor,
    y: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_to_grid`.

    Sums are atomic, or sorted and in a fixed order if that is faster and with
    :func:`torch.use_deterministic_algorithms`.
    """
    if y.dtype == torch.float64:
        return reference.set_conv_to_grid(x, y, lengthscale, ptr, origin, spacing, shape, window, kernel)
    cells, places = (ptr.numel() - 1) * math.prod(shape), math.prod(window)
    something = cells > 0 and x.size(0) > 0
    # The sorted kernel visits every cell, so there must be points for most of them.
    worthwhile = places >= _kernels().SORT_PLACES and 4 * x.size(0) >= cells
    ordered = something and (worthwhile or torch.are_deterministic_algorithms_enabled())
    make, dtype = (torch.empty, y.dtype) if ordered else (torch.zeros, torch.float32)
    density = make((ptr.numel() - 1, *shape), dtype=dtype, device=x.device)
    signal = make((*density.shape, y.size(1)), dtype=dtype, device=x.device)
    if something:
        begins = (ptr.numel() - 1) * math.prod(size + reach - 1 for size, reach in zip(shape, window, strict=True))
        keys = None if not ordered else torch.int32 if begins < 2**31 else torch.int64
        windows = _windows(x, lengthscale, ptr, origin, spacing, shape, window, keys)
        if windows.key is None:
            _scatter(windows, y.contiguous(), kernel, density, signal)
        else:
            key, order = torch.sort(windows.key, stable=True)
            starts = torch.searchsorted(key, torch.arange(begins + 1, dtype=keys, device=x.device))
            _scatter_sorted(windows, order, starts, y.contiguous(), kernel, density, signal)
    return density.to(y.dtype), signal.to(y.dtype)


def _scatter(windows: _Windows, y: Tensor, kernel: str, density: Tensor, signal: Tensor) -> None:
    points, channels = y.shape
    width = _width(channels, _kernels().POINT_CHANNELS)
    _launch(
        _kernels().scatter,
        (math.ceil(points / _kernels().SCATTER_POINTS), max(1, math.ceil(channels / width))),
        (*windows[:4], y, density, signal),
        (points,),
        {
            **windows.axes,
            "CHANNELS": channels,
            "KERNEL": KERNELS.index(kernel),
            "BLOCK_CHANNELS": width,
            "BLOCK_POINTS": _kernels().SCATTER_POINTS,
        },
        num_warps=_kernels().SCATTER_WARPS,
    )


def _scatter_sorted(
    windows: _Windows, order: Tensor, starts: Tensor, y: Tensor, kernel: str, density: Tensor, signal: Tensor
) -> None:
    channels, sets = y.size(1), density.size(0)
    width = _width(channels, _kernels().SEGMENT_CHANNELS)
    rows = sets * windows.shape[0] * windows.shape[1]
    pieces = math.ceil(windows.shape[2] / _kernels().SEGMENT_CELLS)
    _launch(
        _kernels().scatter_sorted,
        (rows * pieces, max(1, math.ceil(channels / width))),
        (order, starts, windows.first, windows.offset, windows.step, y, density, signal),
        (),
        {
            **windows.axes,
            "CHANNELS": channels,
            "KERNEL": KERNELS.index(kernel),
            "BLOCK_CELLS": _kernels().SEGMENT_CELLS,
            "BLOCK_CHANNELS": width,
            "BLOCK_POINTS": _kernels().SEGMENT_POINTS,
        },
        num_warps=_kernels().SEGMENT_WARPS,
    )


def set_conv_from_grid(
    y: Tensor,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_from_grid`."""
    if y.dtype == torch.float64:
        return reference.set_conv_from_grid(y, x, lengthscale, ptr, origin, spacing, window, kernel)
    points, channels = x.size(0), y.size(-1)
    some = y.shape[:-1].numel() > 0
    make = torch.empty if some else torch.zeros
    density = make((points,), dtype=y.dtype, device=x.device)
    signal = make((points, channels), dtype=y.dtype, device=x.device)
    if some:
        windows = _windows(x, lengthscale, ptr, origin, spacing, y.shape[1:-1], window)
        width = _width(channels, _kernels().POINT_CHANNELS)
        _launch(
            _kernels().gather,
            (math.ceil(points / _kernels().GATHER_POINTS), max(1, math.ceil(channels / width))),
            (*windows[:4], y.contiguous(), density, signal),
            (points,),
            {
                **windows.axes,
                "CHANNELS": channels,
                "KERNEL": KERNELS.index(kernel),
                "BLOCK_CHANNELS": width,
                "BLOCK_POINTS": _kernels().GATHER_POINTS,
            },
            num_warps=_kernels().GATHER_WARPS,
        )
    return density, signal


def grid_gradient(
    u: Tensor,
    u_density: Tensor | None,
    v: Tensor,
    v_density: Tensor | None,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.grid_gradient`."""
    if u.dtype == torch.float64:
        return reference.grid_gradient(u, u_density, v, v_density, x, lengthscale, ptr, origin, spacing, window, kernel)
    (points, channels), dim = u.shape, x.size(1)
    parts = max(1, math.ceil(channels / _kernels().GRADIENT_CHANNELS))
    some = v.shape[:-1].numel() > 0
    make = torch.empty if some else torch.zeros
    force = make((parts, points, 3), dtype=torch.float32, device=x.device)
    square = make((parts, points, 3), dtype=torch.float32, device=x.device)
    if some:
        windows = _windows(x, lengthscale, ptr, origin, spacing, v.shape[1:-1], window)
        _launch(
            _kernels().gradient,
            (math.ceil(points / _kernels().GRADIENT_POINTS), parts),
            (
                *windows[:4],
                u.contiguous(),
                u if u_density is None else u_density.contiguous(),
                v.contiguous(),
                v if v_density is None else v_density.contiguous(),
                force,
                square,
            ),
            (points,),
            {
                **windows.axes,
                "CHANNELS": channels,
                "KERNEL": KERNELS.index(kernel),
                "U_DENSITY": u_density is not None,
                "V_DENSITY": v_density is not None,
                "BLOCK_CHANNELS": _kernels().GRADIENT_CHANNELS,
                "BLOCK_POINTS": _kernels().GRADIENT_POINTS,
            },
            num_warps=_kernels().GRADIENT_WARPS,
        )
    scale = lengthscale.float()
    grad_x = (force[0] if parts == 1 else force.sum(0))[:, 3 - dim :] / scale
    return grad_x.to(x.dtype), (square[..., 3 - dim :].sum((0, 1)) / scale).to(lengthscale.dtype)
