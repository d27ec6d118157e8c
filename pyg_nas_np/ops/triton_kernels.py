r"""The Triton kernels of the CUDA back end.

Imported by :mod:`pyg_nas_np.ops.cuda` on first use, because Triton is optional. Two kernels implement the ragged
operator in both directions, since a gradient is a convolution with the roles of sources and targets exchanged:

* :func:`convolve` sums weighted values: the forward pass, and the gradient of the values if no other is needed;
* :func:`pull` sums forces: the gradients of locations, of the length scale and optionally of the values.

A thread keeps whole rows of its own side in registers, coordinates and sums, and loops over the rows of the other side.
All threads read the same rows, and everything else is multiply-adds between registers.

From :data:`WIDE_CHANNELS` channels on, :func:`convolve_wide` and :func:`pull_wide` take over: they compute tiles of
weights from the coordinates, and tensor cores multiply tiles and values. Tensor cores want at least 16 of everything,
so that narrow rows would be padding mostly. They round float32 to TF32; three products keep its accuracy unless the
user allows TF32. Distances never go through them, and moments always in three products. The gradient of wide values is
a launch of its own: together with the forces, its product does not fit into the registers.

No kernel off the grid uses atomics: if there are too few rows to fill the device, several programs process a part of
the other side each, and their sums are added afterwards.
"""

# Kernels are compiled by Triton, not called by Python: their arguments have no Python types.
# Their loops over tuples of registers are unrolled, and Triton knows no star in a tuple.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"
# ruff: noqa: RUF005

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import triton
import triton.language as tl

RBF, MATERN32, MATERN52 = 0, 1, 2

# Programs per multiprocessor, their multiple if sets may differ in size, and the smallest number of rows of the other
# side per program in an average set.
PROGRAMS = 16
RAGGED_FACTOR = 4
LEAST_SHARE = 128

# Channels that a program of the narrow ragged kernels holds in registers.
BLOCK_CHANNELS = 16

# Number of channels from which on tensor cores form the products of the ragged kernels. It is a count of instructions
# (see CONTRIBUTING), and unmeasured on hardware: ``benchmarks/set_conv.py --device cuda --wide-channels N`` moves it.
WIDE_CHANNELS = 32

# Blocks of the wide ragged kernels: channels of sums, channels of products, own and other rows. Without a limit of its
# own, the assembler spills a few bytes to fit one more program on a multiprocessor.
WIDE_SUMS, WIDE_PRODUCTS, WIDE_ROWS, WIDE_OTHERS = 64, 16, 64, 32
CONVOLVE_OPTIONS, PULL_OPTIONS = {"num_warps": 4, "maxnreg": 255}, {"num_warps": 8, "maxnreg": 255}
# Length scales that the rows of a tile may be apart if their moments are formed about one point: a few times as many
# roundings are lost.
WIDE_NEAR = 32
# Programs per multiprocessor of the wide kernels: each holds more of its registers.
WIDE_PROGRAMS = 4

# Rows of a program that rearranges rows or adds parts of sums.
PACK_ROWS, COMBINE_ROWS, COMBINE_CHANNELS, ROW_WARPS = 32, 16, 64, 4

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
    start: int  # position of the first value
    stop: int  # position after the last value
    dense: bool  # whether rows without places between coordinates and values are as good


def _even(number: int) -> int:
    return number + number % 2


