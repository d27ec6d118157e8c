r"""Set convolution onto and from uniform grids with a truncated window: public functions and registration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.ops import cpu, cuda, reference
from pyg_nas_np.ops.backends import active_backend, checks_values, resolve
from pyg_nas_np.ops.checks import check_floating, check_kernel_width, check_ptr, check_values, per_axis
from pyg_nas_np.ops.radial import check_kernel, radial_at
from pyg_nas_np.ops.registration import register, register_autocast
from pyg_nas_np.ops.set_conv import as_lengthscale

# torch._check carries no types.
_check: Callable[[bool], None] = torch._check

_IMPLEMENTATIONS: dict[str, Any] = {"reference": reference, "cpu": cpu, "cuda": cuda}

MAX_GRID_DIM = 3


def set_conv_to_grid(
    x: Tensor,
    y: Tensor,
    lengthscale: Tensor | float,
    ptr: Tensor,
    origin: Tensor,
    spacing: float | Sequence[float],
    shape: Sequence[int],
    window: int | Sequence[int],
    *,
    kernel: str = "rbf",
    normalize: bool = False,
    eps: float = 1e-8,
    tolerance: float | None = 1e-2,
) -> tuple[Tensor, Tensor]:
    r"""Convolves sets of points with a kernel and evaluates the result on one uniform grid per set.

    The cell with index :math:`g` lies at :math:`\mathrm{origin} + g \Delta`. As :func:`pyg_nas_np.ops.set_conv`, but
    each point reaches only the :math:`w` cells per axis around it, which include every cell closer than
    :math:`w \Delta / 2`: time :math:`O(N w^D C)`, no tensor of pairs. Take the window from
    :func:`pyg_nas_np.ops.window_for`; its edge is treated as constant by the gradients, which flow to ``x``, ``y`` and
    ``lengthscale``. The adjoint (transpose) of :obj:`y` to signal is :func:`set_conv_from_grid`.

    On the CPU the sums have a fixed order. On a CUDA device they are atomic for small windows and few points, otherwise
    sorted with a fixed order. With :func:`torch.use_deterministic_algorithms` they are always sorted.

    Args:
        x: Locations of the points, ``[N, D]`` with ``1 <= D <= 3``.
        y: Values of the points, ``[N, C]``.
        lengthscale: :math:`\ell`, a number or ``[D]``.
        ptr: Offsets of the sets in the points, ``[B + 1]``, int64.
        origin: Location of cell 0, ``[D]`` for all sets or ``[B, D]``; no gradient.
        spacing: :math:`\Delta`, distance of neighbouring cells, a number or one per axis.
        shape: Number of cells per axis.
        window: :math:`w`, cells per axis that a point reaches, a number or one per axis.
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        normalize: Whether to divide the signal by the density. (default: :obj:`False`)
        eps: Added to the density before the division; positive. (default: :obj:`1e-8`)
        tolerance: Largest weight that the window may drop; a smaller window raises an error. :obj:`None` allows any.
            (default: :obj:`1e-2`)

    Returns:
        The density ``[B, *shape]`` and the signal ``[B, *shape, C]`` (channels last).

    Raises:
        TypeError: If an argument is not a tensor or has the wrong type.
        ValueError: If shapes or devices do not fit, ``ptr`` is not sorted, a length scale is not positive, or the
            window drops weights above :obj:`tolerance`.

    Example:
        >>> x, y = torch.tensor([[0.1]]), torch.tensor([[2.0]])
        >>> density, signal = set_conv_to_grid(x, y, 0.1, torch.tensor([0, 1]), torch.zeros(1), 0.1, [4], window=8)
        >>> density
        tensor([[0.6065, 1.0000, 0.6065, 0.1353]])
        >>> signal.squeeze(-1)
        tensor([[1.2131, 2.0000, 1.2131, 0.2707]])
    """
    check_floating(x=x, y=y)
    if x.dim() != 2:
        raise ValueError(f"'x' must have shape [N, D] but has shape {list(x.shape)}.")
    dim = x.size(1)
    check_kernel_width(dim, "x", 1, MAX_GRID_DIM)
    if y.dim() != 2 or y.size(0) != x.size(0):
        raise ValueError(f"'y' must have shape [{x.size(0)}, C] but has shape {list(y.shape)}.")
    if len(shape) != dim or any(size < 0 for size in shape):
        raise ValueError(f"'shape' must have {dim} non-negative entries but is {list(shape)}.")
    scale, origin, steps, windows = _grid_arguments(x, lengthscale, ptr, origin, spacing, window, kernel)
    if normalize and not eps > 0:
        raise ValueError(f"'eps' must be positive but is {eps}: the density of an empty set is 0.")
    density, signal = _operator_to_grid(
        x, y, scale, ptr, origin, steps, list(shape), windows, kernel, _limit(tolerance), active_backend()
    )
    return density, signal / (density + eps).unsqueeze(-1) if normalize else signal


def set_conv_from_grid(
    y: Tensor,
    x: Tensor,
    lengthscale: Tensor | float,
    ptr: Tensor,
    origin: Tensor,
    spacing: float | Sequence[float],
    window: int | Sequence[int],
    *,
    kernel: str = "rbf",
    normalize: bool = False,
    eps: float = 1e-8,
    tolerance: float | None = 1e-2,
) -> tuple[Tensor, Tensor]:
    r"""Convolves values on one uniform grid per set and evaluates the result at the points of the same sets.

    The adjoint of :func:`set_conv_to_grid`, with the same arguments. The density is the sum of the weights of the cells
    in the window; dividing by it gives a smooth interpolation.

    Args:
        y: Values on the grids, ``[B, *shape, C]`` (channels last).
        x: Locations of the points, ``[N, D]`` with ``1 <= D <= 3``.
        lengthscale: :math:`\ell`, a number or ``[D]``.
        ptr: Offsets of the sets in the points, ``[B + 1]``, int64.
        origin: Location of cell 0, ``[D]`` for all sets or ``[B, D]``; no gradient.
        spacing: Distance of neighbouring cells, a number or one per axis.
        window: Cells per axis that a point sees, a number or one per axis.
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        normalize: Whether to divide the signal by the density. (default: :obj:`False`)
        eps: Added to the density before the division; positive. (default: :obj:`1e-8`)
        tolerance: Largest weight that the window may drop, or :obj:`None`. (default: :obj:`1e-2`)

    Returns:
        The density ``[N]`` and the signal ``[N, C]``.

    Raises:
        TypeError: If an argument is not a tensor or has the wrong type.
        ValueError: As in :func:`set_conv_to_grid`.

    Example:
        >>> y = torch.ones(1, 5, 1)
        >>> density, signal = set_conv_from_grid(
        ...     y, torch.tensor([[0.2]]), 0.1, torch.tensor([0, 1]), torch.zeros(1), 0.1, window=8, normalize=True
        ... )
        >>> signal
        tensor([[1.]])
    """
    check_floating(y=y, x=x)
    if x.dim() != 2:
        raise ValueError(f"'x' must have shape [N, D] but has shape {list(x.shape)}.")
    dim = x.size(1)
    check_kernel_width(dim, "x", 1, MAX_GRID_DIM)
    if y.dim() != dim + 2:
        raise ValueError(f"'y' must have shape [B, *shape, C] with {dim} axes but has shape {list(y.shape)}.")
    scale, origin, steps, windows = _grid_arguments(x, lengthscale, ptr, origin, spacing, window, kernel)
    if y.size(0) != ptr.numel() - 1:
        raise ValueError(f"'y' holds {y.size(0)} grids but 'ptr' describes {ptr.numel() - 1} sets.")
    if normalize and not eps > 0:
        raise ValueError(f"'eps' must be positive but is {eps}: the density of a point off the grid is 0.")
    density, signal = _operator_from_grid(
        y, x, scale, ptr, origin, steps, windows, kernel, _limit(tolerance), active_backend()
    )
    return density, signal / (density + eps).unsqueeze(-1) if normalize else signal


def _grid_arguments(
    x: Tensor,
    lengthscale: Tensor | float,
    ptr: Tensor,
    origin: Tensor,
    spacing: float | Sequence[float],
    window: int | Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor, list[float], list[int]]:
    dim = x.size(1)
    check_kernel(kernel)
    check_ptr(ptr, "ptr", x.device)
    scale = as_lengthscale(lengthscale, x)
    if scale.dim() > 1 or (scale.dim() == 1 and scale.size(0) not in (1, dim)):
        raise ValueError(f"'lengthscale' must be a number or have shape [{dim}] but has shape {list(scale.shape)}.")
    if not isinstance(origin, Tensor) or not origin.is_floating_point():
        raise TypeError(f"'origin' must be a floating tensor but is {getattr(origin, 'dtype', type(origin).__name__)}.")
    if origin.device != x.device:
        raise ValueError(f"'origin' is on {origin.device} but 'x' is on {x.device}: move one of them.")
    sets = ptr.numel() - 1
    if origin.shape not in ((dim,), (sets, dim)):
        raise ValueError(f"'origin' must have shape [{dim}] or [{sets}, {dim}] but has shape {list(origin.shape)}.")
    steps = per_axis(spacing, dim, "spacing")
    if not all(step > 0 and math.isfinite(step) for step in steps):
        raise ValueError(f"'spacing' must be positive and finite but is {steps}.")
    windows = [int(w) for w in per_axis(window, dim, "window")]
    if any(w < 1 for w in windows):
        raise ValueError(f"'window' must be at least one cell per axis but is {windows}.")
    return scale.expand(dim), origin.detach().expand(sets, dim), steps, windows


def _limit(tolerance: float | None) -> float:
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"'tolerance' must be positive or None but is {tolerance}.")
    return math.inf if tolerance is None else float(tolerance)


def _check_values(
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
    tolerance: float,
) -> None:
    if not checks_values(x.device):
        return
    scales = check_values(lengthscale, ptr=(ptr, x.size(0)))
    for axis, (scale, step, size, width) in enumerate(zip(scales, spacing, shape, window, strict=True)):
        dropped = radial_at(0.5 * width * step / scale, kernel)
        # A window of twice the grid reaches every cell from every point on the grid, so it drops nothing.
        if dropped > tolerance and width < 2 * size:
            raise ValueError(
                f"'window' = {width} on axis {axis} drops weights of up to {dropped:.2g} > tolerance = {tolerance:g} "
                f"(lengthscale {scale:g}, spacing {step:g}): take window_for(lengthscale, spacing, error) or allow it "
                f"with tolerance=None."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Registration. The operators see x [N, D], lengthscale [D], origin [B, D] and lists of one entry per axis.
# ---------------------------------------------------------------------------------------------------------------------


def _to_grid(
    x: Tensor,
    y: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
    tolerance: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    _check_values(x, lengthscale, ptr, spacing, shape, window, kernel, tolerance)
    module = _IMPLEMENTATIONS[resolve(backend, x.device)]
    outputs: tuple[Tensor, Tensor] = module.set_conv_to_grid(
        x, y, lengthscale, ptr, origin, spacing, shape, window, kernel
    )
    return outputs


def _fake_to_grid(
    x: Tensor,
    y: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
    tolerance: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    _check(x.size(0) == y.size(0))
    sets = ptr.size(0) - 1
    return y.new_empty(sets, *shape), y.new_empty(sets, *shape, y.size(1))


def _from_grid(
    y: Tensor,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
    tolerance: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    _check_values(x, lengthscale, ptr, spacing, y.shape[1:-1], window, kernel, tolerance)
    module = _IMPLEMENTATIONS[resolve(backend, x.device)]
    outputs: tuple[Tensor, Tensor] = module.set_conv_from_grid(y, x, lengthscale, ptr, origin, spacing, window, kernel)
    return outputs


def _fake_from_grid(
    y: Tensor,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
    tolerance: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return y.new_empty(x.size(0)), y.new_empty(x.size(0), y.size(-1))


def _gradient(
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
    backend: str,
) -> tuple[Tensor, Tensor]:
    module = _IMPLEMENTATIONS[resolve(backend, x.device)]
    grads: tuple[Tensor, Tensor] = module.grid_gradient(
        u, u_density, v, v_density, x, lengthscale, ptr, origin, spacing, window, kernel
    )
    return grads


def _fake_gradient(
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
    backend: str,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(lengthscale)


def _setup_to_grid(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, lengthscale, ptr, origin, spacing, _, window, kernel, _, backend = inputs
    ctx.save_for_backward(x, y, lengthscale, ptr, origin)
    ctx.options = (spacing, window, kernel, backend)


def _backward_to_grid(ctx: Any, grad_density: Tensor, grad_signal: Tensor) -> tuple[Tensor | None, ...]:
    x, y, lengthscale, ptr, origin = ctx.saved_tensors
    spacing, window, kernel, backend = ctx.options
    need_x, need_y, need_scale = ctx.needs_input_grad[:3]
    grad_x = grad_y = grad_scale = None
    grid = (x, lengthscale, ptr, origin, spacing, window, kernel)
    if need_y:
        _, grad_y = _operator_from_grid(grad_signal, *grid, math.inf, backend)
    if need_x or need_scale:
        grad_x, grad_scale = _operator_gradient(y, None, grad_signal, grad_density, *grid, backend)
    return grad_x if need_x else None, grad_y, grad_scale if need_scale else None, *[None] * 8


def _setup_from_grid(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    y, x, lengthscale, ptr, origin, spacing, window, kernel, _, backend = inputs
    ctx.save_for_backward(y, x, lengthscale, ptr, origin)
    ctx.options = (spacing, window, kernel, backend)


def _backward_from_grid(ctx: Any, grad_density: Tensor, grad_signal: Tensor) -> tuple[Tensor | None, ...]:
    y, x, lengthscale, ptr, origin = ctx.saved_tensors
    spacing, window, kernel, backend = ctx.options
    need_y, need_x, need_scale = ctx.needs_input_grad[:3]
    grad_y = grad_x = grad_scale = None
    if need_y:
        _, grad_y = _operator_to_grid(
            x, grad_signal, lengthscale, ptr, origin, spacing, y.shape[1:-1], window, kernel, math.inf, backend
        )
    if need_x or need_scale:
        grad_x, grad_scale = _operator_gradient(
            grad_signal,
            grad_density,
            y,
            None,
            x,
            lengthscale,
            ptr,
            origin,
            spacing,
            window,
            kernel,
            backend,
        )
    return grad_y, grad_x if need_x else None, grad_scale if need_scale else None, *[None] * 7


def _setup_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.options = inputs[8:11]


def _backward_gradient(ctx: Any, grad_x: Tensor, grad_scale: Tensor) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        saved = ctx.saved_tensors
        inputs = [t if t is None else t.detach().requires_grad_(i < 6) for i, t in enumerate(saved)]
        run: Callable[..., tuple[Tensor, Tensor]] = reference.grid_gradient
        out_x, out_scale = run(*inputs, *ctx.options)
        total = (out_x * grad_x).sum() + (out_scale * grad_scale).sum()
        wanted = [t for t in inputs[:6] if t is not None]
        result = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    return (*(None if t is None else next(result) for t in inputs[:6]), *[None] * 6)


_operator_to_grid = register("set_conv_to_grid", _to_grid, _fake_to_grid, _setup_to_grid, _backward_to_grid)
_operator_from_grid = register("set_conv_from_grid", _from_grid, _fake_from_grid, _setup_from_grid, _backward_from_grid)
_operator_gradient = register("set_conv_grid_gradient", _gradient, _fake_gradient, _setup_gradient, _backward_gradient)
register_autocast("set_conv_to_grid")
register_autocast("set_conv_from_grid")
