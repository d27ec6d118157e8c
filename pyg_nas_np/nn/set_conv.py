r"""Set-convolution layers: from sets to sets, onto grids, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch_geometric.utils.sparse import index2ptr

from pyg_nas_np.ops import set_conv, set_conv_from_grid, set_conv_to_grid, window_for
from pyg_nas_np.ops.radial import check_kernel


class _Lengthscale(Module):
    r"""A positive parameter: :math:`\ell_{\min} + \mathrm{softplus}(\theta)`.

    A learnable length scale can collapse to the distance of neighbouring cells, where nothing is learned any more: the
    lower bound prevents it.
    """

    def __init__(self, shape: Sequence[int], initial: Tensor, lower: float, learnable: bool) -> None:
        super().__init__()
        if not (bool(torch.isfinite(initial).all()) and bool((initial > lower).all()) and lower >= 0):
            raise ValueError(
                f"'lengthscale' must be finite and above 'min_lengthscale' >= 0 but they are {initial.tolist()} and "
                f"{lower}."
            )
        self.lower = lower
        excess = initial.double() - lower
        # The inverse of softplus, written so that it neither overflows nor cancels.
        start = (excess + torch.log(-torch.expm1(-excess))).expand(*shape).to(torch.get_default_dtype())
        self.register_buffer("start", start.clone(), persistent=False)
        self.start: Tensor
        self.raw: Tensor
        if learnable:
            self.raw = Parameter(start.clone())
        else:
            self.register_buffer("raw", start.clone())

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.raw.copy_(self.start)

    def forward(self) -> Tensor:
        return self.lower + torch.nn.functional.softplus(self.raw)


class _SetConvBase(Module):
    r"""What the three layers share: length scale, density channel, linear map."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None,
        dim: int,
        width: int,
        scale: _Lengthscale,
        kernel: str,
        density: bool,
        normalize: bool,
        eps: float,
        bias: bool,
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("dim", dim)):
            if value is not None and value < 1:
                raise ValueError(f"'{name}' must be at least 1 but is {value}.")
        if normalize and not eps > 0:
            raise ValueError(f"'eps' must be positive but is {eps}.")
        self.in_channels = in_channels
        self.out_channels = width if out_channels is None else out_channels
        self.dim = dim
        self.kernel = kernel
        self.density = density
        self.normalize = normalize
        self.eps = eps
        self.scale = scale
        self.lin = None if out_channels is None else Linear(width, out_channels, bias=bias)

    @property
    def lengthscale(self) -> Tensor:
        r"""The length scale in use, positive."""
        scale: Tensor = self.scale()
        return scale

    def reset_parameters(self) -> None:
        r"""Sets the length scale to its initial value and draws the linear map anew."""
        self.scale.reset_parameters()
        if self.lin is not None:
            self.lin.reset_parameters()

    def _check_values(self, y: Tensor) -> None:
        if y.size(-1) != self.in_channels:
            raise ValueError(f"'y' must have {self.in_channels} channels but has shape {list(y.shape)}.")

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, dim={self.dim}, "
            f"kernel={self.kernel!r}, learnable={isinstance(self.scale.raw, Parameter)})"
        )


