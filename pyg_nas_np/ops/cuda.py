r"""The CUDA back end: launches the Triton kernels.

Under ``TRITON_INTERPRET=1`` the same code runs on CPU tensors, which is how it is tested without a GPU. float64 is left
to the reference. Nothing here waits for the device.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.ops import reference
from pyg_nas_np.ops.backends import BackendUnavailableError
from pyg_nas_np.ops.radial import KERNELS


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_available() -> bool:
    r"""Tells whether the Triton kernels can run on this machine's CUDA devices."""
    return _installed() and torch.cuda.is_available()


def require_device(device: torch.device) -> None:
    r"""Checks that the Triton kernels can run on a device.

    Raises:
        BackendUnavailableError: If Triton is not installed or the device is no CUDA device.
    """
    if not _installed():
        raise BackendUnavailableError(
            "The back end 'cuda' needs Triton, which comes with the CUDA builds of PyTorch; otherwise: "
            "pip install triton"
        )
    if device.type != "cuda" and not _interpreted():
        raise BackendUnavailableError(f"The back end 'cuda' was asked for, but the tensors are on '{device}'.")


def _launch(kernel: Any, grid: Callable[[dict[str, Any]], tuple[int, ...]], *args: Any, **constants: Any) -> None:
    if min(grid({"BLOCK_POINTS": 1})) == 0:
        return
    if _interpreted():
        # Tuning needs a device to time on; the interpreter takes the first configuration.
        first = kernel.configs[0].kwargs
        kernel.fn[grid({**constants, **first})](*args, **constants, **first)
    else:
        kernel[grid](*args, **constants)


def _width(size: int, most: int) -> int:
    r"""Returns the power of two that covers a width, at least the 16 that tensor cores need."""
    return min(max(16, 1 << max(0, size - 1).bit_length()), most)


class _Tiles(NamedTuple):
    r"""Tiles of a ragged batch. Their number is a bound that needs no value of ``ptr`` on the host."""

    owner: Tensor
    start: Tensor
    count: int


def _tiles(ptr: Tensor, rows: int, block: int) -> _Tiles:
    sets = ptr.numel() - 1
    count = rows // block + min(sets, rows)
    ends = (ptr.diff() + block - 1).div(block, rounding_mode="floor").cumsum(0)
    number = torch.arange(count, device=ptr.device)
    owner = torch.searchsorted(ends, number, right=True)
    within = owner.clamp_max(max(sets - 1, 0))
    begins = torch.cat([ends.new_zeros(1), ends])
    return _Tiles(owner, ptr[within] + (number - begins[within]) * block, count)


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
    density = torch.empty(x_dst.shape[:2], dtype=torch.float32, device=x_dst.device)
    signal = torch.empty(*x_dst.shape[:2], y_src.size(2), dtype=torch.float32, device=x_dst.device)
    _convolve(x_dst, x_src, y_src, lengthscale, ptr_dst, ptr_src, kernel, density, signal)
    if normalize:
        signal /= (density + eps).unsqueeze(-1)
    return density.to(y_src.dtype), signal.to(y_src.dtype)


