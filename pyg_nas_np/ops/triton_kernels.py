r"""The Triton kernels of the CUDA back end.

Imported by :mod:`pyg_nas_np.ops.cuda` on first use only, because Triton is optional. Two kernels serve the ragged
operator in both directions, since a gradient is a convolution with the roles of sources and targets exchanged:

* :func:`convolve` sums weighted values: the forward pass, and the gradient of the values;
* :func:`pull` sums forces: the gradients of both sets of locations and of the length scale.

Neither uses atomics. Sums are formed in float32; products go through tensor cores in three TF32 passes, which keeps
about 22 bits of the factors.
"""

# Kernels are compiled by Triton, not called by Python: their arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from triton import Config

RBF, MATERN32, MATERN52 = 0, 1, 2

# Rows per program. Fixed, because the list of tiles of a ragged batch depends on them.
CONVOLVE_ROWS = 32
PULL_ROWS = 32

# Widest blocks of channels and of dimensions that keep every configuration below in registers.
CONVOLVE_CHANNELS = 64
PULL_CHANNELS = 16
PULL_DIM = 32
POINT_CHANNELS = 32
SEGMENT_CHANNELS = 64

# Cells per program of the sorted scatter.
SEGMENT_CELLS = 32

# Tuned per bucket of widths, not per number of points: a ragged batch must not tune anew at every step. Pipelining over
# stages is off where it only costs registers.
CONVOLVE_CONFIGS = [
    Config({"BLOCK_OTHER": 32}, num_warps=4, num_stages=1),
    Config({"BLOCK_OTHER": 64}, num_warps=8, num_stages=1),
]
PULL_CONFIGS = [
    Config({"BLOCK_OTHER": 16}, num_warps=8, num_stages=2),
    Config({"BLOCK_OTHER": 32}, num_warps=8, num_stages=1),
]
POINT_CONFIGS = [
    Config({"BLOCK_POINTS": 16}, num_warps=2, num_stages=1),
    Config({"BLOCK_POINTS": 32}, num_warps=8, num_stages=1),
]
SEGMENT_CONFIGS = [
    Config({"BLOCK_POINTS": 32}, num_warps=4, num_stages=1),
    Config({"BLOCK_POINTS": 64}, num_warps=4, num_stages=1),
]


@triton.jit
def radial(square, KERNEL: tl.constexpr):
    r"""Returns k and q of :mod:`pyg_nas_np.ops.radial` at squared scaled distances."""
    if KERNEL == 0:
        weight = tl.exp(-0.5 * square)
        factor = weight
    else:
        rate: tl.constexpr = 3.0 if KERNEL == 1 else 5.0
        u = tl.sqrt(rate * square)
        decay = tl.exp(-u)
        if KERNEL == 1:
            weight = (1.0 + u) * decay
            factor = 3.0 * decay
        else:
            weight = (1.0 + u + u * u * (1.0 / 3.0)) * decay
            factor = (5.0 / 3.0) * (1.0 + u) * decay
    return weight, factor


@triton.jit
def squares(own, other, inverse, own_ok, other_ok, DIM, BLOCK_OWN: tl.constexpr, BLOCK_OTHER: tl.constexpr):
    r"""Returns squared scaled distances [BLOCK_OWN, BLOCK_OTHER]; the pointers are those of the first coordinates."""
    total = tl.zeros((BLOCK_OWN, BLOCK_OTHER), dtype=tl.float32)
    for d in range(DIM):
        a = tl.load(own + d, mask=own_ok, other=0.0).to(tl.float32)
        b = tl.load(other + d, mask=other_ok, other=0.0).to(tl.float32)
        # Subtract before scaling: the difference of near points is exact, whatever their offset.
        delta = (a[:, None] - b[None, :]) * tl.load(inverse + d)
        total += delta * delta
    return total