class SetConv(_SetConvBase):
    r"""Set convolution between ragged sets of points, the off-grid layer of `"Convolutional Conditional Neural
    Processes" <https://arxiv.org/abs/1910.13556>`_ (Gordon et al., 2020).

    For every target :math:`j` and head :math:`h`, over the sources :math:`i` of its set,

    .. math::
        d_{jh} = \sum_i k\Big(\Big\lVert \frac{x_{jh} - x_{ih}}{\ell_h} \Big\rVert\Big), \qquad
        s_{jh} = \frac{1}{d_{jh} + \varepsilon} \sum_i k(\cdot)\, y_i,

    and the output is a linear map of all :math:`[d_{jh}, s_{jh}]`. See :func:`pyg_nas_np.ops.set_conv`.

    Args:
        in_channels: Channels :math:`C` of the values.
        out_channels: Channels of the output; :obj:`None` leaves out the linear map. (default: :obj:`None`)
        dim: Dimensions :math:`D` of the locations. (default: :obj:`1`)
        heads: Number of kernels; more than one have a length scale each. (default: :obj:`1`)
        lengthscale: Initial :math:`\ell`, in units of the locations. (default: :obj:`1.0`)
        ard: Whether every dimension has a length scale of its own. (default: :obj:`False`)
        learnable: Whether the length scale is learned. (default: :obj:`True`)
        min_lengthscale: Lower bound of :math:`\ell`. (default: :obj:`1e-5`)
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        density: Whether the density is a channel of the output. (default: :obj:`True`)
        normalize: Whether the signal is divided by the density. (default: :obj:`True`)
        eps: Added to the density in that division. (default: :obj:`1e-8`)
        bias: Whether the linear map has a bias. (default: :obj:`True`)

    The length scale is :obj:`min_lengthscale` plus the softplus of a parameter, which starts so that
    :math:`\ell` equals :obj:`lengthscale`. With :obj:`heads` the initial values are spread over
    :math:`\ell\, 2^{h - (H - 1)/2}`, since equal heads would stay equal.

    Shapes:
        - **input:** sources ``x_src`` :math:`[N, D]` or :math:`[N, H, D]`, their values ``y_src`` :math:`[N, C]`,
          targets ``x_dst`` :math:`[M, D]` or :math:`[M, H, D]`, and either ``batch_src`` :math:`[N]` and
          ``batch_dst`` :math:`[M]` or ``ptr_src`` and ``ptr_dst`` :math:`[B + 1]`
        - **output:** :math:`[M, \mathrm{out\_channels}]`

    Example:
        >>> conv = SetConv(2, 8, dim=3)
        >>> x, y = torch.randn(6, 3), torch.randn(6, 2)
        >>> batch_src, batch_dst = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])
        >>> conv(x, y, torch.randn(4, 3), batch_src=batch_src, batch_dst=batch_dst).shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        dim: int = 1,
        *,
        heads: int = 1,
        lengthscale: float = 1.0,
        ard: bool = False,
        learnable: bool = True,
        min_lengthscale: float = 1e-5,
        kernel: str = "rbf",
        density: bool = True,
        normalize: bool = True,
        eps: float = 1e-8,
        bias: bool = True,
    ) -> None:
        if heads < 1:
            raise ValueError(f"'heads' must be at least 1 but is {heads}.")
        spread = 2.0 ** (torch.arange(heads, dtype=torch.float64) - (heads - 1) / 2)
        super().__init__(
            in_channels,
            out_channels,
            dim,
            heads * (in_channels + density),
            _Lengthscale((heads, dim if ard else 1), lengthscale * spread.unsqueeze(-1), min_lengthscale, learnable),
            kernel,
            density,
            normalize,
            eps,
            bias,
        )
        self.heads = heads

    def forward(
        self,
        x_src: Tensor,
        y_src: Tensor,
        x_dst: Tensor,
        *,
        batch_src: Tensor | None = None,
        batch_dst: Tensor | None = None,
        ptr_src: Tensor | None = None,
        ptr_dst: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Convolves the sources and evaluates the result at the targets.

        The ``batch`` vectors need not be sorted; ``batch_size`` spares the look at their largest entry. Without them
        and without ``ptr`` all points form one set. Inside :func:`torch.compile` pass ``ptr``.

        Raises:
            ValueError: If shapes do not fit, or only one side has a ``batch`` or ``ptr``.
        """
        self._check_values(y_src)
        if (batch_src is None) != (batch_dst is None) or (ptr_src is None) != (ptr_dst is None):
            raise ValueError("'batch' or 'ptr' must be given for both sources and targets.")
        if batch_size is None and batch_src is not None and batch_dst is not None:
            batch_size = max(_count(batch_src), _count(batch_dst))
        order_src, ptr_src = _offsets(x_src.size(0), batch_src, ptr_src, batch_size, x_src.device)
        order_dst, ptr_dst = _offsets(x_dst.size(0), batch_dst, ptr_dst, batch_size, x_dst.device)
        density, signal = set_conv(
            x_src if order_src is None else x_src[order_src],
            y_src if order_src is None else y_src[order_src],
            x_dst if order_dst is None else x_dst[order_dst],
            self.lengthscale,
            ptr_src,
            ptr_dst,
            kernel=self.kernel,
            normalize=self.normalize,
            eps=self.eps,
        )
        out = torch.cat([density.unsqueeze(-1), signal], dim=-1) if self.density else signal
        out = out.flatten(1) if self.lin is None else self.lin(out.flatten(1))
        return out if order_dst is None else torch.empty_like(out).index_copy(0, order_dst, out)


class Grid(NamedTuple):
    r"""Where the cells of a uniform grid lie, up to their spacing."""

    origin: Tensor
    r"""Location of cell 0, ``[D]`` for all sets or ``[B, D]``."""
    shape: tuple[int, ...]
    r"""Number of cells per axis."""