def _blocks(size: int, most: int) -> tuple[int, int]:
    r"""Returns the number and the even width of blocks, as equal as possible, that cover a size."""
    number = max(1, -(-size // most))
    return number, _even(-(-size // number))


def _plan(dim: int, channels: int, pieces: tuple[int, int], rows: int, warps: int) -> Plan:
    parts = _blocks(channels, BLOCK_CHANNELS)
    start, width = _even(pieces[0] * pieces[1]), parts[0] * parts[1]
    dense = start == dim and width == channels and pieces[0] == 1
    return Plan(dim, *pieces, *parts, rows, warps, start, start + width, dense)


@cache
def convolve_plan(dim: int, channels: int) -> Plan:
    r"""Returns the plan of :func:`convolve`: as many rows per thread as registers hold."""
    per_thread = 4 if dim <= 16 else 2 if dim <= 32 else 1
    return _plan(dim, channels, (1, dim), 64 * per_thread, 2)


@cache
def pull_plan(dim: int, channels: int) -> Plan:
    r"""Returns the plan of :func:`pull`: as many rows per thread as registers hold."""
    per_thread = 2 if dim <= 16 else 1
    return _plan(dim, channels, (1, dim) if dim <= 32 else _blocks(dim, 16), 128 * per_thread, 4)


def power_of_two(size: int) -> int:
    r"""Returns the smallest power of two that covers a size, as the ranges of Triton ask for.

    Example:
        >>> power_of_two(5), power_of_two(0)
        (8, 1)
    """
    return 1 << max(0, size - 1).bit_length()


Constants = dict[str, int | bool | str]


# The constants of the ragged kernels, in the order of their signatures. Callers must not change what is cached.


@cache
def pack_constants(plan: Plan, channels: int, normalize: bool, density: bool) -> Constants:
    r"""Returns those of :func:`pack`."""
    return {
        "DIM": plan.dim,
        "CHANNELS": channels,
        "START": plan.start,
        "WIDTH": plan.stop,
        "BLOCK_DIM": power_of_two(plan.start),
        "BLOCK_CHANNELS": power_of_two(plan.stop - plan.start),
        "NORMALIZE": normalize,
        "DENSITY": density,
        "BLOCK_ROWS": PACK_ROWS,
    }


@cache
def convolve_constants(
    heads: int, plan: Plan, channels: int, packed: bool, kernel: int, isotropic: bool, density: bool, normalize: bool
) -> Constants:
    r"""Returns those of :func:`convolve`."""
    return {
        "HEADS": heads,
        "DIM": plan.dim,
        "CHANNELS": channels,
        "WIDTH": plan.stop if packed else plan.dim,
        "VALUE_WIDTH": plan.stop if packed else channels,
        "VALUE_START": plan.start if packed else 0,
        "BLOCK_CHANNELS": plan.block_channels,
        "KERNEL": kernel,
        "ISOTROPIC": isotropic,
        "DENSITY": density,
        "NORMALIZE": normalize,
        "BLOCK_ROWS": plan.rows,
    }


@cache
def pull_constants(
    heads: int,
    plan: Plan,
    channels: int,
    own_packed: bool,
    other_packed: bool,
    kernel: int,
    isotropic: bool,
    own_is_target: bool,
    values: bool,
) -> Constants:
    r"""Returns those of :func:`pull`."""
    return {
        "HEADS": heads,
        "DIM": plan.dim,
        "CHANNELS": channels,
        "OWN_PACKED": own_packed,
        "OTHER_PACKED": other_packed,
        "BLOCK_DIM": plan.block_dim,
        "BLOCK_CHANNELS": plan.block_channels,
        "KERNEL": kernel,
        "ISOTROPIC": isotropic,
        "OWN_IS_TARGET": own_is_target,
        "VALUES": values,
        "BLOCK_ROWS": plan.rows,
    }


@cache
def convolve_wide_constants(
    heads: int, dim: int, channels: int, kernel: int, isotropic: bool, density: bool, normalize: bool, precision: str
) -> Constants:
    r"""Returns those of :func:`convolve_wide`."""
    return {
        "HEADS": heads,
        "DIM": dim,
        "CHANNELS": channels,
        "KERNEL": kernel,
        "ISOTROPIC": isotropic,
        "DENSITY": density,
        "NORMALIZE": normalize,
        "PRECISION": precision,
        "BLOCK_CHANNELS": WIDE_SUMS,
        "BLOCK_ROWS": WIDE_ROWS,
        "BLOCK_OTHERS": WIDE_OTHERS,
    }


@cache
def combine_constants(channels: int, normalize: bool) -> Constants:
    r"""Returns those of :func:`combine`."""
    return {
        "CHANNELS": channels,
        "NORMALIZE": normalize,
        "BLOCK_CHANNELS": COMBINE_CHANNELS,
        "BLOCK_ROWS": COMBINE_ROWS,
    }


@cache
def gradient_of_density_constants(channels: int) -> Constants:
    r"""Returns those of :func:`gradient_of_density`."""
    return {"CHANNELS": channels, "BLOCK_CHANNELS": COMBINE_CHANNELS, "BLOCK_ROWS": COMBINE_ROWS}


@cache
def pull_wide_constants(
    heads: int,
    dim: int,
    channels: int,
    kernel: int,
    isotropic: bool,
    own_is_target: bool,
    normalize: bool,
    precision: str,
) -> Constants:
    r"""Returns those of :func:`pull_wide`."""
    return {
        "HEADS": heads,
        "DIM": dim,
        "CHANNELS": channels,
        "BLOCK_DIM": max(16, power_of_two(dim)),
        "KERNEL": kernel,
        "ISOTROPIC": isotropic,
        "OWN_IS_TARGET": own_is_target,
        "NORMALIZE": normalize,
        "PRECISION": precision,
        "NEAR": WIDE_NEAR,
        "BLOCK_CHANNELS": WIDE_PRODUCTS,
        "BLOCK_ROWS": WIDE_ROWS,
        "BLOCK_OTHERS": WIDE_OTHERS,
    }


def pull_options(plan: Plan, values: bool) -> dict[str, int]:
    r"""Returns the options of :func:`pull`."""
    # Where many programs fit, the assembler would spill a few bytes to fit one more.
    limit = {"maxnreg": 128} if not values and plan.dim + plan.block_channels <= 16 else {}
    return {"num_warps": plan.warps, **limit}


def wide_parts(channels: int) -> int:
    r"""Returns the number of blocks of channels of the wide kernels."""
    return -(-channels // WIDE_SUMS)


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
def inverse_of(lengthscale, step, DIM: tl.constexpr, ISOTROPIC: tl.constexpr):
    r"""Returns the inverse length scales of all dimensions, or the one that they share."""
    numbers = ()
    for d in tl.static_range(1 if ISOTROPIC else DIM):
        numbers = numbers + (1.0 / tl.load(lengthscale + d * step),)
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


# Run-time numbers of the ragged kernels have fixed types and are not specialised, so that a launch is looked up without
# looking at their values. The number of heads is specialised: one costs nothing in the inner loops.
_NUMBERS = ["num_sets", "num_rows", "num_splits", "SCALE_ROW", "SCALE_STEP", "eps"]


@triton.jit(do_not_specialize=_NUMBERS)
def pack(
    x,  # [R, DIM]: coordinates
    values,  # [R, CHANNELS]
    density,  # [R]
    signal,  # [R, CHANNELS]
    grad_density,  # [R]
    constant,  # [R]: gradient of the density itself
    packed,  # [R, WIDTH]
    num_rows: tl.int64,
    eps: tl.float32,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    START: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DENSITY: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    r"""Writes rows of coordinates and values as float32, both at an even place, so that pairs of them can be loaded.

    With ``NORMALIZE`` the values are gradients of a signal that was divided by the density; with ``DENSITY`` their part
    of the gradient of the density is added to it.
    """
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    ok = rows < num_rows
    axes, columns = tl.arange(0, BLOCK_DIM)[None, :], tl.arange(0, BLOCK_CHANNELS)[None, :]
    row = rows[:, None]
    at = tl.load(x + row * DIM + axes, mask=ok[:, None] & (axes < DIM), other=0.0)
    tl.store(packed + row * WIDTH + axes, at.to(tl.float32), mask=ok[:, None] & (axes < START))
    inside = ok[:, None] & (columns < CHANNELS)
    mine = tl.load(values + row * CHANNELS + columns, mask=inside, other=0.0).to(tl.float32)
    if NORMALIZE:
        mine = mine / (tl.load(density + rows, mask=ok, other=1.0).to(tl.float32) + eps)[:, None]
    tl.store(packed + row * WIDTH + START + columns, mine, mask=ok[:, None] & (START + columns < WIDTH))
    if DENSITY:
        sums = tl.load(signal + row * CHANNELS + columns, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_density + rows, mask=ok, other=0.0).to(tl.float32)
        tl.store(constant + rows, grad - tl.sum(mine * sums, axis=1), mask=ok)


@triton.jit(do_not_specialize=_NUMBERS)
def combine(
    densities,  # [splits, R]
    signals,  # [splits, R, CHANNELS]
    density,  # [R]
    signal,  # [R, CHANNELS]
    num_rows: tl.int64,
    num_splits: tl.int64,
    eps: tl.float32,
    CHANNELS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    r"""Adds the parts of sums, and divides the signal by the density."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    ok = rows < num_rows
    inside = ok[:, None] & (columns < CHANNELS)
    total = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    sums = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), dtype=tl.float32)
    for split in range(num_splits):
        place = split * num_rows + rows
        total += tl.load(densities + place, mask=ok, other=0.0)
        sums += tl.load(signals + place[:, None] * CHANNELS + columns, mask=inside, other=0.0)
    if NORMALIZE:
        sums = sums / (total + eps)[:, None]
    if tl.program_id(1) == 0:
        tl.store(density + rows, total, mask=ok)
    tl.store(signal + rows[:, None] * CHANNELS + columns, sums, mask=inside)


@triton.jit(do_not_specialize=_NUMBERS)
def convolve(
    own,  # [M, H, DIM]: coordinates
    other,  # [N, H, WIDTH]: coordinates, from the first place on
    values,  # [N, H, VALUE_WIDTH]: values, from VALUE_START on
    lengthscale,
    ptr_own,
    ptr_other,
    density,  # [splits, M, H]
    signal,  # [splits, M, H, CHANNELS]
    num_sets: tl.int64,
    num_rows: tl.int64,
    num_splits: tl.int64,
    SCALE_ROW: tl.int64,
    SCALE_STEP: tl.int64,
    eps: tl.float32,
    HEADS,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    VALUE_START: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    ISOTROPIC: tl.constexpr,
    DENSITY: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    r"""For the rows of one tile, sums k times the values over a part of the other side.

    The numbers of the other side are float32 at even places, which are loaded in pairs.
    """
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
    scale = inverse_of(lengthscale + head * SCALE_ROW, SCALE_STEP, DIM, ISOTROPIC)
    total = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    sums = zeros(BLOCK_CHANNELS, BLOCK_ROWS)
    begin, end = share_of(ptr_other, owner, split, num_splits)
    start = begin * HEADS + head
    other = other.to(tl.pointer_type(tl.int64)) + start * (WIDTH // 2)
    values = values.to(tl.pointer_type(tl.int64)) + start * (VALUE_WIDTH // 2) + (VALUE_START + low) // 2
    for _ in range((end - begin).to(tl.int32)):
        square, _ = distance(at, numbers_of(other, START), scale, DIM, ISOTROPIC)
        weight, _ = radial(square, KERNEL)
        total += weight
        # A second pointer takes registers, which packed rows need not spend.
        theirs = other + (VALUE_START + low) // 2 if VALUE_START > 0 else values
        sums = add(sums, weight, numbers_of(theirs, BLOCK_CHANNELS), BLOCK_CHANNELS)
        other += HEADS * (WIDTH // 2)
        values += HEADS * (VALUE_WIDTH // 2)
    place = (split * num_rows + rows) * HEADS + head
    if DENSITY and part == 0:
        tl.store(density + place, total, mask=ok)
    for c in tl.static_range(BLOCK_CHANNELS):
        if low + c < CHANNELS:
            result = sums[c]
            if NORMALIZE:
                result = result / (total + eps)
            tl.store(signal + place * CHANNELS + low + c, result, mask=ok)


@triton.jit(do_not_specialize=_NUMBERS)
def pull(
    own,  # coordinates
    own_values,
    other,
    other_values,
    lengthscale,
    constant,  # gradient of the density of the targets
    ptr_own,
    ptr_other,
    grad_x,  # [parts, splits, M, H, DIM]
    grad_v,  # [splits, M, H, CHANNELS]
    grad_scale,  # [parts, tiles * splits, H, DIM], or 1 in place of DIM
    num_sets: tl.int64,
    num_rows: tl.int64,
    num_splits: tl.int64,
    SCALE_ROW: tl.int64,
    SCALE_STEP: tl.int64,
    HEADS,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    OWN_PACKED: tl.constexpr,
    OTHER_PACKED: tl.constexpr,
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

    Packed rows hold coordinates and values, each at an even place; else they are apart and need no places between.
    """
    tile, split = tl.program_id(0) // num_splits, tl.program_id(0) % num_splits
    head = tl.program_id(1)
    PIECES: tl.constexpr = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    PARTS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS if CHANNELS > 0 else 1
    START: tl.constexpr = (PIECES * BLOCK_DIM + 1) // 2 * 2
    STOP: tl.constexpr = START + PARTS * BLOCK_CHANNELS
    SCALES: tl.constexpr = 1 if ISOTROPIC else DIM
    OWN_WIDTH: tl.constexpr = STOP if OWN_PACKED else DIM
    OWN_VALUES: tl.constexpr = STOP if OWN_PACKED else CHANNELS
    OWN_START: tl.constexpr = START if OWN_PACKED else 0
    OTHER_WIDTH: tl.constexpr = STOP if OTHER_PACKED else DIM
    OTHER_VALUES: tl.constexpr = STOP if OTHER_PACKED else CHANNELS
    OTHER_START: tl.constexpr = START if OTHER_PACKED else 0
    piece, part = tl.program_id(2) % PIECES, tl.program_id(2) // PIECES
    owner, first, last = tile_of(ptr_own, tile, num_sets, BLOCK_ROWS)
    axis = piece * BLOCK_DIM
    channel = part * BLOCK_CHANNELS
    slot = (part * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * HEADS + head
    if first >= last:
        if OWN_IS_TARGET:
            for d in tl.static_range(BLOCK_DIM):
                if axis + d < SCALES:
                    tl.store(grad_scale + slot * SCALES + axis + d, 0.0)
        return
    rows = first + tl.arange(0, BLOCK_ROWS)
    ok = rows < last
    own_values += (rows * HEADS + head) * OWN_VALUES
    own += (rows * HEADS + head) * OWN_WIDTH
    lengthscale += head * SCALE_ROW
    at = columns_of(own, DIM, ok)
    scale = inverse_of(lengthscale, SCALE_STEP, DIM, ISOTROPIC)
    near = at
    rate = scale
    if PIECES > 1:
        near = columns_of(own + axis, BLOCK_DIM, ok)
        if not ISOTROPIC:
            rate = ()
            for d in tl.static_range(BLOCK_DIM):
                rate = rate + (1.0 / tl.load(lengthscale + tl.minimum(axis + d, DIM - 1) * SCALE_STEP),)
    mine = columns_of(own_values + OWN_START + channel, BLOCK_CHANNELS, ok)
    moments = zeros(BLOCK_DIM, BLOCK_ROWS)
    spread = zeros(1 if ISOTROPIC else BLOCK_DIM, BLOCK_ROWS)
    sums = zeros(BLOCK_CHANNELS, BLOCK_ROWS)
    # The gradient of the density is added in one part of the channels only.
    once = tl.where(part == 0, 1.0, 0.0)
    addend = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    if OWN_IS_TARGET:
        addend = once * tl.load(constant + rows * HEADS + head, mask=ok, other=0.0).to(tl.float32)
    begin, end = share_of(ptr_other, owner, split, num_splits)
    start = begin * HEADS + head
    other = other.to(tl.pointer_type(tl.int64)) + start * (OTHER_WIDTH // 2)
    other_values = other_values.to(tl.pointer_type(tl.int64))
    other_values += start * (OTHER_VALUES // 2) + (OTHER_START + channel) // 2
    constant += start
    # Twice the row would not fit into the registers where there are the most of them.
    UNROLL: tl.constexpr = 1 if VALUES and not ISOTROPIC and DIM + BLOCK_CHANNELS > 24 else 2
    for _ in tl.range(0, (end - begin).to(tl.int32), loop_unroll_factor=UNROLL):
        square, deltas = distance(at, numbers_of(other, DIM + DIM % 2), scale, DIM, ISOTROPIC)
        weight, factor = radial(square, KERNEL)
        product = addend
        if not OWN_IS_TARGET:
            product += once * tl.load(constant).to(tl.float32)
        theirs = other + (START + channel) // 2 if OTHER_PACKED else other_values
        values = numbers_of(theirs, BLOCK_CHANNELS)
        for c in tl.static_range(BLOCK_CHANNELS):
            product += mine[c] * values[c]
        if VALUES:
            sums = add(sums, weight, values, BLOCK_CHANNELS)
        force = factor * product
        if PIECES > 1:
            _, deltas = distance(near, numbers_of(other + axis // 2, BLOCK_DIM), rate, BLOCK_DIM, ISOTROPIC)
        moments = add(moments, force, deltas, BLOCK_DIM)
        if OWN_IS_TARGET and ISOTROPIC:
            spread = add(spread, force, (square,), 1)
        elif OWN_IS_TARGET:
            spread = add(spread, force, squared(deltas, BLOCK_DIM), BLOCK_DIM)
        other += HEADS * (OTHER_WIDTH // 2)
        other_values += HEADS * (OTHER_VALUES // 2)
        constant += HEADS
    place = ((part * num_splits + split) * num_rows + rows) * HEADS + head
    for d in tl.static_range(BLOCK_DIM):
        if axis + d < DIM:
            # The differences of an isotropic kernel are not scaled yet.
            gradient = moments[d] * (rate[0] * rate[0]) if ISOTROPIC else moments[d] * rate[d]
            tl.store(grad_x + place * DIM + axis + d, -gradient, mask=ok)
        if OWN_IS_TARGET and (d == 0 or not ISOTROPIC):
            total = rate[d] * tl.sum(tl.where(ok, spread[d], 0.0), axis=0)
            if axis + d < SCALES:
                tl.store(grad_scale + slot * SCALES + axis + d, total)
    if VALUES and piece == 0:
        place = (split * num_rows + rows) * HEADS + head
        for c in tl.static_range(BLOCK_CHANNELS):
            if channel + c < CHANNELS:
                tl.store(grad_v + place * CHANNELS + channel + c, sums[c], mask=ok)


@triton.jit
def tile_delta(own, other, lengthscale, SCALE_STEP, d, ISOTROPIC: tl.constexpr):
    r"""Returns the differences along one dimension of all pairs in a tile, which are scaled unless isotropic."""
    a = tl.load(own + d).to(tl.float32)
    b = tl.load(other + d).to(tl.float32)
    delta = a[:, None] - b[None, :]
    if not ISOTROPIC:
        delta *= 1.0 / tl.load(lengthscale + d * SCALE_STEP)
    return delta


@triton.jit
def tile_square(
    own,
    other,
    lengthscale,
    SCALE_STEP,
    DIM: tl.constexpr,
    ISOTROPIC: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
):
    r"""Returns the squared scaled distances of all pairs in a tile."""
    square = tl.zeros((BLOCK_ROWS, BLOCK_OTHERS), dtype=tl.float32)
    # Not unrolled here: all coordinates of the own rows would move into registers, and the tile out of them.
    for d in range(DIM):
        delta = tile_delta(own, other, lengthscale, SCALE_STEP, d, ISOTROPIC)
        square += delta * delta
    if ISOTROPIC:
        scale = 1.0 / tl.load(lengthscale)
        square *= scale * scale
    return square


@triton.jit(do_not_specialize=_NUMBERS)
def convolve_wide(
    own,  # [M, H, DIM]: coordinates
    other,  # [N, H, DIM]
    values,  # [N, H, CHANNELS]
    lengthscale,
    other_density,  # [N, H]
    ptr_own,
    ptr_other,
    density,  # [splits, M, H]
    signal,  # [splits, M, H, CHANNELS]
    num_sets: tl.int64,
    num_rows: tl.int64,
    num_splits: tl.int64,
    SCALE_ROW: tl.int64,
    SCALE_STEP: tl.int64,
    eps: tl.float32,
    HEADS,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    KERNEL: tl.constexpr,
    ISOTROPIC: tl.constexpr,
    DENSITY: tl.constexpr,
    NORMALIZE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
):
    r"""As :func:`convolve`, with the weighted sum on tensor cores.

    Without ``DENSITY`` the values are gradients of a signal, and ``NORMALIZE`` divides them by their densities.
    """
    tile, split = tl.program_id(0) // num_splits, tl.program_id(0) % num_splits
    head, part = tl.program_id(1), tl.program_id(2)
    owner, first, last = tile_of(ptr_own, tile, num_sets, BLOCK_ROWS)
    if first >= last:
        return
    rows = first + tl.arange(0, BLOCK_ROWS)
    ok = rows < last
    columns = part * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    lengthscale += head * SCALE_ROW
    # Rows beyond the end are copies of the last one: masks would take half of the loop over dimensions.
    own += (tl.minimum(rows, last - 1) * HEADS + head) * DIM
    # Sums over the tiles, and over their columns at the end.
    totals = tl.zeros((BLOCK_ROWS, BLOCK_OTHERS), dtype=tl.float32)
    sums = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), dtype=tl.float32)
    begin, end = share_of(ptr_other, owner, split, num_splits)
    for start in range(begin, end, BLOCK_OTHERS):
        j = start + tl.arange(0, BLOCK_OTHERS)
        inside = j < end
        there = tl.minimum(j, end - 1) * HEADS + head
        square = tile_square(
            own, other + there * DIM, lengthscale, SCALE_STEP, DIM, ISOTROPIC, BLOCK_ROWS, BLOCK_OTHERS
        )
        weight, _ = radial(square, KERNEL)
        weight = tl.where(inside[None, :], weight, 0.0)
        if DENSITY:
            totals += weight
        elif NORMALIZE:
            rate = 1.0 / (tl.load(other_density + there).to(tl.float32) + eps)
            weight *= rate[None, :]
        theirs = values + there[:, None] * CHANNELS + columns
        theirs = tl.load(theirs, mask=inside[:, None] & (columns < CHANNELS), other=0.0)
        if PRECISION == "half":
            sums += tl.dot(weight.to(theirs.dtype), theirs)
        else:
            sums += tl.dot(weight, theirs.to(tl.float32), input_precision=PRECISION)
    place = (split * num_rows + rows) * HEADS + head
    if DENSITY:
        total = tl.sum(totals, axis=1)
        if NORMALIZE:
            sums = sums / (total + eps)[:, None]
        if part == 0:
            tl.store(density + place, total, mask=ok)
    tl.store(signal + place[:, None] * CHANNELS + columns, sums, mask=ok[:, None] & (columns < CHANNELS))


@triton.jit(do_not_specialize=_NUMBERS)
def gradient_of_density(
    grad_density,  # [R]
    grad_signal,  # [R, CHANNELS]
    density,  # [R]
    signal,  # [R, CHANNELS]
    constant,  # [R]
    num_rows: tl.int64,
    eps: tl.float32,
    CHANNELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    r"""Writes the gradient of the density where the signal is divided by it."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    ok = rows < num_rows
    total = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    for low in range(0, CHANNELS, BLOCK_CHANNELS):
        columns = low + tl.arange(0, BLOCK_CHANNELS)[None, :]
        inside = ok[:, None] & (columns < CHANNELS)
        place = rows[:, None] * CHANNELS + columns
        grad = tl.load(grad_signal + place, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(grad * tl.load(signal + place, mask=inside, other=0.0).to(tl.float32), axis=1)
    total = total / (tl.load(density + rows, mask=ok, other=1.0).to(tl.float32) + eps)
    tl.store(constant + rows, tl.load(grad_density + rows, mask=ok, other=0.0).to(tl.float32) - total, mask=ok)


@triton.jit(do_not_specialize=_NUMBERS)
def pull_wide(
    own,  # [M, H, DIM]: coordinates
    own_values,  # [M, H, CHANNELS]
    other,  # [N, H, DIM]
    other_values,  # [N, H, CHANNELS]
    lengthscale,
    density,  # of the targets
    constant,  # gradient of the density of the targets
    ptr_own,
    ptr_other,
    grad_x,  # [splits, M, H, DIM]
    grad_scale,  # [tiles * splits, H, DIM], or 1 in place of DIM
    num_sets: tl.int64,
    num_rows: tl.int64,
    num_splits: tl.int64,
    SCALE_ROW: tl.int64,
    SCALE_STEP: tl.int64,
    eps: tl.float32,
    HEADS,
    DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    KERNEL: tl.constexpr,
    ISOTROPIC: tl.constexpr,
    OWN_IS_TARGET: tl.constexpr,
    NORMALIZE: tl.constexpr,
    PRECISION: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
):
    r"""As :func:`pull` without the values, with the products of values on tensor cores.

    The gradients of the signal are divided by the density after the products, where half precision cannot overflow.
    """
    tile, split = tl.program_id(0) // num_splits, tl.program_id(0) % num_splits
    head = tl.program_id(1)
    SCALES: tl.constexpr = 1 if ISOTROPIC else DIM
    owner, first, last = tile_of(ptr_own, tile, num_sets, BLOCK_ROWS)
    axes = tl.arange(0, BLOCK_DIM)
    slot = tl.program_id(0).to(tl.int64) * HEADS + head
    if first >= last:
        if OWN_IS_TARGET:
            tl.store(grad_scale + slot * SCALES + axes, 0.0 * axes, mask=axes < SCALES)
        return
    rows = first + tl.arange(0, BLOCK_ROWS)
    ok = rows < last
    # As above: rows beyond the end are copies of the last one.
    here = tl.minimum(rows, last - 1) * HEADS + head
    lengthscale += head * SCALE_ROW
    axis_ok = axes[None, :] < DIM
    # Moments are products of forces and differences to one point. Those of far points would cancel, so that a tile of
    # rows that are far from each other, or not finite, forms each difference.
    origin = tl.load(own + (first * HEADS + head) * DIM + axes[None, :], mask=axis_ok, other=0.0).to(tl.float32)
    at = tl.load(own + here[:, None] * DIM + axes[None, :], mask=axis_ok, other=0.0).to(tl.float32) - origin
    step = 0 if ISOTROPIC else SCALE_STEP
    scale = 1.0 / tl.load(lengthscale + axes * step, mask=axes < DIM, other=1.0)
    near = tl.max(tl.max(tl.abs(at * scale[None, :]), axis=1), axis=0) <= NEAR
    finite = tl.sum(tl.sum(tl.where(at == at, 0, 1), axis=1), axis=0) == 0
    near = near & finite
    own += here * DIM
    if OWN_IS_TARGET:
        addend = tl.load(constant + here).to(tl.float32)
        if NORMALIZE:
            rate = 1.0 / (tl.load(density + here).to(tl.float32) + eps)
    moments = tl.zeros((BLOCK_ROWS, BLOCK_DIM), dtype=tl.float32)
    spread = tl.zeros((BLOCK_ROWS, BLOCK_DIM), dtype=tl.float32)
    forces = tl.zeros((BLOCK_ROWS, BLOCK_OTHERS), dtype=tl.float32)
    totals = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    begin, end = share_of(ptr_other, owner, split, num_splits)
    for start in range(begin, end, BLOCK_OTHERS):
        j = start + tl.arange(0, BLOCK_OTHERS)
        inside = j < end
        there = tl.minimum(j, end - 1) * HEADS + head
        far = other + there * DIM
        product = tl.zeros((BLOCK_ROWS, BLOCK_OTHERS), dtype=tl.float32)
        for low in range(0, CHANNELS, BLOCK_CHANNELS):
            channel = low + tl.arange(0, BLOCK_CHANNELS)[None, :]
            u = own_values + here[:, None] * CHANNELS + channel
            u = tl.load(u, mask=channel < CHANNELS, other=0.0)
            v = other_values + there[:, None] * CHANNELS + channel
            v = tl.load(v, mask=channel < CHANNELS, other=0.0)
            if PRECISION == "half":
                product += tl.dot(u, tl.trans(v))
            else:
                product += tl.dot(u.to(tl.float32), tl.trans(v.to(tl.float32)), input_precision=PRECISION)
        square = tile_square(own, far, lengthscale, SCALE_STEP, DIM, ISOTROPIC, BLOCK_ROWS, BLOCK_OTHERS)
        _, factor = radial(square, KERNEL)
        if OWN_IS_TARGET:
            if NORMALIZE:
                product *= rate[:, None]
            product += addend[:, None]
        else:
            if NORMALIZE:
                rate = 1.0 / (tl.load(density + there).to(tl.float32) + eps)
                product *= rate[None, :]
            product += tl.load(constant + there).to(tl.float32)[None, :]
        force = tl.where(inside[None, :], factor * product, 0.0)
        if near:
            forces += force
            theirs = tl.load(far[:, None] + axes[None, :], mask=axis_ok, other=0.0).to(tl.float32) - origin
            moments += tl.dot(force, theirs, input_precision="tf32x3")
        else:
            for d in range(DIM):
                delta = tile_delta(own, far, lengthscale, SCALE_STEP, d, True)
                moments -= tl.where(axes[None, :] == d, tl.sum(force * delta, axis=1)[:, None], 0.0)
        if OWN_IS_TARGET:
            if ISOTROPIC:
                totals += tl.sum(force * square, axis=1)
            else:
                for d in range(DIM):
                    delta = tile_delta(own, far, lengthscale, SCALE_STEP, d, ISOTROPIC)
                    part = tl.sum(force * delta * delta, axis=1)
                    spread += tl.where(axes[None, :] == d, part[:, None], 0.0)
    place = (split * num_rows + rows) * HEADS + head
    shift = tl.where(near, tl.sum(forces, axis=1)[:, None] * at, 0.0)
    gradient = (moments - shift) * (scale * scale)[None, :]
    tl.store(grad_x + place[:, None] * DIM + axes[None, :], gradient, mask=ok[:, None] & axis_ok)
    if OWN_IS_TARGET:
        if ISOTROPIC:
            total = tl.sum(tl.where(ok, totals, 0.0), axis=0)
            tl.store(grad_scale + slot, total / tl.load(lengthscale))
        else:
            total = tl.sum(tl.where(ok[:, None], spread, 0.0), axis=0) * scale
            tl.store(grad_scale + slot * DIM + axes, total, mask=axes < DIM)


# As above, of the kernels on grids. Shapes, windows and channels are specialised: an axis of one cell costs nothing.
_POINT_NUMBERS = ["num_points", "num_sets", "search", "SPACING0", "SPACING1", "SPACING2"]


@triton.jit(do_not_specialize=_POINT_NUMBERS)
def locate(
    x,  # [N, DIM]
    origin,  # [B, DIM]
    lengthscale,  # [DIM]
    ptr,
    first,  # [N, 3]: the first cell of a window, int32
    offset,  # [N, 3]: scaled difference of point and first cell
    step,  # [3]: scaled distance of neighbouring cells
    batch,  # [N]
    key,  # [N]: number of the first cell among those of all sets that windows begin at, or that of all cells if outside
    num_points: tl.int64,
    num_sets: tl.int64,
    search: tl.int64,  # bisections that find a set
    # Spacings along the last axis but two, the last but one and the last: the bits of float64, because Triton passes
    # floating numbers as float32.
    SPACING0: tl.int64,
    SPACING1: tl.int64,
    SPACING2: tl.int64,
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    DIM: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_POINTS: tl.constexpr,
):
    r"""Finds the windows of points on grids of three dimensions; missing leading dimensions have one cell."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_POINTS + tl.arange(0, BLOCK_POINTS)
    ok = n < num_points
    owner = tl.zeros((BLOCK_POINTS,), dtype=tl.int32)
    beyond = owner + num_sets.to(tl.int32)
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
        spacing = SPACING2 if axis == DIM - 1 else SPACING1 if axis == DIM - 2 else SPACING0
        position = (point - start) / spacing.to(tl.float64, bitcast=True)
        low = tl.ceil(position - width * 0.5)
        # A window off the grid, or a NaN, must not overflow the integer; it is moved just outside.
        reached = reached & (low > -width) & (low < size)
        positions = positions + (position,)
        lowest = lowest + (low,)
    cell = owner.to(tl.int64)
    cells = num_sets
    for axis in tl.static_range(3 - DIM):
        tl.store(first + 3 * n + axis, 0 * owner, mask=ok)
        tl.store(offset + 3 * n + axis, 0.0 * owner, mask=ok)
        if tl.program_id(0) == 0:
            tl.store(step + axis, 0.0)
    for axis in tl.static_range(DIM):
        width = WINDOW2 if axis == DIM - 1 else WINDOW1 if axis == DIM - 2 else WINDOW0
        spacing = SPACING2 if axis == DIM - 1 else SPACING1 if axis == DIM - 2 else SPACING0
        scale = spacing.to(tl.float64, bitcast=True) / tl.load(lengthscale + axis).to(tl.float64)
        size = SHAPE2 if axis == DIM - 1 else SHAPE1 if axis == DIM - 2 else SHAPE0
        low = tl.where(reached, lowest[axis], -width)
        # Windows begin at 1 - width to size - 1.
        cell = cell * (size + width - 1) + low.to(tl.int64) + (width - 1)
        cells *= size + width - 1
        place = 3 * n + 3 - DIM + axis
        tl.store(first + place, low.to(tl.int32), mask=ok)
        tl.store(offset + place, tl.where(reached, (positions[axis] - low) * scale, 0.0).to(tl.float32), mask=ok)
        if tl.program_id(0) == 0:
            tl.store(step + 3 - DIM + axis, scale.to(tl.float32))
    if KEYS:
        tl.store(key + n, tl.where(reached, cell, cells), mask=ok)


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


@triton.jit(do_not_specialize=_POINT_NUMBERS)
def scatter(
    first,  # [N, 3]: the first cell of a window, int32
    offset,  # [N, 3]: scaled difference of point and first cell
    step,  # [3]: scaled distance of neighbouring cells
    batch,  # [N]
    y,  # [N, C]
    density,  # [cells], zeroed
    signal,  # [cells, C], zeroed
    num_points: tl.int64,
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


@triton.jit(do_not_specialize=_POINT_NUMBERS)
def gather(
    first,
    offset,
    step,
    batch,
    y,  # [cells, C]
    density,  # [N]
    signal,  # [N, C]
    num_points: tl.int64,
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


@triton.jit(do_not_specialize=_POINT_NUMBERS)
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
    num_points: tl.int64,
    SHAPE0,
    SHAPE1,
    SHAPE2,
    WINDOW0,
    WINDOW1,
    WINDOW2,
    CHANNELS,
    KERNEL: tl.constexpr,
    U_DENSITY: tl.constexpr,
    V_DENSITY: tl.constexpr,
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
    constant = tl.zeros((BLOCK_POINTS,), dtype=tl.float32)
    if U_DENSITY:
        constant += tl.load(u_density + n, mask=ok & dense, other=0.0).to(tl.float32)
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
                product = constant
                if V_DENSITY:
                    product += tl.load(v_density + cell, mask=inside & dense, other=0.0).to(tl.float32)
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


# Numbers of dimensions and channels: a common one, the widest of every narrow plan, and two of the wide kernels.
WIDTHS = ((8, 8), (16, 16), (16, 31), (32, 16), (64, 16), (16, 64), (5, 70))

_Configurations = Iterator[tuple[str, Any, Constants, dict[str, int]]]


def configurations(widths: Sequence[tuple[int, int]] = WIDTHS) -> _Configurations:
    r"""Yields the name of every kernel, the kernel, its constants with the first radial kernel, and its options."""
    for dim, channels in widths:
        yield from (_wide_configurations if channels >= WIDE_CHANNELS else _narrow_configurations)(dim, channels)
    options = {"num_warps": ROW_WARPS}
    yield "combine", combine, combine_constants(70, True), options
    yield "gradient_of_density", gradient_of_density, gradient_of_density_constants(70), options
    for dim in (1, 2, 3):
        blocks: Constants = {"DIM": dim, "KEYS": True, "BLOCK_POINTS": LOCATE_POINTS}
        yield "locate", locate, blocks, {"num_warps": LOCATE_WARPS}
    for width in (16, POINT_CHANNELS):
        blocks = {"KERNEL": RBF, "BLOCK_CHANNELS": width}
        yield "scatter", scatter, {**blocks, "BLOCK_POINTS": SCATTER_POINTS}, {"num_warps": SCATTER_WARPS}
        yield "gather", gather, {**blocks, "BLOCK_POINTS": GATHER_POINTS}, {"num_warps": GATHER_WARPS}
    blocks = {"BLOCK_CHANNELS": GRADIENT_CHANNELS, "BLOCK_POINTS": GRADIENT_POINTS}
    for to_grid in (True, False):
        sides: Constants = {"KERNEL": RBF, "U_DENSITY": not to_grid, "V_DENSITY": to_grid}
        yield "gradient", gradient, {**sides, **blocks}, {"num_warps": GRADIENT_WARPS}
    for width in (16, SEGMENT_CHANNELS):
        cells: Constants = {"KERNEL": RBF, "BLOCK_CELLS": SEGMENT_CELLS, "BLOCK_CHANNELS": width}
        yield "scatter_sorted", scatter_sorted, {**cells, "BLOCK_POINTS": SEGMENT_POINTS}, {"num_warps": SEGMENT_WARPS}


def _narrow_configurations(dim: int, channels: int) -> _Configurations:
    forward, backward = convolve_plan(dim, channels), pull_plan(dim, channels)
    for plan, density in ((forward, False), (backward, True)):
        yield "pack", pack, pack_constants(plan, channels, density, density), {"num_warps": ROW_WARPS}
    for isotropic in (True, False):
        for packed in (True, False) if forward.dense else (True,):
            constants = convolve_constants(1, forward, channels, packed, RBF, isotropic, True, True)
            yield "convolve", convolve, constants, {"num_warps": forward.warps}
        for packed in (True, False) if backward.dense else (True,):
            for own_is_target in (True, False):
                sides = isotropic, own_is_target, not own_is_target
                constants = pull_constants(1, backward, channels, packed, packed, RBF, *sides)
                yield "pull", pull, constants, pull_options(backward, not own_is_target)


def _wide_configurations(dim: int, channels: int) -> _Configurations:
    for precision in ("half", "tf32", "tf32x3"):
        for isotropic in (True, False):
            for density in (True, False):
                constants = convolve_wide_constants(1, dim, channels, RBF, isotropic, density, True, precision)
                yield "convolve_wide", convolve_wide, constants, CONVOLVE_OPTIONS
            for own_is_target in (True, False):
                sides = isotropic, own_is_target
                yield (
                    "pull_wide",
                    pull_wide,
                    pull_wide_constants(1, dim, channels, RBF, *sides, True, precision),
                    PULL_OPTIONS,
                )
