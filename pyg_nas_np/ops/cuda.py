r"""The CUDA back end: launches the Triton kernels.

With ``TRITON_INTERPRET=1`` the same code runs on CPU tensors, for tests without a GPU. float64 uses the reference.
Nothing here synchronises with the device.
"""

from __future__ import annotations

import importlib.util
import math
import os
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


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, warps: int, **constants: Any) -> None:
    if min(grid) == 0:
        return
    # Later versions of Triton fuse multiply-adds only on request. The interpreter accepts no options.
    options = {} if _interpreted() else {"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True}
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **constants, **options)


def _width(size: int, most: int) -> int:
    r"""Returns the power of two that covers a width, at least the 16 that tensor cores need."""
    return min(max(16, 1 << max(0, size - 1).bit_length()), most)


def _packed(x: Tensor, values: Tensor, plan: triton_kernels.Plan, grad_density: Tensor | None = None) -> Tensor:
    r"""Returns rows of coordinates, of values and of a number, twice, each starting at an even position."""
    columns = [x.float(), values.float()]
    if plan.start > x.size(-1):
        columns.insert(1, columns[0][..., : plan.start - x.size(-1)])
    if plan.stop - plan.start > values.size(-1):
        columns[-1] = torch.nn.functional.pad(columns[-1], (0, plan.stop - plan.start - values.size(-1)))
    if grad_density is not None:
        columns.append(grad_density.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat(columns, dim=-1)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _tiles(own: Tensor, other: Tensor, sets: int, rows: int, programs: int) -> tuple[int, int]:
    r"""Returns the number of tiles that cover one side of a ragged batch, and of programs that split the other side.

    Both are bounds that need no value of ``ptr`` on the host. If there are too few tiles to fill the device, several
    programs split the work of a tile.
    """
    from pyg_nas_np.ops import triton_kernels

    tiles = own.size(0) // rows + sets
    wanted = _multiprocessors(own.device) * (triton_kernels.PROGRAMS if sets == 1 else triton_kernels.RAGGED_PROGRAMS)
    splits = math.ceil(wanted / max(1, tiles * programs))
    return tiles, max(1, min(splits, other.size(0) // max(1, sets * triton_kernels.LEAST_SHARE)))


def _is_isotropic(lengthscale: Tensor) -> bool:
    r"""Returns whether all dimensions share one length scale, by its strides, because the values are on the device."""
    return lengthscale.size(1) == 1 or lengthscale.stride(1) == 0


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
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv`."""
    if y_src.dtype == torch.float64:
        return reference.set_conv(x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst, kernel, normalize, eps)
    density, signal = _convolve(x_dst, x_src, y_src, lengthscale, ptr_dst, ptr_src, kernel, True)
    if normalize:
        signal = signal / (density + eps).unsqueeze(-1)
    return density.to(y_src.dtype), signal.to(y_src.dtype)


def _convolve(
    x_own: Tensor,
    x_other: Tensor,
    y_other: Tensor,
    lengthscale: Tensor,
    ptr_own: Tensor,
    ptr_other: Tensor,
    kernel: str,
    with_density: bool,
) -> tuple[Tensor, Tensor]:
    r"""Returns the sums of weights, unless not wanted, and of weighted values."""
    from pyg_nas_np.ops import triton_kernels

    (rows, heads, dim), channels, sets = x_own.shape, y_other.size(2), ptr_own.numel() - 1
    plan = triton_kernels.convolve_plan(dim, channels)
    own, other = x_own.float().contiguous(), _packed(x_other, y_other, plan)
    tiles, splits = _tiles(own, other, sets, plan.rows, heads * plan.parts)
    density = own.new_empty(splits if with_density else 1, rows if with_density else 0, heads)
    signal = own.new_empty(splits, rows, heads, channels)
    _launch(
        triton_kernels.convolve,
        (tiles * splits, heads, plan.parts),
        own,
        other.view(torch.int64),
        lengthscale.float().reciprocal().contiguous(),
        ptr_own.contiguous(),
        ptr_other.contiguous(),
        density,
        signal,
        sets,
        rows,
        splits,
        heads,
        DIM=dim,
        CHANNELS=channels,
        WIDTH=other.size(-1),
        BLOCK_CHANNELS=plan.block_channels,
        KERNEL=KERNELS.index(kernel),
        ISOTROPIC=_is_isotropic(lengthscale),
        DENSITY=with_density,
        BLOCK_ROWS=plan.rows,
        warps=plan.warps,
    )
    return _sum(density), _sum(signal)


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
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_backward`; gradients that are not needed are empty."""
    needed = (need_x, need_y, need_x, need_x)
    if y_src.dtype == torch.float64:
        grads = reference.set_conv_backward(
            grad_density,
            grad_signal,
            density,
            signal,
            x_src,
            y_src,
            x_dst,
            lengthscale,
            ptr_src,
            ptr_dst,
            kernel,
            normalize,
            eps,
        )
        a, b, c, d = (grad if need else grad.new_empty(0) for grad, need in zip(grads, needed, strict=True))
        return a, b, c, d
    g, g_density = grad_signal.float(), grad_density.float()
    if normalize:
        g = g / (density.float() + eps).unsqueeze(-1)
        g_density = g_density - (g * signal.float()).sum(-1)
    grad_x_src, grad_y, grad_x_dst, grad_scale = (g.new_empty(0) for _ in needed)
    if need_x:
        from pyg_nas_np.ops import triton_kernels

        plan = triton_kernels.pull_plan(x_src.size(2), y_src.size(2))
        sources, targets = _packed(x_src, y_src, plan), _packed(x_dst, g, plan, g_density)
        inverse = lengthscale.float().reciprocal().contiguous()
        options = (inverse, _is_isotropic(lengthscale), kernel, plan, y_src.size(2))
        grad_x_dst, _, grad_scale = _pull(targets, sources, ptr_dst, ptr_src, *options, True, False)
        grad_x_src, grad_y, _ = _pull(sources, targets, ptr_src, ptr_dst, *options, False, need_y)
    elif need_y:
        _, grad_y = _convolve(x_src, x_dst, g, lengthscale, ptr_src, ptr_dst, kernel, False)
    return (
        grad_x_src.to(x_src.dtype),
        grad_y.to(y_src.dtype),
        grad_x_dst.to(x_dst.dtype),
        grad_scale.to(lengthscale.dtype),
    )


def _pull(
    own: Tensor,
    other: Tensor,
    ptr_own: Tensor,
    ptr_other: Tensor,
    inverse: Tensor,
    isotropic: bool,
    kernel: str,
    plan: triton_kernels.Plan,
    channels: int,
    own_is_target: bool,
    with_values: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the gradients of one side's locations, optionally of its values, and for targets of the length scale.

    The gradient of a length scale that all dimensions share is one number, stored in the first dimension.
    """
    from pyg_nas_np.ops import triton_kernels

    (rows, heads), sets = own.shape[:2], ptr_own.numel() - 1
    tiles, splits = _tiles(own, other, sets, plan.rows, heads * plan.parts * plan.pieces)
    grad_x = own.new_empty(plan.parts * splits, rows, heads, plan.dim)
    grad_v = own.new_empty(splits, rows, heads, channels) if with_values else own.new_empty(1, 0)
    slots = plan.parts * tiles * splits
    grad_scale = own.new_zeros(slots, heads, plan.dim) if own_is_target else own.new_empty(1, 0)
    _launch(
        triton_kernels.pull,
        (tiles * splits, heads, plan.parts * plan.pieces),
        own,
        other.view(torch.int64),
        inverse,
        ptr_own.contiguous(),
        ptr_other.contiguous(),
        grad_x,
        grad_v,
        grad_scale,
        sets,
        rows,
        splits,
        heads,
        DIM=plan.dim,
        CHANNELS=channels,
        OWN_WIDTH=own.size(-1),
        OTHER_WIDTH=other.size(-1),
        BLOCK_DIM=plan.block_dim,
        BLOCK_CHANNELS=plan.block_channels,
        KERNEL=KERNELS.index(kernel),
        ISOTROPIC=isotropic,
        OWN_IS_TARGET=own_is_target,
        VALUES=with_values,
        BLOCK_ROWS=plan.rows,
        warps=plan.warps,
    )
    return _sum(grad_x), _sum(grad_v), _sum(grad_scale)


def _sum(parts: Tensor) -> Tensor:
    return parts[0] if parts.size(0) == 1 else parts.sum(0)


class _Windows(NamedTuple):
    r"""Windows of all points on grids of three dimensions; missing leading dimensions have one cell."""

    first: Tensor  # [N, 3], int32
    offset: Tensor  # [N, 3], float32
    step: Tensor  # [3], float32
    batch: Tensor  # [N], int32
    shape: tuple[int, int, int]
    window: tuple[int, int, int]


def _windows(
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
) -> _Windows:
    from pyg_nas_np.ops import triton_kernels

    (points, dim), sets = x.shape, ptr.numel() - 1
    missing = (1,) * (3 - dim)
    first = x.new_empty(points, 3, dtype=torch.int32)
    offset = x.new_empty(points, 3, dtype=torch.float32)
    # Filled on the device, because copying a tensor from a list would synchronise.
    steps = torch.cat([x.new_full((1,), float(step), dtype=torch.float64) for step in spacing])
    windows = _Windows(
        first,
        offset,
        offset.new_zeros(3),
        first.new_empty(points),
        (*missing, *(int(size) for size in shape)),  # type: ignore[arg-type]
        (*missing, *(int(width) for width in window)),  # type: ignore[arg-type]
    )
    _launch(
        triton_kernels.locate,
        (math.ceil(points / triton_kernels.LOCATE_POINTS),),
        x.detach().contiguous(),
        origin.detach().contiguous(),
        steps,
        lengthscale.detach().contiguous(),
        ptr.contiguous(),
        *windows[:4],
        points,
        sets,
        (sets - 1).bit_length(),
        *windows.shape,
        *windows.window,
        DIM=dim,
        BLOCK_POINTS=triton_kernels.LOCATE_POINTS,
        warps=triton_kernels.LOCATE_WARPS,
    )
    return windows


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
    density = torch.zeros(ptr.numel() - 1, *shape, dtype=torch.float32, device=x.device)
    signal = torch.zeros(*density.shape, y.size(1), dtype=torch.float32, device=x.device)
    if density.numel() and x.size(0):
        from pyg_nas_np.ops import triton_kernels

        windows = _windows(x, lengthscale, ptr, origin, spacing, shape, window)
        # The sorted kernel visits every cell, so there must be points for most of them.
        worthwhile = math.prod(window) >= triton_kernels.SORT_PLACES and 4 * x.size(0) >= density.numel()
        ordered = worthwhile or torch.are_deterministic_algorithms_enabled()
        run = _scatter_sorted if ordered else _scatter
        run(windows, y.detach().contiguous(), kernel, density, signal)
    return density.to(y.dtype), signal.to(y.dtype)


def _scatter(windows: _Windows, y: Tensor, kernel: str, density: Tensor, signal: Tensor) -> None:
    from pyg_nas_np.ops import triton_kernels

    points, channels = y.shape
    width = _width(channels, triton_kernels.POINT_CHANNELS)
    _launch(
        triton_kernels.scatter,
        (math.ceil(points / triton_kernels.SCATTER_POINTS), max(1, math.ceil(channels / width))),
        windows.first,
        windows.offset,
        windows.step,
        windows.batch,
        y,
        density,
        signal,
        points,
        *windows.shape,
        *windows.window,
        channels,
        KERNEL=KERNELS.index(kernel),
        BLOCK_CHANNELS=width,
        BLOCK_POINTS=triton_kernels.SCATTER_POINTS,
        warps=triton_kernels.SCATTER_WARPS,
    )


def _scatter_sorted(windows: _Windows, y: Tensor, kernel: str, density: Tensor, signal: Tensor) -> None:
    from pyg_nas_np.ops import triton_kernels

    channels, sets = y.size(1), density.size(0)
    width = _width(channels, triton_kernels.SEGMENT_CHANNELS)
    cells = sets * math.prod(size + reach - 1 for size, reach in zip(windows.shape, windows.window, strict=True))
    key = windows.batch.to(torch.int32 if cells < 2**31 else torch.int64)
    outside = torch.zeros_like(key, dtype=torch.bool)
    for axis, (size, reach) in enumerate(zip(windows.shape, windows.window, strict=True)):
        place = windows.first[:, axis] + (reach - 1)
        outside |= (place < 0) | (place >= size + reach - 1)
        key = key * (size + reach - 1) + place
    key, order = torch.sort(torch.where(outside, cells, key), stable=True)
    starts = torch.searchsorted(key, torch.arange(cells + 1, dtype=key.dtype, device=key.device))
    rows = sets * windows.shape[0] * windows.shape[1]
    pieces = math.ceil(windows.shape[2] / triton_kernels.SEGMENT_CELLS)
    _launch(
        triton_kernels.scatter_sorted,
        (rows * pieces, max(1, math.ceil(channels / width))),
        order,
        starts,
        windows.first,
        windows.offset,
        windows.step,
        y,
        density,
        signal,
        *windows.shape,
        *windows.window,
        channels,
        KERNEL=KERNELS.index(kernel),
        BLOCK_CELLS=triton_kernels.SEGMENT_CELLS,
        BLOCK_CHANNELS=width,
        BLOCK_POINTS=triton_kernels.SEGMENT_POINTS,
        warps=triton_kernels.SEGMENT_WARPS,
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
    from pyg_nas_np.ops import triton_kernels

    points, channels = x.size(0), y.size(-1)
    density = torch.zeros(points, dtype=torch.float32, device=x.device)
    signal = torch.zeros(points, channels, dtype=torch.float32, device=x.device)
    if y.shape[:-1].numel():
        windows = _windows(x, lengthscale, ptr, origin, spacing, y.shape[1:-1], window)
        width = _width(channels, triton_kernels.POINT_CHANNELS)
        _launch(
            triton_kernels.gather,
            (math.ceil(points / triton_kernels.GATHER_POINTS), max(1, math.ceil(channels / width))),
            windows.first,
            windows.offset,
            windows.step,
            windows.batch,
            y.detach().contiguous(),
            density,
            signal,
            points,
            *windows.shape,
            *windows.window,
            channels,
            KERNEL=KERNELS.index(kernel),
            BLOCK_CHANNELS=width,
            BLOCK_POINTS=triton_kernels.GATHER_POINTS,
            warps=triton_kernels.GATHER_WARPS,
        )
    return density.to(y.dtype), signal.to(y.dtype)


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
    from pyg_nas_np.ops import triton_kernels

    (points, channels), dim = u.shape, x.size(1)
    parts = max(1, math.ceil(channels / triton_kernels.GRADIENT_CHANNELS))
    force = torch.zeros(parts, points, 3, dtype=torch.float32, device=x.device)
    square = torch.zeros_like(force)
    if v.shape[:-1].numel():
        windows = _windows(x, lengthscale, ptr, origin, spacing, v.shape[1:-1], window)
        _launch(
            triton_kernels.gradient,
            (math.ceil(points / triton_kernels.GRADIENT_POINTS), parts),
            windows.first,
            windows.offset,
            windows.step,
            windows.batch,
            u.detach().contiguous(),
            u.new_zeros(points) if u_density is None else u_density.detach().contiguous(),
            v.detach().contiguous(),
            v.new_zeros(v.shape[:-1]) if v_density is None else v_density.detach().contiguous(),
            force,
            square,
            points,
            *windows.shape,
            *windows.window,
            channels,
            KERNEL=KERNELS.index(kernel),
            BLOCK_CHANNELS=triton_kernels.GRADIENT_CHANNELS,
            BLOCK_POINTS=triton_kernels.GRADIENT_POINTS,
            warps=triton_kernels.GRADIENT_WARPS,
        )
    scale = lengthscale.detach().float()
    grad_x = _sum(force)[:, 3 - dim :] / scale
    return grad_x.to(x.dtype), (square[..., 3 - dim :].sum((0, 1)) / scale).to(lengthscale.dtype)