def cover(x: Tensor, spacing: float | Sequence[float], margin: float = 0.0, multiple: int = 1) -> Grid:
    r"""Returns the smallest uniform grid around all points, with its cells at multiples of the spacing.

    Snapping the origin keeps a convolution equivariant: moving the points by one spacing moves the grid by one cell.

    Args:
        x: Points, ``[N, D]``; at least one.
        spacing: Distance of neighbouring cells, a number or one per axis.
        margin: Room to leave on every side, in units of :obj:`x`. (default: :obj:`0.0`)
        multiple: Number of which every side is a multiple, for CNNs that halve it. (default: :obj:`1`)

    Raises:
        ValueError: If there is no point, or one is not finite.

    Example:
        >>> cover(torch.tensor([[0.12], [0.31]]), spacing=0.1, margin=0.1)
        Grid(origin=tensor([0.]), shape=(6,))
    """
    if x.dim() != 2 or x.size(0) == 0 or not bool(torch.isfinite(x).all()):
        raise ValueError(f"'x' must be at least one finite point, [N, D], but has shape {list(x.shape)}.")
    step = torch.as_tensor(spacing, dtype=torch.float64, device=x.device).expand(x.size(1))
    low = torch.floor((x.detach().double().amin(0) - margin) / step)
    high = torch.ceil((x.detach().double().amax(0) + margin) / step)
    sizes = (torch.ceil((high - low + 1) / multiple) * multiple).long().tolist()
    return Grid((low * step).to(x.dtype), tuple(sizes))


class _GridBase(_SetConvBase):
    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        dim: int = 1,
        *,
        spacing: float,
        lengthscale: float | None = None,
        ard: bool = False,
        learnable: bool = True,
        min_lengthscale: float | None = None,
        window: int | Sequence[int] | None = None,
        error: float = 1e-4,
        kernel: str = "rbf",
        density: bool = True,
        normalize: bool = True,
        eps: float = 1e-4,
        bias: bool = True,
    ) -> None:
        if not (spacing > 0 and math.isfinite(spacing)):
            raise ValueError(f"'spacing' must be positive and finite but is {spacing}.")
        initial = 2 * spacing if lengthscale is None else lengthscale
        lower = spacing / 2 if min_lengthscale is None else min_lengthscale
        scale = torch.tensor([initial], dtype=torch.float64)
        super().__init__(
            in_channels,
            out_channels,
            dim,
            in_channels + density,
            _Lengthscale((dim if ard else 1,), scale, lower, learnable),
            kernel,
            density,
            normalize,
            eps,
            bias,
        )
        self.spacing = spacing
        if window is None:
            (window,) = window_for((2 if learnable else 1) * initial, spacing, error, kernel)
        self.window = window

    def _join(self, density: Tensor, signal: Tensor) -> Tensor:
        out = torch.cat([density.unsqueeze(-1), signal], dim=-1) if self.density else signal
        if self.lin is None:
            return out
        mapped: Tensor = self.lin(out)
        return mapped


class SetConvToGrid(_GridBase):
    r"""Set convolution of ragged sets of points onto one uniform grid per set, the encoder of a ConvCNP.

    See :func:`pyg_nas_np.ops.set_conv_to_grid`; the output is a linear map of density and signal in every cell.

    Args:
        in_channels: Channels :math:`C` of the values.
        out_channels: Channels of the output; :obj:`None` leaves out the linear map. (default: :obj:`None`)
        dim: Dimensions :math:`D` of the locations, 1 to 3. (default: :obj:`1`)
        spacing: Distance of neighbouring cells.
        lengthscale: Initial :math:`\ell`. (default: two spacings)
        ard: Whether every axis has a length scale of its own. (default: :obj:`False`)
        learnable: Whether the length scale is learned. (default: :obj:`True`)
        min_lengthscale: Lower bound of :math:`\ell`. (default: half a spacing)
        window: Cells per axis that a point reaches. (default: those with weights above :obj:`error`, at twice the
            initial length scale if it is learned; growing beyond about three times it is an error)
        error: Largest weight that the default window drops. (default: :obj:`1e-4`)
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        density: Whether the density is the first channel of the output. (default: :obj:`True`)
        normalize: Whether the signal is divided by the density. (default: :obj:`True`)
        eps: Added to the density in that division. (default: :obj:`1e-4`)
        bias: Whether the linear map has a bias. (default: :obj:`True`)

    Shapes:
        - **input:** points ``x`` :math:`[N, D]`, values ``y`` :math:`[N, C]`, a :class:`Grid`, and ``batch``
          :math:`[N]` or ``ptr`` :math:`[B + 1]`
        - **output:** :math:`[B, *\mathrm{shape}, \mathrm{out\_channels}]`, channels last

    Example:
        >>> conv = SetConvToGrid(1, 8, spacing=0.1)
        >>> x, y = torch.rand(5, 1), torch.randn(5, 1)
        >>> conv(x, y, Grid(torch.zeros(1), (16,)), batch=torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([2, 16, 8])
    """

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        grid: Grid,
        *,
        batch: Tensor | None = None,
        ptr: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        r"""Convolves the points onto the grids.

        Raises:
            ValueError: If shapes do not fit, or the length scale has outgrown the window.
        """
        self._check_values(y)
        order, ptr = _offsets(x.size(0), batch, ptr, batch_size, x.device)
        density, signal = set_conv_to_grid(
            x if order is None else x[order],
            y if order is None else y[order],
            self.lengthscale,
            ptr,
            grid.origin,
            self.spacing,
            grid.shape,
            self.window,
            kernel=self.kernel,
            normalize=self.normalize,
            eps=self.eps,
        )
        return self._join(density, signal)


