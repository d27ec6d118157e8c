r"""The set convolutions in plain PyTorch: any device, any floating type, any order of differentiation.

This is the reference of the tests and the fallback of the compiled back ends. It is dense within a set and loops over
sets; chunks of targets bound its memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.ops.radial import radial

# Largest number of weights in memory, which bounds the memory for 10^6 sources.
_CHUNK = 1 << 24


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    r"""Returns the type in which sums over inputs of :obj:`dtype` are formed: at least float32."""
    return dtype if dtype == torch.float64 else torch.float32


# ---------------------------------------------------------------------------------------------------------------------
# Off the grid: ragged sets of sources and targets.
# ---------------------------------------------------------------------------------------------------------------------


def set_conv(
    x_src: Tensor,  # shape: [N, H, D]
    y_src: Tensor,  # shape: [N, H, C]
    x_dst: Tensor,  # shape: [M, H, D]
    lengthscale: Tensor,  # shape: [H, D]
    ptr_src: Tensor,  # shape: [B + 1]
    ptr_dst: Tensor,  # shape: [B + 1]
    kernel: str,
    normalize: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    r"""Returns the density [M, H] and the signal [M, H, C] of :func:`pyg_nas_np.ops.set_conv`."""
    dtype = accumulation_dtype(y_src.dtype)
    densities, signals = [], []
    for sources, targets in _chunks(ptr_src, ptr_dst, x_src.size(1)):
        weight, _ = radial(_squares(x_src[sources], x_dst[targets], lengthscale, dtype), kernel)
        density = weight.sum(dim=1)
        signal = torch.einsum("mnh,nhc->mhc", weight, y_src[sources].to(dtype))
        densities.append(density)
        signals.append(signal / (density + eps).unsqueeze(-1) if normalize else signal)
    num_targets, heads, channels = x_dst.size(0), x_dst.size(1), y_src.size(2)
    density = torch.cat([x_dst.new_zeros(0, heads, dtype=dtype), *densities])
    signal = torch.cat([x_dst.new_zeros(0, heads, channels, dtype=dtype), *signals])
    assert density.size(0) == num_targets
    return density.to(y_src.dtype), signal.to(y_src.dtype)


def set_conv_backward(
    grad_density: Tensor,  # shape: [M, H]
    grad_signal: Tensor,  # shape: [M, H, C]
    density: Tensor,  # shape: [M, H]
    signal: Tensor,  # shape: [M, H, C]
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Returns the gradients of :func:`set_conv` with respect to ``x_src``, ``y_src``, ``x_dst``, ``lengthscale``.

    Explicit rather than by autograd, so that it can be differentiated again at coincident points.
    """
    dtype = accumulation_dtype(y_src.dtype)
    scale = lengthscale.to(dtype)
    grads_src, grads_y, grads_dst = [], [], []
    grad_scale = torch.zeros_like(scale)
    density, signal = density.to(dtype), signal.to(dtype)
    grad_density, grad_signal = grad_density.to(dtype), grad_signal.to(dtype)
    if normalize:
        total = density + eps
        grad_signal = grad_signal / total.unsqueeze(-1)
        grad_density = grad_density - (grad_signal * signal).sum(-1)
    pieces: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for sources, targets in _chunks(ptr_src, ptr_dst, x_src.size(1)):
        a, b = x_src[sources].to(dtype), x_dst[targets].to(dtype)
        y, g = y_src[sources].to(dtype), grad_signal[targets]
        weight, factor = radial(_squares(a, b, scale, dtype), kernel)
        pull = factor * (torch.einsum("mhc,nhc->mnh", g, y) + grad_density[targets].unsqueeze(1))
        dst, src = [], []
        for d in range(a.size(-1)):
            delta = b[:, None, :, d] - a[None, :, :, d]  # [m, n, H]
            force = pull * delta / scale[:, d] ** 2
            dst.append(-force.sum(dim=1))
            src.append(force.sum(dim=0))
            grad_scale = grad_scale + _column((force * delta).sum(dim=(0, 1)) / scale[:, d], d, scale.size(1))
        grads_dst.append(torch.stack(dst, dim=-1))
        grad_y = torch.einsum("mnh,mhc->nhc", weight, g)
        pieces.setdefault((sources.start, sources.stop), []).append((torch.stack(src, dim=-1), grad_y))
    for parts in pieces.values():
        grads_src.append(torch.stack([part[0] for part in parts]).sum(0))
        grads_y.append(torch.stack([part[1] for part in parts]).sum(0))
    # Every source belongs to one set, and sets are in order; sets without targets contribute zeros through _chunks.
    return (
        torch.cat([x_src.new_zeros(0, *x_src.shape[1:], dtype=dtype), *grads_src]).to(x_src.dtype),
        torch.cat([y_src.new_zeros(0, *y_src.shape[1:], dtype=dtype), *grads_y]).to(y_src.dtype),
        torch.cat([x_dst.new_zeros(0, *x_dst.shape[1:], dtype=dtype), *grads_dst]).to(x_dst.dtype),
        grad_scale.to(lengthscale.dtype),
    )