def _convolve(
    x_own: Tensor,
    x_other: Tensor,
    y_other: Tensor,
    lengthscale: Tensor,
    ptr_own: Tensor,
    ptr_other: Tensor,
    kernel: str,
    density: Tensor | None,
    signal: Tensor,
) -> None:
    from pyg_nas_np.ops import triton_kernels

    (rows, heads, dim), channels = x_own.shape, y_other.size(2)
    tiles = _tiles(ptr_own, rows, triton_kernels.CONVOLVE_ROWS)
    width = _width(channels, triton_kernels.CONVOLVE_CHANNELS)
    _launch(
        triton_kernels.convolve,
        lambda _: (tiles.count, heads, max(1, math.ceil(channels / width))),
        x_own.detach().contiguous(),
        x_other.detach().contiguous(),
        y_other.detach().contiguous(),
        (1 / lengthscale.detach().float()).contiguous(),
        tiles.owner,
        tiles.start,
        ptr_own.contiguous(),
        ptr_other.contiguous(),
        signal if density is None else density,
        signal,
        ptr_own.numel() - 1,
        heads,
        dim,
        channels,
        KERNEL=KERNELS.index(kernel),
        DENSITY=density is not None,
        BLOCK_OWN=triton_kernels.CONVOLVE_ROWS,
        BLOCK_CHANNELS=width,
    )


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
    g, g_density = grad_signal.detach().float(), grad_density.detach().float()
    if normalize:
        g = g / (density.float() + eps).unsqueeze(-1)
        g_density = g_density - (g * signal.float()).sum(-1)
    g, g_density = g.contiguous(), g_density.contiguous()
    device = x_src.device
    grad_x_src, grad_y, grad_x_dst, grad_scale = (
        torch.zeros(value.shape if need else (0,), dtype=torch.float32, device=device)
        for value, need in zip((x_src, y_src, x_dst, lengthscale), needed, strict=True)
    )
    if need_y:
        _convolve(x_src, x_dst, g, lengthscale, ptr_src, ptr_dst, kernel, None, grad_y)
    if need_x:
        squares = _pull(
            x_dst, x_src, g, y_src, g_density, lengthscale, ptr_dst, ptr_src, kernel, True, grad_x_dst
        )
        grad_scale = squares / lengthscale.detach().float()
        _pull(x_src, x_dst, y_src, g, g_density, lengthscale, ptr_src, ptr_dst, kernel, False, grad_x_src)
    return (
        grad_x_src.to(x_src.dtype),
        grad_y.to(y_src.dtype),
        grad_x_dst.to(x_dst.dtype),
        grad_scale.to(lengthscale.dtype),
    )


def _pull(
    x_own: Tensor,
    x_other: Tensor,
    v_own: Tensor,
    v_other: Tensor,
    grad_density: Tensor,
    lengthscale: Tensor,
    ptr_own: Tensor,
    ptr_other: Tensor,
    kernel: str,
    own_is_target: bool,
    grad_own: Tensor,
) -> Tensor:
    from pyg_nas_np.ops import triton_kernels

    (rows, heads, dim), channels = x_own.shape, v_own.size(2)
    tiles = _tiles(ptr_own, rows, triton_kernels.PULL_ROWS)
    squares = torch.zeros(tiles.count, heads, dim, dtype=torch.float32, device=x_own.device)
    width = _width(dim, triton_kernels.PULL_DIM)
    _launch(
        triton_kernels.pull,
        lambda _: (tiles.count, heads, math.ceil(dim / width)),
        x_own.detach().contiguous(),
        x_other.detach().contiguous(),
        v_own.detach().contiguous(),
        v_other.detach().contiguous(),
        grad_density,
        (1 / lengthscale.detach().float()).contiguous(),
        tiles.owner,
        tiles.start,
        ptr_own.contiguous(),
        ptr_other.contiguous(),
        grad_own,
        squares,
        ptr_own.numel() - 1,
        heads,
        dim,
        channels,
        KERNEL=KERNELS.index(kernel),
        OWN_IS_TARGET=own_is_target,
        BLOCK_OWN=triton_kernels.PULL_ROWS,
        BLOCK_CHANNELS=_width(channels, triton_kernels.PULL_CHANNELS),
        BLOCK_DIM=width,
    )
    return squares.sum(0)