@triton.autotune(CONVOLVE_CONFIGS, key=["BLOCK_CHANNELS", "DIM", "KERNEL"])
@triton.jit
def convolve(
    x_own,  # [M, H, D]
    x_other,  # [N, H, D]
    y_other,  # [N, H, C]
    inverse,  # [H, D]: 1 / lengthscale, float32
    tile_set,  # [tiles]: the set of a tile, num_sets beyond the last
    tile_start,  # [tiles]: its first row
    ptr_own,
    ptr_other,
    density,  # [M, H]
    signal,  # [M, H, C]
    num_sets,
    HEADS,
    DIM,
    CHANNELS,
    KERNEL: tl.constexpr,
    DENSITY: tl.constexpr,
    BLOCK_OWN: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OTHER: tl.constexpr,
):
    r"""For the rows of one tile, sums k over the other side of the set, times the values of the other side."""
    tile, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    owner = tl.load(tile_set + tile)
    if owner >= num_sets:
        return
    rows = tl.load(tile_start + tile) + tl.arange(0, BLOCK_OWN)
    row_ok = rows < tl.load(ptr_own + owner + 1)
    columns = part * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    column_ok = columns < CHANNELS
    inverse += head * DIM
    total = tl.zeros((BLOCK_OWN,), dtype=tl.float32)
    sums = tl.zeros((BLOCK_OWN, BLOCK_CHANNELS), dtype=tl.float32)
    begin = tl.load(ptr_other + owner)
    end = tl.load(ptr_other + owner + 1)
    for start in range(begin, end, BLOCK_OTHER):
        others = start + tl.arange(0, BLOCK_OTHER)
        other_ok = others < end
        square = squares(
            x_own + (rows * HEADS + head) * DIM,
            x_other + (others * HEADS + head) * DIM,
            inverse,
            row_ok,
            other_ok,
            DIM,
            BLOCK_OWN,
            BLOCK_OTHER,
        )
        weight, _ = radial(square, KERNEL)
        weight = tl.where(other_ok[None, :], weight, 0.0)
        values = tl.load(
            y_other + (others * HEADS + head)[:, None] * CHANNELS + columns[None, :],
            mask=other_ok[:, None] & column_ok[None, :],
            other=0.0,
        ).to(tl.float32)
        sums += tl.dot(weight, values, input_precision="tf32x3")
        if DENSITY:
            total += tl.sum(weight, axis=1)
    if DENSITY and part == 0:
        tl.store(density + rows * HEADS + head, total, mask=row_ok)
    out = signal + (rows * HEADS + head)[:, None] * CHANNELS + columns[None, :]
    tl.store(out, sums, mask=row_ok[:, None] & column_ok[None, :])


