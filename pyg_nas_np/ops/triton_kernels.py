r"""The Triton kernels of the CUDA back end.

Imported by :mod:`pyg_nas_np.ops.cuda` on first use, because Triton is optional. Two kernels implement the ragged
operator in both directions, since a gradient is a convolution with the roles of sources and targets exchanged:

* :func:`convolve` sums weighted values: the forward pass, and the gradient of the values if no other is needed;
* :func:`pull` sums forces: the gradients of locations, of the length scale and optionally of the values.

A thread keeps whole rows of its own side in registers, coordinates and sums, and loops over the rows of the other side.
All threads read the same rows, and everything else is multiply-adds between registers. Tensor cores would need their
operands in shared memory, and three passes for the accuracy of float32. Neither kernel uses atomics: if there are too
few rows to fill the device, several programs process a part of the other side each, and their sums are added
afterwards.
"""

# Kernels are compiled by Triton, not called by Python: their arguments have no Python types.
# Their loops over tuples of registers are unrolled, and Triton knows no star in a tuple.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"
# ruff: noqa: RUF005

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl

RBF, MATERN32, MATERN52 = 0, 1, 2

# Programs per multiprocessor, their multiple if sets may differ in size, and the smallest number of rows of the other
# side per program in an average set.
PROGRAMS = 16
RAGGED_PROGRAMS = 64
LEAST_SHARE = 128

# Channels that a program of the ragged kernels holds in registers.
BLOCK_CHANNELS = 16

# Blocks of the kernels on grids: channels, points and, where sorted, cells of a program.
POINT_CHANNELS = 32
GRADIENT_CHANNELS = 16
SEGMENT_CHANNELS = 64
LOCATE_POINTS = 256
SCATTER_POINTS = 32
GATHER_POINTS = 8
GRADIENT_POINTS = 16
SEGMENT_POINTS = 64
SEGMENT_CELLS = 32
LOCATE_WARPS, SCATTER_WARPS, GATHER_WARPS, GRADIENT_WARPS, SEGMENT_WARPS = 4, 4, 1, 2, 4

# The time of atomic additions is proportional to the cells in the window; from this number on, sorting first is faster.
SORT_PLACES = 32


class Plan(NamedTuple):
    r"""Memory layout of the rows of points, and the part of them that a program processes."""

    dim: int
    pieces: int  # blocks of dimensions
    block_dim: int
    parts: int  # blocks of channels
    block_channels: int
    rows: int
    warps: int

    @property
    def start(self) -> int:
        r"""Position of the first value."""
        return _even(self.pieces * self.block_dim)

    @property
    def stop(self) -> int:
        r"""Position after the last value."""
        return self.start + self.parts * self.block_channels


def _even(number: int) -> int:
    return number + number % 2


