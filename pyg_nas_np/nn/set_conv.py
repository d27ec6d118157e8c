r"""Set convolutions as modules: between ragged sets, onto uniform grids and from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyg_nas_np.ops import set_conv, set_conv_from_grid, set_conv_to_grid, window_for
from pyg_nas_np.ops.backends import checks_values
from pyg_nas_np.ops.checks import per_axis
from pyg_nas_np.ops.radial import check_kernel

Scales: TypeAlias = "float | Sequence[float] | Tensor"


class _SetConvBase(nn.Module):
    r"""Base of the three modules: the linear maps, the length scales and the layout of the channels.

    :obj:`scales` are the initial length scales, ``[H, 1]`` or ``[H, D]``, and :obj:`num_features` the number of
    convolved channels, densities included.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None,
        dim: int,
        scales: Tensor,
        num_features: int,
        *,
        hidden_channels: int | None,
        kernel: str,
        normalize: bool,
        density: bool,
        learnable: bool,
        min_lengthscale: float,
        eps: float,
        bias: bool,
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        if not eps > 0:
            raise ValueError(f"'eps' must be positive but is {eps}: the density of an empty set is 0.")
        if not min_lengthscale > 0 or not bool((scales > min_lengthscale).all()):
            raise ValueError(
                f"'min_lengthscale' must be positive and below the initial length scales but is {min_lengthscale:g} "
                f"and the smallest of them is {float(scales.min()):g}."
            )
        self.in_channels, self.dim = in_channels, dim
        self.out_channels = num_features if out_channels is None else out_channels
        self.kernel, self.normalize, self.density = kernel, normalize, density
        self.learnable, self.min_lengthscale, self.eps = learnable, min_lengthscale, eps
        self.lin_in = None if hidden_channels is None else nn.Linear(in_channels, hidden_channels, bias)
        self.lin_out = None if out_channels is None else nn.Linear(num_features, out_channels, bias)
        self._initial = (scales - min_lengthscale).log()
        # As the weights of nn.Linear.
        raw = self._initial.to(torch.get_default_device(), torch.get_default_dtype())
        if learnable:
            self.raw_lengthscale = nn.Parameter(raw)
        else:
            self.register_buffer("raw_lengthscale", raw)
        self.reset_parameters()

    @property
    def lengthscale(self) -> Tensor:
        r"""The length scales, ``[H, 1]`` or ``[H, D]``: the lower bound plus the exponential of the parameter."""
        return self.min_lengthscale + self.raw_lengthscale.exp()

    def reset_parameters(self) -> None:
        r"""Draws new linear maps and restores the initial length scales."""
        for linear in (self.lin_in, self.lin_out):
            if linear is not None:
                linear.reset_parameters()
        with torch.no_grad():
            self.raw_lengthscale.copy_(self._initial)

    def _values(self, y: Tensor, name: str, axes: int = 2) -> Tensor:
        if y.dim() != axes or y.size(-1) != self.in_channels:
            raise ValueError(
                f"'{name}' must have {axes} axes, the last of in_channels = {self.in_channels}, but has shape "
                f"{list(y.shape)}."
            )
        return _apply(self.lin_in, y)

    def _features(self, density: Tensor, signal: Tensor) -> Tensor:
        return _apply(self.lin_out, torch.cat([density, signal], dim=-1) if self.density else signal)

    def _check_locations(self, x: Tensor, name: str, axes: tuple[int, ...] = (2,)) -> None:
        if x.dim() not in axes or x.size(-1) != self.dim:
            shapes = " or ".join(f"[N, {'H, ' if n == 3 else ''}{self.dim}]" for n in axes)
            raise ValueError(f"'{name}' must have shape {shapes} but has shape {list(x.shape)}.")

    def extra_repr(self) -> str:
        r"""Returns the arguments in ``repr``."""
        flags = "" if self.learnable else ", learnable=False"
        return f"{self.in_channels}, {self.out_channels}, dim={self.dim}, kernel={self.kernel!r}{flags}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class SetConv(_SetConvBase):
    r"""The set convolution of a ConvCNP (`Gordon et al., 2020 <https://arxiv.org/abs/1910.13556>`_) off the grid.

    For every target :math:`j`, over the sources :math:`i` of its set, with :math:`r_{ji} = \lVert (x_j - x_i) / \ell
    \rVert`,

    .. math::
        h^{(0)}_j = \sum_i k(r_{ji}), \qquad
        h_j = \frac{\sum_i k(r_{ji})\, v_i}{h^{(0)}_j + \varepsilon}, \qquad
        o_j = W_\mathrm{out} \big[ h^{(0)}_j, h_j \big] + b_\mathrm{out}, \qquad
        v_i = W_\mathrm{in} y_i + b_\mathrm{in} .

    The density :math:`h^{(0)}` comes first and is not divided. The kernel is :math:`e^{-r^2/2}` (``"rbf"``, note the
    half) or one of the Matérn family (:mod:`pyg_nas_np.ops.radial`). A target without sources gets density 0 and
    signal 0, hence the bias of the last map, or zeros without that map.

    **Length scales** are ``min_lengthscale + exp(raw_lengthscale)``: they are positive, and optimiser steps are
    relative, independent of the units of :obj:`x`. With several heads, a single number is spread geometrically from
    half to twice its value, because heads with equal initial values on shared inputs would stay equal.

    Args:
        in_channels: Channels of the sources' values.
        out_channels: Channels after the last linear map; :obj:`None` leaves it out and returns the convolved channels:
            first the densities, then the signals head by head. (default: :obj:`None`)
        dim: Dimensions ``D`` of the locations, 1 to 64. (default: :obj:`1`)
        lengthscale: Initial length scale in units of :obj:`x`: a number, ``[D]`` with :obj:`ard`, or one row per head,
            ``[H, 1]`` or ``[H, D]``. (default: :obj:`1.0`)
        heads: Number ``H`` of kernels. (default: :obj:`1`)
        ard: Whether every dimension has its own length scale. (default: :obj:`False`)
        per_channel: Whether the density and every channel have a kernel of their own, the signals still divided by the
            one density; excludes :obj:`heads` other than 1. (default: :obj:`False`)
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        hidden_channels: Channels after the first linear map, split among the heads; :obj:`None` leaves it out and gives
            all channels to every head. (default: :obj:`None`)
        density: Whether the output starts with the density of each head. (default: :obj:`True`)
        normalize: Whether to divide the signals by the density plus :obj:`eps`. (default: :obj:`True`)
        learnable: Whether the length scales are parameters rather than a buffer. (default: :obj:`True`)
        min_lengthscale: Lower bound :math:`\ell_\min` of every length scale; :obj:`None` for a hundredth of the
            smallest initial one. Not part of the ``state_dict``: set it explicitly if modules with different initial
            length scales exchange weights. (default: :obj:`None`)
        eps: :math:`\varepsilon`. (default: :obj:`1e-8`)
        bias: Whether the linear maps have a bias. (default: :obj:`True`)

    Shapes:
        - **x_src:** ``[N, D]``, or ``[N, H, D]`` with an embedding per head; **y_src:** ``[N, in_channels]``.
        - **x_dst:** ``[M, D]`` or ``[M, H, D]``.
        - **output:** ``[M, out_channels]``.

    Raises:
        ValueError: If an argument is out of range or shapes do not fit.

    Example:
        >>> conv = SetConv(3, 16, dim=2, lengthscale=0.5, heads=4, hidden_channels=8)
        >>> x_src, y_src, batch_src = torch.randn(7, 2), torch.randn(7, 3), torch.tensor([0, 0, 1, 1, 1, 0, 1])
        >>> x_dst, batch_dst = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 2])  # set 2 has no sources
        >>> conv(x_src, y_src, x_dst, batch_src, batch_dst).shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        dim: int = 1,
        *,
        lengthscale: Scales = 1.0,
        heads: int = 1,
        ard: bool = False,
        per_channel: bool = False,
        kernel: str = "rbf",
        hidden_channels: int | None = None,
        density: bool = True,
        normalize: bool = True,
        learnable: bool = True,
        min_lengthscale: float | None = None,
        eps: float = 1e-8,
        bias: bool = True,
    ) -> None:
        _check_counts(
            in_channels=in_channels, out_channels=out_channels, dim=dim, heads=heads, hidden_channels=hidden_channels
        )
        values = in_channels if hidden_channels is None else hidden_channels
        if per_channel and heads != 1:
            raise ValueError(
                f"'heads' must be 1 with per_channel=True but is {heads}: every channel is a head already."
            )
        if hidden_channels is not None and hidden_channels % heads:
            raise ValueError(f"'hidden_channels' = {hidden_channels} must be divisible by 'heads' = {heads}.")
        scales = _initial_scales(lengthscale, 1 + values if per_channel else heads, dim, ard)
        if heads > 1 and torch.as_tensor(lengthscale, device="cpu").dim() < 2:
            spread = torch.logspace(-1, 1, heads, base=2.0, dtype=scales.dtype, device=scales.device)
            scales = scales * spread.unsqueeze(1)
        signals = values if per_channel or hidden_channels is not None else heads * values
        super().__init__(
            in_channels,
            out_channels,
            dim,
            scales,
            signals + heads * density,
            hidden_channels=hidden_channels,
            kernel=kernel,
            normalize=normalize,
            density=density,
            learnable=learnable,
            min_lengthscale=1e-2 * float(scales.min()) if min_lengthscale is None else min_lengthscale,
            eps=eps,
            bias=bias,
        )
        self.heads, self.per_channel = heads, per_channel

    @classmethod
    def convcnp(cls, in_channels: int, out_channels: int | None, points_per_unit: float, dim: int = 1) -> SetConv:
        r"""The encoder of Gordon et al. 2020: RBF with ½, a length scale per channel, ε = 1e-8, a linear map.

        Args:
            in_channels: Channels of the values.
            out_channels: Channels after the linear map.
            points_per_unit: Resolution of the grid; every initial length scale is two of its spacings.
            dim: Dimensions of the locations. (default: :obj:`1`)

        Example:
            >>> SetConv.convcnp(1, 8, points_per_unit=64).lengthscale.shape  # density and one channel
            torch.Size([2, 1])
        """
        return cls(in_channels, out_channels, dim, lengthscale=2.0 / points_per_unit, per_channel=True)

    @classmethod
    def neuralprocesses(cls, in_channels: int, points_per_unit: float, dim: int = 1) -> SetConv:
        r"""The encoder of the package ``neuralprocesses``: RBF with ½, one length scale, ε = 1e-4, no linear map.

        Args:
            in_channels: Channels of the values.
            points_per_unit: Resolution of the grid; the initial length scale is one of its spacings.
            dim: Dimensions of the locations. (default: :obj:`1`)

        Example:
            >>> SetConv.neuralprocesses(2, points_per_unit=64)
            SetConv(2, 3, dim=1, kernel='rbf')
        """
        return cls(in_channels, None, dim, lengthscale=1.0 / points_per_unit, eps=1e-4)

    @classmethod
    def neural_process_family(cls, in_channels: int, sigma: float = 1.0, dim: int = 1) -> SetConv:
        r"""The layer of Neural-Process-Family: weights :math:`e^{-(d/\sigma)^2}` **without** ½, softmax over sources.

        The length scale is therefore :math:`\sigma / \sqrt 2`. The softmax becomes a division by density + ε with
        ε = 1e-30: equal if the density is representable, otherwise 0 rather than the nearest value.

        Args:
            in_channels: Channels of the values.
            sigma: Initial :math:`\sigma`; its lower bound is 1e-5. (default: :obj:`1.0`)
            dim: Dimensions of the locations. (default: :obj:`1`)

        Example:
            >>> conv = SetConv.neural_process_family(1, sigma=2.0)
            >>> conv(torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 2.0))  # density exp(-1)
            tensor([[0.3679, 1.0000]], grad_fn=<CatBackward0>)
        """
        half = 1.0 / math.sqrt(2.0)
        return cls(in_channels, None, dim, lengthscale=sigma * half, min_lengthscale=1e-5 * half, eps=1e-30)

    def forward(
        self,
        x_src: Tensor,
        y_src: Tensor,
        x_dst: Tensor,
        batch_src: Tensor | None = None,
        batch_dst: Tensor | None = None,
        *,
        ptr_src: Tensor | None = None,
        ptr_dst: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Returns the convolution at the targets, in their order.

        Args:
            x_src: Locations of the sources.
            y_src: Values of the sources.
            x_dst: Locations of the targets.
            batch_src: The set of each source, ``[N]``, in any order.
            batch_dst: The set of each target, ``[M]``, in any order.
            ptr_src: In place of :obj:`batch_src`: offsets of sorted sources, ``[B + 1]``.
            ptr_dst: In place of :obj:`batch_dst`: offsets of sorted targets, ``[B + 1]``.
            batch_size: Number ``B`` of sets. By default it is computed from the batch vectors, which synchronises with
                a CUDA device.
        """
        self._check_locations(x_src, "x_src", (2, 3))
        self._check_locations(x_dst, "x_dst", (2, 3))
        batch_size = _count_sets((batch_src, batch_dst), (ptr_src, ptr_dst), batch_size)
        order_src, ptr_src = _to_ptr(batch_src, ptr_src, x_src, batch_size, "src")
        order_dst, ptr_dst = _to_ptr(batch_dst, ptr_dst, x_dst, batch_size, "dst")
        values = self._values(y_src, "y_src")
        _check_rows(y_src, "y_src", x_src)
        if self.per_channel:
            values = torch.cat([torch.ones_like(values[:, :1]), values], dim=1).unsqueeze(-1)
        elif self.lin_in is not None:
            values = values.view(-1, self.heads, values.size(-1) // self.heads)
        if order_src is not None:
            x_src, values = x_src[order_src], values[order_src]
        if order_dst is not None:
            x_dst = x_dst[order_dst]
        density, signal = set_conv(
            x_src,
            values,
            x_dst,
            self.lengthscale,
            ptr_src,
            ptr_dst,
            kernel=self.kernel,
            normalize=self.normalize and not self.per_channel,
            eps=self.eps,
        )
        signal = signal.flatten(1)
        if self.per_channel:
            density, signal = signal[:, :1], signal[:, 1:]
            signal = signal / (density + self.eps) if self.normalize else signal
        out = self._features(density, signal)
        return out if order_dst is None else out[order_dst.argsort()]

    def extra_repr(self) -> str:
        r"""Returns the arguments in ``repr``."""
        heads = f", heads={self.heads}" if self.heads > 1 else ""
        return super().extra_repr() + heads + (", per_channel=True" if self.per_channel else "")


class _GridSetConv(_SetConvBase):
    r"""Base of the two grid modules: spacing, window and its check, and one row of length scales."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        dim: int = 1,
        *,
        spacing: float | Sequence[float],
        window: int | Sequence[int],
        lengthscale: Scales | None = None,
        ard: bool = False,
        kernel: str = "rbf",
        hidden_channels: int | None = None,
        density: bool = True,
        normalize: bool = True,
        learnable: bool = True,
        min_lengthscale: float | None = None,
        eps: float = 1e-8,
        tolerance: float | None = 1e-2,
        bias: bool = True,
    ) -> None:
        _check_counts(in_channels=in_channels, out_channels=out_channels, dim=dim, hidden_channels=hidden_channels)
        if dim > 3:
            raise ValueError(f"'dim' must be at most 3 on a grid but is {dim}: take SetConv.")
        steps = per_axis(spacing, dim, "spacing")
        if not all(step > 0 and math.isfinite(step) for step in steps):
            raise ValueError(f"'spacing' must be positive and finite but is {steps}.")
        windows = [int(width) for width in per_axis(window, dim, "window")]
        scales = _initial_scales(2 * max(steps) if lengthscale is None else lengthscale, 1, dim, ard)
        super().__init__(
            in_channels,
            out_channels,
            dim,
            scales,
            (in_channels if hidden_channels is None else hidden_channels) + density,
            hidden_channels=hidden_channels,
            kernel=kernel,
            normalize=normalize,
            density=density,
            learnable=learnable,
            # A point halfway between two cells still reaches both with half its weight or more (RBF).
            min_lengthscale=min(0.5 * min(steps), 0.5 * float(scales.min()))
            if min_lengthscale is None
            else min_lengthscale,
            eps=eps,
            bias=bias,
        )
        if tolerance is not None:
            needed = window_for(scales[0].expand(dim), steps, tolerance, kernel)
            if any(width < least for width, least in zip(windows, needed, strict=True)):
                raise ValueError(
                    f"'window' = {windows} drops weights above tolerance = {tolerance:g} at the initial length scale: "
                    f"take at least {list(needed)}, and more if the length scale may grow."
                )
        self.spacing, self.window, self.tolerance = steps, windows, tolerance

    def _snap(self, origin: Tensor) -> Tensor:
        r"""Moves the origin to the nearest multiple of the spacing; the arithmetic is that of :func:`grid_over`."""
        step = torch.tensor(self.spacing, dtype=torch.float64, device=origin.device)
        return (origin.detach().double() / step).round() * step

    def extra_repr(self) -> str:
        r"""Returns the arguments in ``repr``."""
        return f"{super().extra_repr()}, spacing={self.spacing}, window={self.window}"


class SetConvToGrid(_GridSetConv):
    r"""The set convolution of ragged sets onto one uniform grid per set, with a truncated window.

    As :class:`SetConv` with one kernel and with the cells of a grid as the targets, but a point reaches only the
    :obj:`window` cells per axis around it: time :math:`O(N w^D C)` for any size of the grid. A learned length scale
    must fit the window: if the largest dropped weight exceeds :obj:`tolerance`, the forward pass raises rather than
    truncate silently. ``window_for(2 * lengthscale, spacing)`` allows growth to twice the initial value.

    Cells lie at multiples of the spacing: the origin is moved to the nearest one. Shifting the points and the origin by
    multiples of the spacing does not change the output, so a CNN on the grid is translation equivariant.

    Args:
        in_channels: Channels of the values.
        out_channels: Channels after the last linear map; :obj:`None` leaves it out. (default: :obj:`None`)
        dim: Dimensions ``D``, 1 to 3. (default: :obj:`1`)
        spacing: Distance :math:`\Delta` of neighbouring cells, a number or one per axis.
        window: Cells per axis that a point reaches, a number or one per axis; see
            :func:`pyg_nas_np.ops.window_for`.
        lengthscale: Initial length scale, a number or ``[D]`` with :obj:`ard`; :obj:`None` for twice the largest
            spacing. (default: :obj:`None`)
        ard: Whether every axis has its own length scale. (default: :obj:`False`)
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        hidden_channels: Channels after the first linear map; :obj:`None` leaves it out. (default: :obj:`None`)
        density: Whether the output starts with the density. (default: :obj:`True`)
        normalize: Whether to divide the signals by the density plus :obj:`eps`. (default: :obj:`True`)
        learnable: Whether the length scales are parameters rather than a buffer. (default: :obj:`True`)
        min_lengthscale: Lower bound of the length scales; :obj:`None` for half the smallest spacing or half the
            smallest initial one, whichever is less. (default: :obj:`None`)
        eps: Added to the density before the division. (default: :obj:`1e-8`)
        tolerance: Largest weight that the window may drop; :obj:`None` allows any. (default: :obj:`1e-2`)
        bias: Whether the linear maps have a bias. (default: :obj:`True`)

    Shapes:
        - **x:** ``[N, D]``; **y:** ``[N, in_channels]``.
        - **output:** ``[B, *shape, out_channels]``, channels last.

    Raises:
        ValueError: If an argument is out of range, shapes do not fit or the window is too small.

    Example:
        >>> from pyg_nas_np.ops import window_for
        >>> conv = SetConvToGrid(1, 8, spacing=0.1, window=window_for(0.4, 0.1))
        >>> x, y, batch = torch.rand(6, 1), torch.randn(6, 1), torch.tensor([0, 1, 0, 0, 1, 1])
        >>> origin, shape = grid_over(0.0, 1.0, 0.1, margin=0.5)
        >>> conv(x, y, origin, shape, batch).shape
        torch.Size([2, 21, 8])
    """

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        origin: Tensor,
        shape: Sequence[int],
        batch: Tensor | None = None,
        *,
        ptr: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Returns the channels on the grids.

        Args:
            x: Locations of the points.
            y: Values of the points.
            origin: Location of cell 0, ``[D]`` for all sets or ``[B, D]``; see :func:`grid_over`.
            shape: Number of cells per axis.
            batch: The set of each point, ``[N]``, in any order.
            ptr: In place of :obj:`batch`: offsets of sorted points, ``[B + 1]``.
            batch_size: Number ``B`` of sets. By default it is computed from the batch vector, which synchronises with a
                CUDA device.
        """
        self._check_locations(x, "x")
        batch_size = _count_sets((batch,), (ptr,), batch_size)
        order, ptr = _to_ptr(batch, ptr, x, batch_size)
        values = self._values(y, "y")
        _check_rows(y, "y", x)
        if order is not None:
            x, values = x[order], values[order]
        density, signal = set_conv_to_grid(
            x,
            values,
            self.lengthscale[0],
            ptr,
            self._snap(origin),
            self.spacing,
            shape,
            self.window,
            kernel=self.kernel,
            normalize=self.normalize,
            eps=self.eps,
            tolerance=self.tolerance,
        )
        return self._features(density.unsqueeze(-1), signal)


class SetConvFromGrid(_GridSetConv):
    r"""The set convolution from one uniform grid per set to the points of the same sets, with a truncated window.

    The counterpart of :class:`SetConvToGrid`, with the same arguments and conventions. Here ``density=False`` is the
    default, because the density of a grid carries no information. Dividing by it makes the scale of the output
    independent of the length scale; Gordon et al. (2020) do not divide (``normalize=False``).

    Args:
        in_channels: Channels on the grid.
        out_channels: Channels after the last linear map; :obj:`None` leaves it out. (default: :obj:`None`)
        dim: Dimensions ``D``, 1 to 3. (default: :obj:`1`)
        density: Whether the output starts with the density. (default: :obj:`False`)
        **kwargs: As in :class:`SetConvToGrid`; ``spacing`` and ``window`` are required.

    Shapes:
        - **y:** ``[B, *shape, in_channels]``, channels last; **x:** ``[N, D]``.
        - **output:** ``[N, out_channels]``.

    Raises:
        ValueError: If an argument is out of range, shapes do not fit or the window is too small.

    Example:
        >>> conv = SetConvFromGrid(4, 2, spacing=0.1, window=20)
        >>> origin, shape = grid_over(0.0, 1.0, 0.1)
        >>> conv(torch.randn(2, *shape, 4), torch.rand(6, 1), origin, torch.tensor([0, 1, 0, 0, 1, 1])).shape
        torch.Size([6, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        dim: int = 1,
        *,
        spacing: float | Sequence[float],
        window: int | Sequence[int],
        density: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, dim, spacing=spacing, window=window, density=density, **kwargs)

    def forward(
        self, y: Tensor, x: Tensor, origin: Tensor, batch: Tensor | None = None, *, ptr: Tensor | None = None
    ) -> Tensor:
        r"""Returns the channels at the points, in their order.

        Args:
            y: Values on the grids.
            x: Locations of the points.
            origin: Location of cell 0, ``[D]`` for all sets or ``[B, D]``.
            batch: The set of each point, ``[N]``, in any order.
            ptr: In place of :obj:`batch`: offsets of sorted points, ``[B + 1]``.
        """
        self._check_locations(x, "x")
        order, ptr = _to_ptr(batch, ptr, x, _count_sets((batch,), (ptr,), y.size(0)))
        density, signal = set_conv_from_grid(
            self._values(y, "y", self.dim + 2),
            x if order is None else x[order],
            self.lengthscale[0],
            ptr,
            self._snap(origin),
            self.spacing,
            self.window,
            kernel=self.kernel,
            normalize=self.normalize,
            eps=self.eps,
            tolerance=self.tolerance,
        )
        out = self._features(density.unsqueeze(-1), signal)
        return out if order is None else out[order.argsort()]


def grid_over(
    low: float | Sequence[float] | Tensor,
    high: float | Sequence[float] | Tensor,
    spacing: float | Sequence[float],
    margin: float = 0.0,
) -> tuple[Tensor, tuple[int, ...]]:
    r"""Returns origin and shape of the smallest uniform grid over a box, with its cells at multiples of the spacing.

    Args:
        low: Lower corner of the box: a number, ``[D]``, or ``[B, D]`` for one grid per set.
        high: Upper corner, likewise.
        spacing: Distance of neighbouring cells, a number or one per axis.
        margin: Added on all sides, in units of the locations. (default: :obj:`0.0`)

    Returns:
        The origin ``[D]`` or ``[B, D]``, float64, and the number of cells per axis: that of the largest box.

    Raises:
        ValueError: If a corner is not finite, the box is empty, or the spacing is not positive.

    Example:
        >>> grid_over(-0.32, 0.5, 0.25)
        (tensor([-0.5000], dtype=torch.float64), (5,))
    """
    device = next((corner.device for corner in (low, high) if isinstance(corner, Tensor)), "cpu")
    below = torch.as_tensor(low, dtype=torch.float64, device=device).detach() - margin
    above = torch.as_tensor(high, dtype=torch.float64, device=device).detach() + margin
    step = torch.as_tensor(spacing, dtype=torch.float64, device=device)
    if not bool((step > 0).all()) or not bool(step.isfinite().all()):
        raise ValueError(f"'spacing' must be positive and finite but is {spacing}.")
    dim_shape = torch.broadcast_shapes((1,), below.shape, above.shape, step.shape)
    below, above, step = (corner.expand(dim_shape) for corner in (below, above, step))
    if not bool(((below <= above) & below.isfinite() & above.isfinite()).all()):
        raise ValueError(f"'low' must be finite and not above 'high' but they are {below.tolist()}, {above.tolist()}.")
    # A corner that is a multiple of the spacing up to rounding gets no extra cell.
    first, last = (below / step + 1e-6).floor(), (above / step - 1e-6).ceil()
    cells = (last - first).clamp_min(0).reshape(-1, step.size(-1)).amax(dim=0) + 1
    return first * step, tuple(int(n) for n in cells.tolist())


def _apply(linear: nn.Linear | None, values: Tensor) -> Tensor:
    out: Tensor = values if linear is None else linear(values)
    return out


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"'{name}' must be at least 1 but is {count}.")


def _check_rows(y: Tensor, name: str, x: Tensor) -> None:
    if y.size(0) != x.size(0):
        raise ValueError(f"'{name}' must have one row per location, {x.size(0)}, but has shape {list(y.shape)}.")


def _initial_scales(value: Scales, rows: int, dim: int, ard: bool) -> Tensor:
    scales = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
    shape = (rows, dim if ard else 1)
    if not bool((scales.isfinite() & (scales > 0)).all()):
        raise ValueError(f"'lengthscale' must be positive and finite but is {scales.tolist()}.")
    try:
        return scales.expand(shape).clone()
    except RuntimeError as error:
        raise ValueError(
            f"'lengthscale' must be a number or broadcast to [heads, D] = {list(shape)} (D = 1 without ard) but has "
            f"shape {list(scales.shape)}."
        ) from error


def _count_sets(batches: Sequence[Tensor | None], ptrs: Sequence[Tensor | None], batch_size: int | None) -> int:
    r"""Returns the number of sets: as given, or of the offsets, or one more than the largest entry of the vectors."""
    if batch_size is not None:
        return batch_size
    for ptr in ptrs:
        if ptr is not None:
            return ptr.numel() - 1
    given = [batch for batch in batches if batch is not None]
    if not given:
        return 1
    return 1 + max((int(batch.max()) for batch in given if batch.numel()), default=-1)


def _to_ptr(
    batch: Tensor | None, ptr: Tensor | None, x: Tensor, batch_size: int, suffix: str = ""
) -> tuple[Tensor | None, Tensor]:
    r"""Returns the order that sorts the rows by set, :obj:`None` if they are sorted, and the offsets of the sets."""
    name = "_".join(filter(None, ("batch", suffix)))
    if batch is None:
        if ptr is None:
            if batch_size != 1:
                raise ValueError(f"'{name}' is missing: the rows belong to {batch_size} sets.")
            # Counted on the device: to copy from the host would wait for it, and break the capture of a CUDA graph.
            ptr = torch.arange(2, device=x.device) * x.size(0)
        return None, ptr
    if ptr is not None:
        raise ValueError(f"'{name}' and its 'ptr' are both given: drop one of them.")
    if batch.dtype != torch.int64:
        raise TypeError(f"'{name}' must be int64 but is {batch.dtype}.")
    if batch.shape != x.shape[:1]:
        raise ValueError(f"'{name}' must have shape [{x.size(0)}] but has shape {list(batch.shape)}.")
    if batch.numel() and checks_values(batch.device):
        low, high = int(batch.min()), int(batch.max())
        if low < 0 or high >= batch_size:
            raise ValueError(f"'{name}' must lie in [0, {batch_size}) but contains {low if low < 0 else high}.")
    batch, order = batch.sort(stable=True)
    return order, torch.searchsorted(batch, torch.arange(batch_size + 1, device=batch.device))