@triton.autotune(PULL_CONFIGS, key=["BLOCK_CHANNELS", "BLOCK_DIM", "DIM", "KERNEL"])
@triton.jit
def pull(
    x_own,  # [M, H, D]
    x_other,  # [N, H, D]
    v_own,  # [M, H, C]
    v_other,  # [N, H, C]
    grad_density,  # [M, H] or [N, H]: belongs to the targets, on whichever side they are
    inverse,  # [H, D]
    tile_set,
    tile_start,
    ptr_own,
    ptr_other,
    grad_own,  # [M, H, D]
    grad_scale,  # [tiles, H, D]: sum of force times squared scaled difference
    num_sets,
    HEADS,
    DIM,
    CHANNELS,
    KERNEL: tl.constexpr,
    OWN_IS_TARGET: tl.constexpr,
    BLOCK_OWN: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_OTHER: tl.constexpr,
):
    r"""For the rows of one tile, sums q(r) (v_own . v_other + grad_density) (z_other - z_own) / lengthscale."""
    tile, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    owner = tl.load(tile_set + tile)
    if owner >= num_sets:
        return
    first = tl.load(tile_start + tile)
    rows = first + tl.arange(0, BLOCK_OWN)
    row_ok = rows < tl.load(ptr_own + owner + 1)
    axes = part * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    axis_ok = axes < DIM
    inverse += head * DIM
    scale = tl.load(inverse + axes, mask=axis_ok, other=0.0)
    # Relative to the first row of the tile, so that the products below do not cancel.
    centre = tl.load(x_own + (first * HEADS + head) * DIM + axes, mask=axis_ok, other=0.0).to(tl.float32)
    z_own = tl.load(
        x_own + (rows * HEADS + head)[:, None] * DIM + axes[None, :],
        mask=row_ok[:, None] & axis_ok[None, :],
        other=0.0,
    ).to(tl.float32)
    z_own = tl.where(row_ok[:, None], (z_own - centre[None, :]) * scale[None, :], 0.0)
    forces = tl.zeros((BLOCK_OWN,), dtype=tl.float32)
    moments = tl.zeros((BLOCK_OWN, BLOCK_DIM), dtype=tl.float32)
    spread = tl.zeros((BLOCK_OWN, BLOCK_DIM), dtype=tl.float32)
    begin = tl.load(ptr_other + owner)
    end = tl.load(ptr_other + owner + 1)
    for start in range(begin, end, BLOCK_OTHER):
        others = start + tl.arange(0, BLOCK_OTHER)
        other_ok = others < end
        square = squares(
            x_own + (rows * HEADS + head) * DIM,
            x_other + (others * HEADS + head) * DIM,
            inverse,
            row_ok,
            other_ok,
            DIM,
            BLOCK_OWN,
            BLOCK_OTHER,
        )
        _, factor = radial(square, KERNEL)
        product = tl.zeros((BLOCK_OWN, BLOCK_OTHER), dtype=tl.float32)
        for channel in range(0, CHANNELS, BLOCK_CHANNELS):
            columns = channel + tl.arange(0, BLOCK_CHANNELS)
            column_ok = columns < CHANNELS
            a = tl.load(
                v_own + (rows * HEADS + head)[:, None] * CHANNELS + columns[None, :],
                mask=row_ok[:, None] & column_ok[None, :],
                other=0.0,
            ).to(tl.float32)
            b = tl.load(
                v_other + (others * HEADS + head)[None, :] * CHANNELS + columns[:, None],
                mask=other_ok[None, :] & column_ok[:, None],
                other=0.0,
            ).to(tl.float32)
            product += tl.dot(a, b, input_precision="tf32x3")
        if OWN_IS_TARGET:
            product += tl.load(grad_density + rows * HEADS + head, mask=row_ok, other=0.0).to(tl.float32)[:, None]
        else:
            product += tl.load(grad_density + others * HEADS + head, mask=other_ok, other=0.0).to(tl.float32)[None, :]
        force = tl.where(row_ok[:, None] & other_ok[None, :], factor * product, 0.0)
        z = tl.load(
            x_other + (others * HEADS + head)[:, None] * DIM + axes[None, :],
            mask=other_ok[:, None] & axis_ok[None, :],
            other=0.0,
        ).to(tl.float32)
        z = tl.where(other_ok[:, None], (z - centre[None, :]) * scale[None, :], 0.0)
        forces += tl.sum(force, axis=1)
        moments += tl.dot(force, z, input_precision="tf32x3")
        if OWN_IS_TARGET:
            spread += tl.dot(force, z * z, input_precision="tf32x3")
    out = grad_own + (rows * HEADS + head)[:, None] * DIM + axes[None, :]
    gradient = (moments - z_own * forces[:, None]) * scale[None, :]
    tl.store(out, gradient, mask=row_ok[:, None] & axis_ok[None, :])
    if OWN_IS_TARGET:
        square_sum = tl.sum(z_own * (z_own * forces[:, None] - 2.0 * moments) + spread, axis=0)
        tl.store(grad_scale + (tile * HEADS + head) * DIM + axes, square_sum, mask=axis_ok)