def _blocks(size: int, most: int) -> tuple[int, int]:
    r"""Returns the number and the even width of blocks, as equal as possible, that cover a size."""
    number = max(1, -(-size // most))
    return number, _even(-(-size // number))


def convolve_plan(dim: int, channels: int) -> Plan:
    r"""Returns the plan of :func:`convolve`: as many rows per thread as registers hold."""
    per_thread = 4 if dim <= 16 else 2 if dim <= 32 else 1
    return Plan(dim, 1, dim, *_blocks(channels, BLOCK_CHANNELS), 64 * per_thread, 2)


def pull_plan(dim: int, channels: int) -> Plan:
    r"""Returns the plan of :func:`pull`: as many rows per thread as registers hold."""
    per_thread = 2 if dim <= 16 else 1
    pieces = (1, dim) if dim <= 32 else _blocks(dim, 16)
    return Plan(dim, *pieces, *_blocks(channels, BLOCK_CHANNELS), 128 * per_thread, 4)


@triton.jit
def radial(square, KERNEL: tl.constexpr):
    r"""Returns k and q of :mod:`pyg_nas_np.ops.radial` at squared scaled distances."""
    if KERNEL == 0:
        weight = tl.exp2(-0.7213475204444817 * square)  # exp(-square / 2)
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
def tile_of(ptr, tile, num_sets, BLOCK: tl.constexpr):
    r"""Returns the set of a tile, its first row and the end of the set; the tile is void if the end comes first.

    The tiles of set s begin at number ``ptr[s] // BLOCK + s``: enough for all its rows, and known without a sum over
    the sets before it.
    """
    low = tile * 0
    high = num_sets
    while high - low > 1:
        middle = (low + high) // 2
        before = tl.load(ptr + middle) // BLOCK + middle <= tile
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    begin = tl.load(ptr + low)
    return low, begin + (tile - (begin // BLOCK + low)) * BLOCK, tl.load(ptr + low + 1)


@triton.jit
def share_of(ptr, owner, split, num_splits):
    r"""Returns the range of a set's rows that one of several programs processes."""
    begin = tl.load(ptr + owner)
    size = tl.load(ptr + owner + 1) - begin
    return begin + size * split // num_splits, begin + size * (split + 1) // num_splits


@triton.jit
def zeros(NUMBER: tl.constexpr, BLOCK: tl.constexpr):
    r"""Returns a tuple of zeros, a register of each thread for each of its rows."""
    columns = ()
    for _ in tl.static_range(NUMBER):
        columns = columns + (tl.zeros((BLOCK,), dtype=tl.float32),)
    return columns


@triton.jit
def columns_of(row, NUMBER: tl.constexpr, ok):
    r"""Returns a number of columns of the rows that start at the given positions."""
    columns = ()
    for k in tl.static_range(NUMBER):
        columns = columns + (tl.load(row + k, mask=ok, other=0.0),)
    return columns


@triton.jit
def numbers_of(row, NUMBER: tl.constexpr):
    r"""Returns an even number of entries of one row, loaded in pairs as 64-bit integers."""
    numbers = ()
    for k in tl.static_range(NUMBER // 2):
        bits = tl.load(row + k)
        numbers = numbers + (bits.to(tl.int32).to(tl.float32, bitcast=True),)
        numbers = numbers + ((bits >> 32).to(tl.int32).to(tl.float32, bitcast=True),)
    return numbers


@triton.jit
def add(sums, factor, numbers, NUMBER: tl.constexpr):
    r"""Returns sums + factor * numbers."""
    more = ()
    for k in tl.static_range(NUMBER):
        more = more + (sums[k] + factor * numbers[k],)
    return more


@triton.jit
def squared(numbers, NUMBER: tl.constexpr):
    r"""Returns the squares of numbers."""
    squares = ()
    for k in tl.static_range(NUMBER):
        squares = squares + (numbers[k] * numbers[k],)
    return squares


@triton.jit
def distance(at, other, scale, DIM: tl.constexpr, ISOTROPIC: tl.constexpr):
    r"""Returns the squared scaled distance and the differences, which are scaled unless isotropic."""
    # Subtract before scaling: the difference of near points is exact, whatever their offset.
    deltas = ()
    for d in tl.static_range(DIM):
        delta = at[d] - other[d]
        if not ISOTROPIC:
            delta *= scale[d]
        deltas = deltas + (delta,)
    square = deltas[0] * deltas[0]
    for d in tl.static_range(1, DIM):
        square += deltas[d] * deltas[d]
    if ISOTROPIC:
        square *= scale[0] * scale[0]
    return square, deltas


@triton.jit
def convolve(
    own,  # [M, H, DIM]: coordinates
    other,  # [N, H, WIDTH]: coordinates, values, both at an even place; pairs of floats as integers
    inverse,  # [H, DIM]: 1 / lengthscale
    ptr_own,
    ptr_other,
    density,  # [splits, M, H]
    signal,  # [splits, M, H, CHANNELS]
    num_sets,
    num_rows,
    num_splits,
    HEADS,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    ISOTROPIC: tl.constexpr,
    DENSITY: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    r"""For the rows of one tile, sums k times the values over a part of the other side."""
    tile, split = tl.program_id(0) // num_splits, tl.program_id(0) % num_splits
    head, part = tl.program_id(1), tl.program_id(2)
    owner, first, last = tile_of(ptr_own, tile, num_sets, BLOCK_ROWS)
    if first >= last:
        return
    rows = first + tl.arange(0, BLOCK_ROWS)
    ok = rows < last
    START: tl.constexpr = DIM + DIM % 2
    low = part * BLOCK_CHANNELS
    at = columns_of(own + (rows * HEADS + head) * DIM, DIM, ok)
    scale = columns_of(inverse + head * DIM, DIM, True)
    total = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    sums = zeros(BLOCK_CHANNELS, BLOCK_ROWS)
    begin, end = share_of(ptr_other, owner, split, num_splits)
    for j in range(begin, end):
        row = other + (j * HEADS + head) * (WIDTH // 2)
        square, _ = distance(at, numbers_of(row, START), scale, DIM, ISOTROPIC)
        weight, _ = radial(square, KERNEL)
        total += weight
        sums = add(sums, weight, numbers_of(row + (START + low) // 2, BLOCK_CHANNELS), BLOCK_CHANNELS)
    place = (split.to(tl.int64) * num_rows + rows) * HEADS + head
    if DENSITY and part == 0:
        tl.store(density + place, total, mask=ok)
    for c in tl.static_range(BLOCK_CHANNELS):
        if low + c < CHANNELS:
            tl.store(signal + place * CHANNELS + low + c, sums[c], mask=ok)


@triton.jit
def pull(
    own,  # [M, H, OWN_WIDTH]: coordinates, values, for targets twice the gradient of the density; each at an even place
    other,  # [N, H, OTHER_WIDTH]: the same of the other side; pairs of floats as integers
    inverse,
    ptr_own,
    ptr_other,
    grad_x,  # [parts, splits, M, H, DIM]
    grad_v,  # [splits, M, H, CHANNELS]
    grad_scale,  # [parts, tiles * splits, H, DIM], zeroed; isotropic, all of it is in the first dimension
    num_sets,
    num_rows,
    num_splits,
    HEADS,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    OWN_WIDTH: tl.constexpr,
    OTHER_WIDTH: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    ISOTROPIC: tl.constexpr,
    OWN_IS_TARGET: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    r"""For the rows of one tile, sums q(r) (v_own . v_other + grad_density) (z_other - z_own) / lengthscale.

    With ``VALUES`` it also sums k(r) v_other. Each program processes a part of the other side, one part of the
    channels, in which the force is linear, and the force along one piece of the dimensions.
    """
    tile, split = tl.program_id(0) // num_splits, tl.program_id(0) % num_splits
    head = tl.program_id(1)
    PIECES: tl.constexpr = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    PARTS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS if CHANNELS > 0 else 1
    START: tl.constexpr = (PIECES * BLOCK_DIM + 1) // 2 * 2
    DENSITY: tl.constexpr = START + PARTS * BLOCK_CHANNELS
    piece, part = tl.program_id(2) % PIECES, tl.program_id(2) // PIECES
    owner, first, last = tile_of(ptr_own, tile, num_sets, BLOCK_ROWS)
    if first >= last:
        return
    rows = first + tl.arange(0, BLOCK_ROWS)
    ok = rows < last
    axis = piece * BLOCK_DIM
    channel = part * BLOCK_CHANNELS
    own += (rows * HEADS + head) * OWN_WIDTH
    inverse += head * DIM
    at = columns_of(own, DIM, ok)
    scale = columns_of(inverse, DIM, True)
    near = at
    rate = scale
    if PIECES > 1:
        near = columns_of(own + axis, BLOCK_DIM, ok)
        rate = ()
        for d in tl.static_range(BLOCK_DIM):
            rate = rate + (tl.load(inverse + tl.minimum(axis + d, DIM - 1)),)
    mine = columns_of(own + START + channel, BLOCK_CHANNELS, ok)
    moments = zeros(BLOCK_DIM, BLOCK_ROWS)
    spread = zeros(1 if ISOTROPIC else BLOCK_DIM, BLOCK_ROWS)
    sums = zeros(BLOCK_CHANNELS, BLOCK_ROWS)
    # The gradient of the density is added in one part of the channels only.
    once = tl.where(part == 0, 1.0, 0.0)
    constant = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    if OWN_IS_TARGET:
        constant = once * tl.load(own + DENSITY, mask=ok, other=0.0)
    begin, end = share_of(ptr_other, owner, split, num_splits)
    for j in tl.range(begin, end, loop_unroll_factor=2):
        row = other + (j * HEADS + head) * (OTHER_WIDTH // 2)
        square, deltas = distance(at, numbers_of(row, DIM + DIM % 2), scale, DIM, ISOTROPIC)
        weight, factor = radial(square, KERNEL)
        product = constant
        if not OWN_IS_TARGET:
            product += once * numbers_of(row + DENSITY // 2, 2)[0]
        values = numbers_of(row + (START + channel) // 2, BLOCK_CHANNELS)
        for c in tl.static_range(BLOCK_CHANNELS):
            product += mine[c] * values[c]
        if VALUES:
            sums = add(sums, weight, values, BLOCK_CHANNELS)
        force = factor * product
        if PIECES > 1:
            _, deltas = distance(near, numbers_of(row + axis // 2, BLOCK_DIM), rate, BLOCK_DIM, ISOTROPIC)
        moments = add(moments, force, deltas, BLOCK_DIM)
        if OWN_IS_TARGET and ISOTROPIC:
            spread = add(spread, force, (square,), 1)
        elif OWN_IS_TARGET:
            spread = add(spread, force, squared(deltas, BLOCK_DIM), BLOCK_DIM)
    place = ((part * num_splits + split).to(tl.int64) * num_rows + rows) * HEADS + head
    slot = (part * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * HEADS + head
    for d in tl.static_range(BLOCK_DIM):
        if axis + d < DIM:
            gradient = -moments[d] * rate[d]
            if ISOTROPIC:
                gradient *= rate[d]
            tl.store(grad_x + place * DIM + axis + d, gradient, mask=ok)
            if OWN_IS_TARGET and (d == 0 or not ISOTROPIC):
                total = rate[d] * tl.sum(tl.where(ok, spread[d], 0.0), axis=0)
                # The square of an isotropic kernel is over all dimensions already.
                if not ISOTROPIC or piece == 0:
                    tl.store(grad_scale + slot * DIM + axis + d, total)
    if VALUES and piece == 0:
        place = (split.to(tl.int64) * num_rows + rows) * HEADS + head
        for c in tl.static_range(BLOCK_CHANNELS):
            if channel + c < CHANNELS:
                tl.store(grad_v + place * CHANNELS + channel + c, sums[c], mask=ok)


@triton.jit
def locate(
    x,  # [N, DIM]
    origin,  # [B, DIM]
    spacing,  # [DIM], float64
    lengthscale,  # [DIM]
    ptr,
    first,  # [N, 3]: the first cell of a window, int32
    offset,  # [N, 3]: scaled difference of point and first cell
    step,  # [3]: scaled distance of neighbouring cells
    batch,  # [N]
    num_points,
    num_sets,
    search,  # bisections that find a set
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    DIM: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    r"""Finds the windows of points on grids of three dimensions; missing leading dimensions have one cell."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_POINTS + tl.arange(0, BLOCK_POINTS)
    ok = n < num_points
    owner = tl.zeros((BLOCK_POINTS,), dtype=tl.int32)
    beyond = owner + num_sets
    for _ in range(search):
        middle = (owner + beyond) // 2
        before = tl.load(ptr + middle, mask=ok, other=0) <= n
        owner = tl.where(before, middle, owner)
        beyond = tl.where(before, beyond, middle)
    tl.store(batch + n, owner, mask=ok)
    reached = ok
    positions = ()
    lowest = ()
    for axis in tl.static_range(DIM):
        size = SHAPE2 if axis == DIM - 1 else SHAPE1 if axis == DIM - 2 else SHAPE0
        width = WINDOW2 if axis == DIM - 1 else WINDOW1 if axis == DIM - 2 else WINDOW0
        # In double precision, because float32 would lose the position inside the cell on a long grid.
        point = tl.load(x + n * DIM + axis, mask=ok, other=0.0).to(tl.float64)
        start = tl.load(origin + owner.to(tl.int64) * DIM + axis, mask=ok, other=0.0).to(tl.float64)
        position = (point - start) / tl.load(spacing + axis)
        low = tl.ceil(position - width * 0.5)
        # A window off the grid, or a NaN, must not overflow the integer; it is moved just outside.
        reached = reached & (low > -width) & (low < size)
        positions = positions + (position,)
        lowest = lowest + (low,)
    for axis in tl.static_range(3 - DIM):
        tl.store(first + 3 * n + axis, 0 * owner, mask=ok)
        tl.store(offset + 3 * n + axis, 0.0 * owner, mask=ok)
    for axis in tl.static_range(DIM):
        width = WINDOW2 if axis == DIM - 1 else WINDOW1 if axis == DIM - 2 else WINDOW0
        scale = tl.load(spacing + axis) / tl.load(lengthscale + axis).to(tl.float64)
        low = tl.where(reached, lowest[axis], -width)
        place = 3 * n + 3 - DIM + axis
        tl.store(first + place, low.to(tl.int32), mask=ok)
        tl.store(offset + place, tl.where(reached, (positions[axis] - low) * scale, 0.0).to(tl.float32), mask=ok)
        if tl.program_id(0) == 0:
            tl.store(step + 3 - DIM + axis, scale.to(tl.float32))


@triton.jit
def window(n, first, offset, batch, ok):
    r"""Returns the first cells and the scaled differences of points, and their sets."""
    g0 = tl.load(first + 3 * n, mask=ok, other=0)
    g1 = tl.load(first + 3 * n + 1, mask=ok, other=0)
    g2 = tl.load(first + 3 * n + 2, mask=ok, other=0)
    d0 = tl.load(offset + 3 * n, mask=ok, other=0.0)
    d1 = tl.load(offset + 3 * n + 1, mask=ok, other=0.0)
    d2 = tl.load(offset + 3 * n + 2, mask=ok, other=0.0)
    return g0, g1, g2, d0, d1, d2, tl.load(batch + n, mask=ok, other=0).to(tl.int64)


@triton.jit
def scatter(
    first,  # [N, 3]: the first cell of a window, int32
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
    g0, g1, g2, d0, d1, d2, b = window(n, first, offset, batch, ok)
    s0, s1, s2 = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    b *= SHAPE0
    for k0 in range(WINDOW0):
        e0 = d0 - k0 * s0
        ok0 = ok & (g0 + k0 >= 0) & (g0 + k0 < SHAPE0)
        for k1 in range(WINDOW1):
            e1 = d1 - k1 * s1
            ok1 = ok0 & (g1 + k1 >= 0) & (g1 + k1 < SHAPE1)
            base = ((b + (g0 + k0)) * SHAPE1 + (g1 + k1)) * SHAPE2
            near = e0 * e0 + e1 * e1
            for k2 in range(WINDOW2):
                e2 = d2 - k2 * s2
                inside = ok1 & (g2 + k2 >= 0) & (g2 + k2 < SHAPE2)
                cell = base + (g2 + k2)
                weight, _ = radial(near + e2 * e2, KERNEL)
                if tl.program_id(1) == 0:
                    tl.atomic_add(density + cell, weight, mask=inside, sem="relaxed")
                tl.atomic_add(
                    signal + cell[:, None] * CHANNELS + columns[None, :],
                    weight[:, None] * values,
                    mask=inside[:, None] & column_ok[None, :],
                    sem="relaxed",
                )


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
    g0, g1, g2, d0, d1, d2, b = window(n, first, offset, batch, ok)
    s0, s1, s2 = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    b *= SHAPE0
    for k0 in range(WINDOW0):
        e0 = d0 - k0 * s0
        ok0 = ok & (g0 + k0 >= 0) & (g0 + k0 < SHAPE0)
        for k1 in range(WINDOW1):
            e1 = d1 - k1 * s1
            ok1 = ok0 & (g1 + k1 >= 0) & (g1 + k1 < SHAPE1)
            base = ((b + (g0 + k0)) * SHAPE1 + (g1 + k1)) * SHAPE2
            near = e0 * e0 + e1 * e1
            for k2 in range(WINDOW2):
                e2 = d2 - k2 * s2
                inside = ok1 & (g2 + k2 >= 0) & (g2 + k2 < SHAPE2)
                cell = base + (g2 + k2)
                weight, _ = radial(near + e2 * e2, KERNEL)
                weight = tl.where(inside, weight, 0.0)
                values = tl.load(
                    y + cell[:, None] * CHANNELS + columns[None, :],
                    mask=inside[:, None] & column_ok[None, :],
                    other=0.0,
                )
                total += weight
                sums += weight[:, None] * values.to(tl.float32)
    if tl.program_id(1) == 0:
        tl.store(density + n, total, mask=ok)
    tl.store(signal + n[:, None] * CHANNELS + columns[None, :], sums, mask=ok[:, None] & column_ok[None, :])


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
    force,  # [parts, N, 3]: minus the sum of q (u . v + densities) times the scaled difference
    square,  # [parts, N, 3]: the same with the squared scaled difference, without the sign
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
    r"""Sums the forces of the cells on the points of a block, which are linear in the channels: one part of them."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_POINTS + tl.arange(0, BLOCK_POINTS)
    ok = n < num_points
    part = tl.program_id(1)
    columns = part * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    column_ok = columns < CHANNELS
    own = tl.load(u + n[:, None] * CHANNELS + columns[None, :], mask=ok[:, None] & column_ok[None, :], other=0.0)
    own = own.to(tl.float32)
    # The densities are added in one part only.
    dense = 0 * n + part == 0
    constant = tl.load(u_density + n, mask=ok & dense, other=0.0).to(tl.float32)
    f0 = tl.zeros((BLOCK_POINTS,), dtype=tl.float32)
    f1, f2 = f0, f0
    t0, t1, t2 = f0, f0, f0
    g0, g1, g2, d0, d1, d2, b = window(n, first, offset, batch, ok)
    s0, s1, s2 = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    b *= SHAPE0
    for k0 in range(WINDOW0):
        e0 = d0 - k0 * s0
        ok0 = ok & (g0 + k0 >= 0) & (g0 + k0 < SHAPE0)
        for k1 in range(WINDOW1):
            e1 = d1 - k1 * s1
            ok1 = ok0 & (g1 + k1 >= 0) & (g1 + k1 < SHAPE1)
            base = ((b + (g0 + k0)) * SHAPE1 + (g1 + k1)) * SHAPE2
            near = e0 * e0 + e1 * e1
            for k2 in range(WINDOW2):
                e2 = d2 - k2 * s2
                inside = ok1 & (g2 + k2 >= 0) & (g2 + k2 < SHAPE2)
                cell = base + (g2 + k2)
                _, factor = radial(near + e2 * e2, KERNEL)
                values = tl.load(
                    v + cell[:, None] * CHANNELS + columns[None, :],
                    mask=inside[:, None] & column_ok[None, :],
                    other=0.0,
                )
                product = constant + tl.load(v_density + cell, mask=inside & dense, other=0.0).to(tl.float32)
                product += tl.sum(own * values.to(tl.float32), axis=1)
                strength = tl.where(inside, factor * product, 0.0)
                f0 -= strength * e0
                f1 -= strength * e1
                f2 -= strength * e2
                t0 += strength * e0 * e0
                t1 += strength * e1 * e1
                t2 += strength * e2 * e2
    place = 3 * (part.to(tl.int64) * num_points + n)
    tl.store(force + place, f0, mask=ok)
    tl.store(force + place + 1, f1, mask=ok)
    tl.store(force + place + 2, f2, mask=ok)
    tl.store(square + place, t0, mask=ok)
    tl.store(square + place + 1, t1, mask=ok)
    tl.store(square + place + 2, t2, mask=ok)


# Numbers of dimensions and channels: a common one, and the widest of every plan.
WIDTHS = ((8, 8), (16, 64), (32, 16), (64, 70))


def configurations(
    widths: Sequence[tuple[int, int]] = WIDTHS,
) -> Iterator[tuple[str, Any, dict[str, int | bool], int]]:
    r"""Yields the name of every kernel, the kernel, its constants but the radial kernel, and its warps."""
    for dim, channels in widths:
        for isotropic in (True, False):
            sizes = {"DIM": dim, "CHANNELS": channels, "ISOTROPIC": isotropic}
            plan = convolve_plan(dim, channels)
            blocks = {"WIDTH": plan.stop, "BLOCK_CHANNELS": plan.block_channels, "BLOCK_ROWS": plan.rows}
            yield "convolve", convolve, {**sizes, **blocks, "DENSITY": True}, plan.warps
            plan = pull_plan(dim, channels)
            blocks = {"BLOCK_DIM": plan.block_dim, "BLOCK_CHANNELS": plan.block_channels, "BLOCK_ROWS": plan.rows}
            for is_target, values in ((True, False), (False, True)):
                rows = {"OWN_WIDTH": plan.stop + 2 * is_target, "OTHER_WIDTH": plan.stop + 2 * (not is_target)}
                side = {"OWN_IS_TARGET": is_target, "VALUES": values}
                yield "pull", pull, {**sizes, **blocks, **rows, **side}, plan.warps
    for dim in (1, 2, 3):
        yield "locate", locate, {"DIM": dim, "BLOCK_POINTS": LOCATE_POINTS}, LOCATE_WARPS
    for width in (16, POINT_CHANNELS):
        yield "scatter", scatter, {"BLOCK_CHANNELS": width, "BLOCK_POINTS": SCATTER_POINTS}, SCATTER_WARPS
        yield "gather", gather, {"BLOCK_CHANNELS": width, "BLOCK_POINTS": GATHER_POINTS}, GATHER_WARPS
    yield "gradient", gradient, {"BLOCK_CHANNELS": GRADIENT_CHANNELS, "BLOCK_POINTS": GRADIENT_POINTS}, GRADIENT_WARPS
    for width in (16, SEGMENT_CHANNELS):
        blocks = {"BLOCK_CHANNELS": width, "BLOCK_CELLS": SEGMENT_CELLS, "BLOCK_POINTS": SEGMENT_POINTS}
        yield "scatter_sorted", scatter_sorted, blocks, SEGMENT_WARPS