class SetConvFromGrid(_GridBase):
    r"""Set convolution of values on one uniform grid per set to ragged sets of points, the decoder of a ConvCNP.

    See :func:`pyg_nas_np.ops.set_conv_from_grid`. The arguments are those of :class:`SetConvToGrid`; without a density
    channel by default, since the density of a point inside the grid is nearly constant.

    Shapes:
        - **input:** values ``y`` :math:`[B, *\mathrm{shape}, C]`, points ``x`` :math:`[N, D]`, a :class:`Grid`, and
          ``batch`` :math:`[N]` or ``ptr`` :math:`[B + 1]`
        - **output:** :math:`[N, \mathrm{out\_channels}]`

    Example:
        >>> conv = SetConvFromGrid(8, 2, spacing=0.1)
        >>> conv(torch.randn(1, 16, 8), torch.rand(5, 1), Grid(torch.zeros(1), (16,))).shape
        torch.Size([5, 2])
    """

    def __init__(
        self, in_channels: int, out_channels: int | None = None, dim: int = 1, *, density: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, out_channels, dim, density=density, **kwargs)

    def forward(
        self,
        y: Tensor,
        x: Tensor,
        grid: Grid,
        *,
        batch: Tensor | None = None,
        ptr: Tensor | None = None,
    ) -> Tensor:
        r"""Convolves the grids to the points.

        Raises:
            ValueError: If shapes do not fit, or the length scale has outgrown the window.
        """
        self._check_values(y)
        if tuple(y.shape[1:-1]) != tuple(grid.shape):
            raise ValueError(f"'y' has shape {list(y.shape)}, which does not fit a grid of {list(grid.shape)} cells.")
        order, ptr = _offsets(x.size(0), batch, ptr, y.size(0), x.device)
        density, signal = set_conv_from_grid(
            y,
            x if order is None else x[order],
            self.lengthscale,
            ptr,
            grid.origin,
            self.spacing,
            self.window,
            kernel=self.kernel,
            normalize=self.normalize,
            eps=self.eps,
        )
        out = self._join(density, signal)
        return out if order is None else torch.empty_like(out).index_copy(0, order, out)


def _count(batch: Tensor) -> int:
    return int(batch.max()) + 1 if batch.numel() else 0


def _offsets(
    size: int, batch: Tensor | None, ptr: Tensor | None, sets: int | None, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    r"""Returns the order that sorts points by set, or :obj:`None` if they are sorted, and the offsets of the sets."""
    if ptr is not None:
        if batch is not None:
            raise ValueError("'batch' and 'ptr' are two ways to say the same: give one of them.")
        return None, ptr
    if batch is None:
        return None, torch.tensor([0, size], device=device)
    if batch.shape != (size,):
        raise ValueError(f"'batch' must have shape [{size}] but has shape {list(batch.shape)}.")
    sets = _count(batch) if sets is None else sets
    if batch.numel() and (int(batch.min()) < 0 or _count(batch) > sets):
        raise ValueError(
            f"'batch' must be within 0 and {sets - 1} but reaches {int(batch.min())} and {int(batch.max())}."
        )
    if bool((batch.diff() >= 0).all()):
        return None, index2ptr(batch, sets)
    ordered, order = torch.sort(batch, stable=True)
    return order, index2ptr(ordered, sets)