@triton.jit
def place(n, first, offset, step, number, SHAPE0, SHAPE1, SHAPE2, WINDOW1, WINDOW2, batch, ok):
    r"""Returns cell, scaled differences and validity of the given place in the windows of points :obj:`n`."""
    k0, k1, k2 = number // (WINDOW1 * WINDOW2), (number // WINDOW2) % WINDOW1, number % WINDOW2
    g0 = tl.load(first + 3 * n, mask=ok, other=-1) + k0
    g1 = tl.load(first + 3 * n + 1, mask=ok, other=-1) + k1
    g2 = tl.load(first + 3 * n + 2, mask=ok, other=-1) + k2
    inside = ok & (g0 >= 0) & (g0 < SHAPE0) & (g1 >= 0) & (g1 < SHAPE1) & (g2 >= 0) & (g2 < SHAPE2)
    d0 = tl.load(offset + 3 * n, mask=ok, other=0.0) - k0 * tl.load(step)
    d1 = tl.load(offset + 3 * n + 1, mask=ok, other=0.0) - k1 * tl.load(step + 1)
    d2 = tl.load(offset + 3 * n + 2, mask=ok, other=0.0) - k2 * tl.load(step + 2)
    cell = ((tl.load(batch + n, mask=ok, other=0) * SHAPE0 + g0) * SHAPE1 + g1) * SHAPE2 + g2
    return tl.where(inside, cell, 0), d0, d1, d2, inside


