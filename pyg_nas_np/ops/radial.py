r"""The radial kernels of the set convolutions, and the window that truncates them.

All are functions of the scaled distance :math:`r = \lVert (x - x') / \ell \rVert` with :math:`k(0) = 1`:

========  =====================================================  ===============================
name      :math:`k(r)`                                           :math:`q(r) = -k'(r) / r`
========  =====================================================  ===============================
rbf       :math:`e^{-r^2/2}`                                     :math:`e^{-r^2/2}`
matern32  :math:`(1 + u) e^{-u}`, :math:`u = \sqrt 3 r`          :math:`3 e^{-u}`
matern52  :math:`(1 + u + u^2/3) e^{-u}`, :math:`u = \sqrt 5 r`  :math:`\tfrac53 (1 + u) e^{-u}`
========  =====================================================  ===============================

The gradient of :math:`k` with respect to the scaled difference is :math:`-q` times that difference: no kernel has a
singularity at coincident points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

KERNELS = ("rbf", "matern32", "matern52")

# u = sqrt(_RATE[kernel]) * r, and for the Matérn family k decays as exp(-u).
_RATE = {"rbf": 1.0, "matern32": 3.0, "matern52": 5.0}


def radial(square: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    r"""Evaluates a kernel and its gradient factor at squared scaled distances.

    Args:
        square: :math:`r^2 \ge 0`, any shape.
        kernel: One of ``"rbf"``, ``"matern32"``, ``"matern52"``.

    Returns:
        :math:`k(r)` and :math:`q(r) = -k'(r)/r`, each of the shape of :obj:`square`.

    Example:
        >>> k, q = radial(torch.tensor([0.0, 4.0]), "rbf")
        >>> k
        tensor([1.0000, 0.1353])
    """
    if kernel == "rbf":
        k = torch.exp(-0.5 * square)
        return k, k
    # The clamp keeps the derivative of the root finite at coincident points, where it is multiplied by zero.
    u = torch.sqrt((_RATE[kernel] * square).clamp_min(torch.finfo(square.dtype).tiny))
    decay = torch.exp(-u)
    if kernel == "matern32":
        return (1 + u) * decay, 3 * decay
    return (1 + u + u * u / 3) * decay, (5 / 3) * (1 + u) * decay


def radial_at(r: float, kernel: str) -> float:
    r"""Evaluates a kernel at one scaled distance.

    Example:
        >>> round(radial_at(4.0, "rbf"), 6)
        0.000335
    """
    if kernel == "rbf":
        return math.exp(-0.5 * r * r)
    u = math.sqrt(_RATE[kernel]) * r
    return (1 + u + (u * u / 3 if kernel == "matern52" else 0.0)) * math.exp(-u)


def radius_for(error: float, kernel: str = "rbf") -> float:
    r"""Returns the scaled distance beyond which a kernel is at most :obj:`error`.

    Raises:
        ValueError: If :obj:`error` is not in (0, 1), or the kernel is unknown.

    Example:
        >>> round(radius_for(1e-8), 2)  # sqrt(-2 ln 1e-8)
        6.07
    """
    check_kernel(kernel)
    if not 0 < error < 1:
        raise ValueError(f"'error' must be a weight between 0 and 1 but is {error}.")
    if kernel == "rbf":
        return math.sqrt(-2 * math.log(error))
    low, high = 0.0, 1.0
    while radial_at(high, kernel) > error:
        high *= 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if radial_at(middle, kernel) > error else (low, middle)
    return high


def window_for(
    lengthscale: float | Sequence[float] | Tensor,
    spacing: float | Sequence[float],
    error: float = 1e-4,
    kernel: str = "rbf",
) -> tuple[int, ...]:
    r"""Returns the smallest window, in cells per axis, that drops no weight above :obj:`error`.

    A window of :math:`w` cells around a point keeps every cell closer than :math:`w/2` spacings, so the largest dropped
    weight is :math:`k(w \Delta / 2\ell)`. The error of a density is at most the number of dropped points times
    :obj:`error`. For normalised signals choose :obj:`error` at most :obj:`eps`, so that dense and truncated convolution
    agree far from the data too.

    Args:
        lengthscale: One length scale, or one per axis.
        spacing: Distance of neighbouring cells, one or one per axis.
        error: Largest weight that may be dropped, in (0, 1).
        kernel: One of ``"rbf"``, ``"matern32"``, ``"matern52"``.

    Returns:
        One window per axis; one entry if both arguments are scalars.

    Raises:
        ValueError: If a length scale or a spacing is not positive and finite, or :obj:`error` is not in (0, 1).

    Example:
        >>> window_for(0.1, 0.05, error=1e-4)
        (18,)
    """
    scales = _floats(lengthscale, "lengthscale")
    steps = _floats(spacing, "spacing")
    dim = max(len(scales), len(steps))
    if len(scales) not in (1, dim) or len(steps) not in (1, dim):
        raise ValueError(f"'lengthscale' has {len(scales)} entries and 'spacing' has {len(steps)}: one per axis each.")
    radius = radius_for(error, kernel)
    pairs = zip(scales * (dim // len(scales)), steps * (dim // len(steps)), strict=True)
    return tuple(max(1, math.ceil(2 * radius * scale / step)) for scale, step in pairs)


def check_kernel(kernel: str) -> None:
    r"""Raises :class:`ValueError` if a kernel does not exist."""
    if kernel not in KERNELS:
        raise ValueError(f"'kernel' must be one of {', '.join(KERNELS)} but is {kernel!r}.")


def _floats(value: float | Sequence[float] | Tensor, name: str) -> list[float]:
    device = value.device if isinstance(value, Tensor) else "cpu"
    values = torch.as_tensor(value, dtype=torch.float64, device=device).detach().flatten().tolist()
    if not values or not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"'{name}' must be positive and finite but is {values}.")
    return values