class _Windows(NamedTuple):
    r"""Windows of all points on grids of three dimensions, the leading ones of one cell where there are fewer."""

    first: Tensor  # [N, 3], int64
    offset: Tensor  # [N, 3], float32
    step: Tensor  # [3], float32
    batch: Tensor  # [N]
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
    missing = 3 - x.size(1)
    device = x.device
    batch = torch.repeat_interleave(torch.arange(ptr.numel() - 1, device=device), ptr.diff(), output_size=x.size(0))
    step = torch.tensor(list(spacing), dtype=torch.float64, device=device)
    width = torch.tensor(list(window), dtype=torch.float64, device=device)
    sizes = torch.tensor(list(shape), dtype=torch.float64, device=device)
    # In double: on a long grid float32 would lose the place inside the cell.
    position = (x.detach().double() - origin.double()[batch]) / step
    first = torch.ceil(position - width / 2)
    # A window off the grid, or a NaN, must not overflow the integer: put it just outside.
    reached = ((first > -width) & (first < sizes)).all(dim=-1, keepdim=True)
    first = torch.where(reached, first, -width)
    scale = step / lengthscale.detach().double()
    offset = torch.where(reached, (position - first) * scale, 0.0)
    pad = torch.nn.functional.pad
    a, b, c = [1] * missing + [int(size) for size in shape]
    d, e, f = [1] * missing + [int(w) for w in window]
    return _Windows(
        pad(first.long(), (missing, 0)).contiguous(),
        pad(offset.float(), (missing, 0)).contiguous(),
        pad(scale.float(), (missing, 0)).contiguous(),
        batch,
        (a, b, c),
        (d, e, f),
    )


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

    Sums are atomic, or sorted and in a fixed order under :func:`torch.use_deterministic_algorithms`.
    """
    if y.dtype == torch.float64:
        return reference.set_conv_to_grid(x, y, lengthscale, ptr, origin, spacing, shape, window, kernel)
    density = torch.zeros(ptr.numel() - 1, *shape, dtype=torch.float32, device=x.device)
    signal = torch.zeros(*density.shape, y.size(1), dtype=torch.float32, device=x.device)
    if density.numel() and x.size(0):
        windows = _windows(x, lengthscale, ptr, origin, spacing, shape, window)
        run = _scatter_sorted if torch.are_deterministic_algorithms_enabled() else _scatter
        run(windows, y.detach().contiguous(), kernel, density, signal)
    return density.to(y.dtype), signal.to(y.dtype)


def _scatter(windows: _Windows, y: Tensor, kernel: str, density: Tensor, signal: Tensor) -> None:
    from pyg_nas_np.ops import triton_kernels

    points, channels = y.shape
    width = _width(channels, triton_kernels.POINT_CHANNELS)
    _launch(
        triton_kernels.scatter,
        lambda meta: (math.ceil(points / meta["BLOCK_POINTS"]), max(1, math.ceil(channels / width))),
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
    )


def _scatter_sorted(windows: _Windows, y: Tensor, kernel: str, density: Tensor, signal: Tensor) -> None:
    from pyg_nas_np.ops import triton_kernels

    channels, sets = y.size(1), density.size(0)
    width = _width(channels, triton_kernels.SEGMENT_CHANNELS)
    key = windows.batch
    cells = sets
    outside = torch.zeros_like(key, dtype=torch.bool)
    for axis, (size, reach) in enumerate(zip(windows.shape, windows.window, strict=True)):
        extended = size + reach - 1
        place = windows.first[:, axis] + reach - 1
        outside |= (place < 0) | (place >= extended)
        key = key * extended + place
        cells *= extended
    key, order = torch.sort(torch.where(outside, cells, key), stable=True)
    starts = torch.searchsorted(key, torch.arange(cells + 1, device=key.device))
    rows = sets * windows.shape[0] * windows.shape[1]
    pieces = math.ceil(windows.shape[2] / triton_kernels.SEGMENT_CELLS)
    _launch(
        triton_kernels.scatter_sorted,
        lambda _: (rows * pieces, max(1, math.ceil(channels / width))),
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
            lambda meta: (math.ceil(points / meta["BLOCK_POINTS"]), max(1, math.ceil(channels / width))),
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
        return reference.grid_gradient(
            u, u_density, v, v_density, x, lengthscale, ptr, origin, spacing, window, kernel
        )
    from pyg_nas_np.ops import triton_kernels

    (points, channels), dim = u.shape, x.size(1)
    force = torch.zeros(points, 3, dtype=torch.float32, device=x.device)
    square = torch.zeros_like(force)
    if v.shape[:-1].numel():
        windows = _windows(x, lengthscale, ptr, origin, spacing, v.shape[1:-1], window)
        _launch(
            triton_kernels.gradient,
            lambda meta: (math.ceil(points / meta["BLOCK_POINTS"]),),
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
            BLOCK_CHANNELS=_width(channels, triton_kernels.POINT_CHANNELS),
        )
    scale = lengthscale.detach().float()
    return (force[:, 3 - dim :] / scale).to(x.dtype), (square[:, 3 - dim :].sum(0) / scale).to(lengthscale.dtype)