def _chunks(ptr_src: Tensor, ptr_dst: Tensor, heads: int) -> Iterator[tuple[slice, slice]]:
    src, dst = ptr_src.tolist(), ptr_dst.tolist()
    for (i0, i1), (j0, j1) in zip(itertools.pairwise(src), itertools.pairwise(dst), strict=True):
        step = max(1, _CHUNK // max(1, (i1 - i0) * heads))
        for start in range(j0, max(j1, j0 + 1), step):
            yield slice(i0, i1), slice(start, min(start + step, j1))


def _squares(a: Tensor, b: Tensor, lengthscale: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Returns squared scaled distances [m, n, H] of targets :obj:`b` and sources :obj:`a`."""
    total = torch.zeros(b.size(0), a.size(0), a.size(1), dtype=dtype, device=a.device)
    for d in range(a.size(-1)):
        # Subtract before scaling: the difference of near points is exact, whatever their offset.
        delta = b[:, None, :, d].to(dtype) - a[None, :, :, d].to(dtype)
        total = total + (delta / lengthscale[:, d].to(dtype)) ** 2
    return total


def _column(values: Tensor, index: int, width: int) -> Tensor:
    return torch.nn.functional.pad(values.unsqueeze(-1), (index, width - index - 1))


# ---------------------------------------------------------------------------------------------------------------------
# On a uniform grid, with a truncated window.
# ---------------------------------------------------------------------------------------------------------------------


class _Offset(NamedTuple):
    r"""All points against the cell at one fixed place of their windows."""

    cell: Tensor  # flat index of the cell, 0 where outside; shape [N]
    inside: Tensor  # shape [N]
    delta: Tensor  # scaled difference of point and cell; shape [N, D]


def _offsets(
    x: Tensor,  # shape: [N, D]
    lengthscale: Tensor,  # shape: [D]
    ptr: Tensor,  # shape: [B + 1]
    origin: Tensor,  # shape: [B, D]
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype,
) -> Iterator[_Offset]:
    numbers = torch.arange(ptr.numel() - 1, dtype=torch.int64, device=ptr.device)
    batch = torch.repeat_interleave(numbers, ptr.diff(), output_size=x.size(0))
    # Positions in cells are computed in double precision, because float32 would lose the position inside the cell on a
    # long grid.
    step = torch.tensor(spacing, dtype=torch.float64, device=x.device)
    position = (x.double() - origin.double()[batch]) / step
    width = torch.tensor(window, dtype=torch.float64, device=x.device)
    first = torch.ceil(position.detach() - width / 2)
    scale = (step / lengthscale.double()).to(torch.float64)
    sizes = torch.tensor(shape, dtype=torch.int64, device=x.device)
    for place in itertools.product(*(range(w) for w in window)):
        index = first + torch.tensor(place, dtype=torch.float64, device=x.device)
        inside = ((index >= 0) & (index < sizes)).all(dim=-1)
        cell = torch.where(inside, batch, 0)
        for d, size in enumerate(shape):
            cell = cell * size + torch.where(inside, index[:, d], 0.0).long()
        delta = torch.where(inside.unsqueeze(-1), (position - index) * scale, 0.0)
        yield _Offset(cell, inside, delta.to(dtype))


def set_conv_to_grid(
    x: Tensor,  # shape: [N, D]
    y: Tensor,  # shape: [N, C]
    lengthscale: Tensor,  # shape: [D]
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Returns density ``[B, *shape]`` and signal ``[B, *shape, C]`` of :func:`pyg_nas_np.ops.set_conv_to_grid`."""
    dtype = accumulation_dtype(y.dtype)
    sets = ptr.numel() - 1
    cells = sets
    for size in shape:
        cells *= size
    density = torch.zeros(cells, dtype=dtype, device=x.device)
    zero = density.new_zeros(())
    signal = torch.zeros(cells, y.size(1), dtype=dtype, device=x.device)
    if cells > 0:
        values = y.to(dtype)
        for offset in _offsets(x, lengthscale, ptr, origin, spacing, shape, window, dtype):
            weight = radial(offset.delta.square().sum(-1), kernel)[0].where(offset.inside, zero)
            density = density.index_add(0, offset.cell, weight)
            signal = signal.index_add(0, offset.cell, weight.unsqueeze(-1) * values)
    return density.view(sets, *shape).to(y.dtype), signal.view(sets, *shape, -1 if cells else y.size(1)).to(y.dtype)


def set_conv_from_grid(
    y: Tensor,  # shape: [B, *shape, C]
    x: Tensor,  # shape: [N, D]
    lengthscale: Tensor,  # shape: [D]
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Returns the density [N] and the signal [N, C] of :func:`pyg_nas_np.ops.set_conv_from_grid`."""
    dtype = accumulation_dtype(y.dtype)
    density = torch.zeros(x.size(0), dtype=dtype, device=x.device)
    zero = density.new_zeros(())
    signal = torch.zeros(x.size(0), y.size(-1), dtype=dtype, device=x.device)
    shape = y.shape[1:-1]
    if shape.numel() > 0 and y.size(0) > 0:
        values = y.reshape(-1, y.size(-1)).to(dtype)
        for offset in _offsets(x, lengthscale, ptr, origin, spacing, shape, window, dtype):
            weight = radial(offset.delta.square().sum(-1), kernel)[0].where(offset.inside, zero)
            density = density + weight
            signal = signal + weight.unsqueeze(-1) * values[offset.cell]
    return density.to(y.dtype), signal.to(y.dtype)


def grid_gradient(
    u: Tensor,  # shape: [N, C]
    u_density: Tensor | None,  # shape: [N]
    v: Tensor,  # shape: [B, *shape, C]
    v_density: Tensor | None,  # shape: [B, *shape]
    x: Tensor,  # shape: [N, D]
    lengthscale: Tensor,  # shape: [D]
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients with respect to ``x`` [N, D] and ``lengthscale`` [D] of the pairing

    .. math:: \sum_{n, g} k(x_n, x_g) \, (u_n \cdot v_g + \tilde u_n + \tilde v_g)

    over all points and the cells of their windows. It gives the gradients of both directions: to the grid, ``v`` is the
    incoming gradient and ``u`` the values of the points; from the grid, the roles are exchanged.
    """
    dtype = accumulation_dtype(u.dtype)
    scale = lengthscale.to(dtype)
    total = torch.zeros(x.shape, dtype=dtype, device=x.device)
    square = torch.zeros(x.shape, dtype=dtype, device=x.device)
    zero = total.new_zeros(())
    shape = v.shape[1:-1]
    if shape.numel() > 0 and v.size(0) > 0:
        cells, points = v.reshape(-1, v.size(-1)).to(dtype), u.to(dtype)
        for offset in _offsets(x, lengthscale, ptr, origin, spacing, shape, window, dtype):
            factor = radial(offset.delta.square().sum(-1), kernel)[1].where(offset.inside, zero)
            dot = (points * cells[offset.cell]).sum(-1)
            if u_density is not None:
                dot = dot + u_density.to(dtype)
            if v_density is not None:
                dot = dot + v_density.reshape(-1).to(dtype)[offset.cell]
            force = (factor * dot).unsqueeze(-1) * offset.delta
            total = total - force
            square = square + force * offset.delta
    return (total / scale).to(x.dtype), (square.sum(0) / scale).to(lengthscale.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Trees: all rows go down all trees, step by step.
# ---------------------------------------------------------------------------------------------------------------------


def tree_sum(
    x: Tensor,  # shape: [B, F]
    threshold: Tensor,  # shape: [N]
    feature: Tensor,  # shape: [N]
    child: Tensor,  # shape: [N]
    value: Tensor,  # shape: [N]
    root: Tensor,  # shape: [T]
    depth: Tensor,  # shape: [T]
) -> Tensor:
    r"""Returns the sum of the leaves [B] of :func:`pyg_nas_np.ops.trees.tree_sum`."""
    steps = int(depth.max())
    totals = []
    for rows in x.split(max(1, _CHUNK // root.numel())):
        at = root.long().expand(len(rows), -1)
        for _ in range(steps):
            above = rows.gather(1, feature[at].long()) > threshold[at]
            at = child[at].long() + above
        totals.append(value[at].sum(dim=1))
    return torch.cat([value.new_zeros(0), *totals])