@triton.autotune(POINT_CONFIGS, key=["BLOCK_CHANNELS", "KERNEL"], reset_to_zero=["density", "signal"])
@triton.jit
def scatter(
    first,  # [N, 3]: the first cell of a window, int64
    offset,  # [N, 3]: scaled difference of point and first cell
    step,  # [3]: scaled distance of neighbouring cells
    batch,  # [N]
    y,  # [N, C]
    density,  # [cells], zeroed
    signal,  # [cells, C], zeroed
    num_points,
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    CHANNELS,
    KERNEL: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    r"""Adds the points of a block to the cells of their windows, atomically."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_POINTS + tl.arange(0, BLOCK_POINTS)
    columns = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    ok, column_ok = n < num_points, columns < CHANNELS
    values = tl.load(y + n[:, None] * CHANNELS + columns[None, :], mask=ok[:, None] & column_ok[None, :], other=0.0)
    values = values.to(tl.float32)
    for number in range(WINDOW0 * WINDOW1 * WINDOW2):
        cell, d0, d1, d2, inside = place(
            n, first, offset, step, number, SHAPE0, SHAPE1, SHAPE2, WINDOW1, WINDOW2, batch, ok
        )
        weight, _ = radial(d0 * d0 + d1 * d1 + d2 * d2, KERNEL)
        if tl.program_id(1) == 0:
            tl.atomic_add(density + cell, weight, mask=inside, sem="relaxed")
        tl.atomic_add(
            signal + cell[:, None] * CHANNELS + columns[None, :],
            weight[:, None] * values,
            mask=inside[:, None] & column_ok[None, :],
            sem="relaxed",
        )


@triton.autotune(SEGMENT_CONFIGS, key=["BLOCK_CHANNELS", "KERNEL"])
@triton.jit
def scatter_sorted(
    order,  # [N]: points sorted by set and first cell
    starts,  # [extended cells + 1]: where the points of a first cell begin in that order
    first,
    offset,
    step,
    y,
    density,
    signal,
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    CHANNELS,
    KERNEL: tl.constexpr,
    BLOCK_CELLS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    r"""Sums the points that reach the cells of one piece of a row of the grid, in a fixed order."""
    pieces = tl.cdiv(SHAPE2, BLOCK_CELLS)
    row = tl.program_id(0).to(tl.int64) // pieces
    low = (tl.program_id(0) % pieces) * BLOCK_CELLS
    g2 = low + tl.arange(0, BLOCK_CELLS)
    cell_ok = g2 < SHAPE2
    g1 = row % SHAPE1
    g0 = (row // SHAPE1) % SHAPE0
    owner = row // (SHAPE0 * SHAPE1)
    columns = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    column_ok = columns < CHANNELS
    # First cells start at 1 - window: coordinates of the extended grid are shifted by window - 1.
    extended1, extended2 = SHAPE1 + WINDOW1 - 1, SHAPE2 + WINDOW2 - 1
    total = tl.zeros((BLOCK_CELLS,), dtype=tl.float32)
    sums = tl.zeros((BLOCK_CELLS, BLOCK_CHANNELS), dtype=tl.float32)
    for outer in range(WINDOW0 * WINDOW1):
        k0, k1 = outer // WINDOW1, outer % WINDOW1
        line = (owner * (SHAPE0 + WINDOW0 - 1) + g0 - k0 + WINDOW0 - 1) * extended1 + g1 - k1 + WINDOW1 - 1
        begin = tl.load(starts + line * extended2 + low)
        stop = tl.minimum(low + BLOCK_CELLS, SHAPE2) + WINDOW2 - 1
        end = tl.load(starts + line * extended2 + stop)
        for start in range(begin, end, BLOCK_POINTS):
            position = start + tl.arange(0, BLOCK_POINTS)
            ok = position < end
            n = tl.load(order + position, mask=ok, other=0)
            k2 = g2[:, None] - tl.load(first + 3 * n + 2, mask=ok, other=0)[None, :]
            d0 = tl.load(offset + 3 * n, mask=ok, other=0.0) - k0 * tl.load(step)
            d1 = tl.load(offset + 3 * n + 1, mask=ok, other=0.0) - k1 * tl.load(step + 1)
            d2 = tl.load(offset + 3 * n + 2, mask=ok, other=0.0)[None, :] - k2 * tl.load(step + 2)
            weight, _ = radial((d0 * d0 + d1 * d1)[None, :] + d2 * d2, KERNEL)
            weight = tl.where(ok[None, :] & (k2 >= 0) & (k2 < WINDOW2), weight, 0.0)
            values = tl.load(
                y + n[:, None] * CHANNELS + columns[None, :], mask=ok[:, None] & column_ok[None, :], other=0.0
            ).to(tl.float32)
            total += tl.sum(weight, axis=1)
            sums += tl.dot(weight, values, input_precision="tf32x3")
    cell = row * SHAPE2 + g2
    if tl.program_id(1) == 0:
        tl.store(density + cell, total, mask=cell_ok)
    out = signal + cell[:, None] * CHANNELS + columns[None, :]
    tl.store(out, sums, mask=cell_ok[:, None] & column_ok[None, :])


@triton.autotune(POINT_CONFIGS, key=["BLOCK_CHANNELS", "KERNEL"])
@triton.jit
def gather(
    first,
    offset,
    step,
    batch,
    y,  # [cells, C]
    density,  # [N]
    signal,  # [N, C]
    num_points,
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    CHANNELS,
    KERNEL: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    r"""Sums the cells in the windows of the points of a block."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_POINTS + tl.arange(0, BLOCK_POINTS)
    columns = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    ok, column_ok = n < num_points, columns < CHANNELS
    total = tl.zeros((BLOCK_POINTS,), dtype=tl.float32)
    sums = tl.zeros((BLOCK_POINTS, BLOCK_CHANNELS), dtype=tl.float32)
    for number in range(WINDOW0 * WINDOW1 * WINDOW2):
        cell, d0, d1, d2, inside = place(
            n, first, offset, step, number, SHAPE0, SHAPE1, SHAPE2, WINDOW1, WINDOW2, batch, ok
        )
        weight, _ = radial(d0 * d0 + d1 * d1 + d2 * d2, KERNEL)
        weight = tl.where(inside, weight, 0.0)
        values = tl.load(
            y + cell[:, None] * CHANNELS + columns[None, :], mask=inside[:, None] & column_ok[None, :], other=0.0
        )
        total += weight
        sums += weight[:, None] * values.to(tl.float32)
    if tl.program_id(1) == 0:
        tl.store(density + n, total, mask=ok)
    tl.store(signal + n[:, None] * CHANNELS + columns[None, :], sums, mask=ok[:, None] & column_ok[None, :])


@triton.autotune(POINT_CONFIGS, key=["BLOCK_CHANNELS", "KERNEL"])
@triton.jit
def gradient(
    first,
    offset,
    step,
    batch,
    u,  # [N, C]
    u_density,  # [N]
    v,  # [cells, C]
    v_density,  # [cells]
    force,  # [N, 3]: minus the sum of q (u . v + densities) times the scaled difference
    square,  # [N, 3]: the same with the squared scaled difference, without the sign
    num_points,
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    CHANNELS,
    KERNEL: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    r"""Sums the forces of the cells on the points of a block."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_POINTS + tl.arange(0, BLOCK_POINTS)
    ok = n < num_points
    own = tl.load(u_density + n, mask=ok, other=0.0).to(tl.float32)
    f0 = tl.zeros((BLOCK_POINTS,), dtype=tl.float32)
    f1, f2 = f0, f0
    s0, s1, s2 = f0, f0, f0
    for number in range(WINDOW0 * WINDOW1 * WINDOW2):
        cell, d0, d1, d2, inside = place(
            n, first, offset, step, number, SHAPE0, SHAPE1, SHAPE2, WINDOW1, WINDOW2, batch, ok
        )
        _, factor = radial(d0 * d0 + d1 * d1 + d2 * d2, KERNEL)
        product = own + tl.load(v_density + cell, mask=inside, other=0.0).to(tl.float32)
        for channel in range(0, CHANNELS, BLOCK_CHANNELS):
            columns = channel + tl.arange(0, BLOCK_CHANNELS)
            column_ok = columns < CHANNELS
            mask = inside[:, None] & column_ok[None, :]
            a = tl.load(u + n[:, None] * CHANNELS + columns[None, :], mask=mask, other=0.0).to(tl.float32)
            b = tl.load(v + cell[:, None] * CHANNELS + columns[None, :], mask=mask, other=0.0).to(tl.float32)
            product += tl.sum(a * b, axis=1)
        strength = tl.where(inside, factor * product, 0.0)
        f0 -= strength * d0
        f1 -= strength * d1
        f2 -= strength * d2
        s0 += strength * d0 * d0
        s1 += strength * d1 * d1
        s2 += strength * d2 * d2
    tl.store(force + 3 * n, f0, mask=ok)
    tl.store(force + 3 * n + 1, f1, mask=ok)
    tl.store(force + 3 * n + 2, f2, mask=ok)
    tl.store(square + 3 * n, s0, mask=ok)
    tl.store(square + 3 * n + 1, s1, mask=ok)
    tl.store(square + 3 * n + 2, s2, mask=ok)


def configurations() -> dict[str, tuple[Any, list[Config], list[dict[str, int | bool]]]]:
    r"""Returns every kernel, the configurations among which it is tuned, and its narrowest and widest blocks."""
    convolve_widths = [
        {"BLOCK_OWN": CONVOLVE_ROWS, "BLOCK_CHANNELS": c, "DENSITY": d}
        for c in (16, CONVOLVE_CHANNELS)
        for d in (True, False)
    ]
    pull_widths = [
        {"BLOCK_OWN": PULL_ROWS, "BLOCK_CHANNELS": c, "BLOCK_DIM": d, "OWN_IS_TARGET": t}
        for c, d in ((16, 16), (PULL_CHANNELS, PULL_DIM))
        for t in (True, False)
    ]
    point_widths: list[dict[str, int | bool]] = [{"BLOCK_CHANNELS": c} for c in (16, POINT_CHANNELS)]
    return {
        "convolve": (convolve, CONVOLVE_CONFIGS, convolve_widths),
        "pull": (pull, PULL_CONFIGS, pull_widths),
        "scatter": (scatter, POINT_CONFIGS, point_widths),
        "scatter_sorted": (
            scatter_sorted,
            SEGMENT_CONFIGS,
            [{"BLOCK_CHANNELS": c, "BLOCK_CELLS": SEGMENT_CELLS} for c in (16, SEGMENT_CHANNELS)],
        ),
        "gather": (gather, POINT_CONFIGS, point_widths),
        "gradient": (gradient, POINT_CONFIGS, point_widths),
    }
