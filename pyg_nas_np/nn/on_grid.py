r"""Set convolutions on a grid of learned coordinates with a convolutional network: the on-grid form of the process."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyg_nas_np.ops import set_conv_from_grid, set_conv_to_grid

_CONVS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_REACH = 1.25
"""Half of the grid's extent; coordinates are within one unit of its centre."""


class SeparableConv(nn.Module):
    r"""A depthwise convolution followed by a pointwise one and a ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        dim: Axes of the grid, 1 or 2.
        stride: Step of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, dim: int, stride: int = 1) -> None:
        super().__init__()
        conv = _CONVS[dim]
        self.depthwise = conv(in_channels, in_channels, 5, stride, padding=2, groups=in_channels)
        self.pointwise = conv(in_channels, out_channels, 1)

    def reset_parameters(self) -> None:
        r"""Resets both convolutions."""
        self.depthwise.reset_parameters()
        self.pointwise.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Convolves ``[B, C, *grid]``."""
        return torch.relu(self.pointwise(self.depthwise(x)))


class UNet(nn.Module):
    r"""A depthwise-separable U-Net of one or two dimensions.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        dim: Axes of the grid, 1 or 2.
        depth: Number of times the grid is halved; its sides must be divisible by ``2 ** depth``.
    """

    def __init__(self, in_channels: int, out_channels: int, dim: int, depth: int = 2) -> None:
        super().__init__()
        self.first = SeparableConv(in_channels, out_channels, dim)
        self.down = nn.ModuleList(SeparableConv(out_channels, out_channels, dim, 2) for _ in range(depth))
        self.up = nn.ModuleList(SeparableConv(2 * out_channels, out_channels, dim) for _ in range(depth))
        self.last = _CONVS[dim](out_channels, out_channels, 1)

    def reset_parameters(self) -> None:
        r"""Resets every convolution."""
        for module in (self.first, *self.down, *self.up, self.last):
            module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        r"""Maps ``[B, in_channels, *grid]`` to ``[B, out_channels, *grid]``."""
        levels = [self.first(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up:
            x = nn.functional.interpolate(x, scale_factor=2.0)
            x = up(torch.cat([x, levels.pop()], dim=1))
        return self.last(x)  # type: ignore[no-any-return]


class OnGridProcess(nn.Module):
    r"""Context to a grid, a convolutional network, and back to the targets (Foong et al. 2020).

    Each head projects states to one or two coordinates and convolves its part of the channels onto its own grid. The
    grids of all heads are channels of the network. With a latent path, a first network predicts a Gaussian for every
    cell, and a second one takes a sample of it as input.

    Args:
        channels: Width of the states.
        heads: Grids per task.
        grid_dim: Coordinates of a head, 1 or 2.
        points: Cells along each axis, a multiple of 4.
        latent_channels: Latent channels per cell; 0 for no latent path.

    Shapes:
        - **context:** ``[N, channels]``, **target:** ``[M, channels]``; ragged by ``ptr_context``, ``ptr_target``.
        - **output:** ``[M, channels]``.
    """

    def __init__(
        self, channels: int, *, heads: int = 8, grid_dim: int = 1, points: int = 64, latent_channels: int = 0
    ) -> None:
        super().__init__()
        if grid_dim not in _CONVS or points % 4 or channels % heads:
            raise ValueError(
                f"grid_dim={grid_dim} must be 1 or 2, points={points} a multiple of 4 and channels={channels} of "
                f"heads={heads}"
            )
        self.channels, self.heads, self.grid_dim, self.points = channels, heads, grid_dim, points
        self.latent_channels = latent_channels
        self.spacing = 2 * _REACH / (points - 1)
        self.project = nn.Linear(channels, heads * grid_dim)
        self.value = nn.Linear(channels, channels)
        self.raw_lengthscale = nn.Parameter(torch.empty(2))
        width = channels + heads
        if latent_channels:
            self.encoder = UNet(width, 2 * latent_channels, grid_dim)
        self.decoder = UNet(width + latent_channels, channels, grid_dim)
        self.mix = nn.Sequential(nn.Linear(2 * channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Initialises length scales to two cells."""
        for module in (self.project, self.value, self.decoder, *self.mix):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        if self.latent_channels:
            self.encoder.reset_parameters()
        nn.init.constant_(self.raw_lengthscale, math.log(math.expm1(2.0)))

    def latent(self, context: Tensor, ptr_context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the grids ``[B, C, *grid]`` and mean and log standard deviation of the latent ``[B, Z, *grid]``."""
        grid = self._to_grid(context, ptr_context)
        mean, log_std = self.encoder(grid).chunk(2, dim=1)
        return grid, mean, log_std.clamp(-5.0, 2.0)

    def forward(
        self,
        context: Tensor,
        target: Tensor,
        ptr_context: Tensor,
        ptr_target: Tensor,
        latent: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Returns the states of the targets.

        Args:
            context: States of the context.
            target: States of the targets.
            ptr_context: Where each task starts.
            ptr_target: Where each task starts.
            latent: Mean and log standard deviation to sample the latent from. (default: those given the context)
            generator: Source of the sample, on any device.
        """
        if self.latent_channels:
            grid, mean, log_std = self.latent(context, ptr_context)
            mean, log_std = (mean, log_std) if latent is None else latent
            # Drawn where the generator is, so that a seed gives the same sample on every device.
            source = mean.device if generator is None else generator.device
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=source).to(mean.device)
            grid = torch.cat([grid, mean + log_std.exp() * noise], dim=1)
        else:
            grid = self._to_grid(context, ptr_context)
        decoded = self.decoder(grid)
        return target + self.mix(torch.cat([target, self._from_grid(decoded, target, ptr_target)], dim=1))  # type: ignore[no-any-return]

    def _scale(self, which: int) -> Tensor:
        # At least half a cell, at most the reach of the window.
        return self.spacing * (0.5 + softplus(self.raw_lengthscale[which])).clamp_max(3.9)

    def _fold(self, states: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates ``[heads * N, grid_dim]`` and ``ptr`` with every head of every task as a separate set."""
        coordinates = torch.tanh(self.project(states)).view(-1, self.heads, self.grid_dim).transpose(0, 1)
        offsets = torch.arange(self.heads, device=ptr.device).unsqueeze(1) * states.size(0)
        folded = torch.cat([(ptr[:-1] + offsets).flatten(), self.heads * ptr[-1:]])
        return coordinates.reshape(-1, self.grid_dim), folded

    def _to_grid(self, context: Tensor, ptr: Tensor) -> Tensor:
        share = self.channels // self.heads
        x, folded = self._fold(context, ptr)
        y = self.value(context).view(-1, self.heads, share).transpose(0, 1).reshape(-1, share)
        density, signal = set_conv_to_grid(
            x,
            y,
            self._scale(0),
            folded,
            x.new_full((self.grid_dim,), -_REACH),
            self.spacing,
            [self.points] * self.grid_dim,
            24,
            normalize=True,
            eps=1e-6,
        )
        tasks = ptr.numel() - 1
        grid = torch.cat([density.unsqueeze(-1).log1p(), signal], dim=-1)
        grid = grid.view(self.heads, tasks, *[self.points] * self.grid_dim, 1 + share).movedim(-1, 2).transpose(0, 1)
        return grid.reshape(tasks, self.heads * (1 + share), *[self.points] * self.grid_dim)

    def _from_grid(self, grid: Tensor, target: Tensor, ptr: Tensor) -> Tensor:
        share = self.channels // self.heads
        x, folded = self._fold(target, ptr)
        tasks = ptr.numel() - 1
        values = grid.view(tasks, self.heads, share, *[self.points] * self.grid_dim).transpose(0, 1).movedim(2, -1)
        _, signal = set_conv_from_grid(
            values.reshape(tasks * self.heads, *[self.points] * self.grid_dim, share).contiguous(),
            x,
            self._scale(1),
            folded,
            x.new_full((self.grid_dim,), -_REACH),
            self.spacing,
            24,
            normalize=True,
            eps=1e-6,
        )
        return signal.view(self.heads, -1, share).transpose(0, 1).reshape(-1, self.channels)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, heads={self.heads}, grid_dim={self.grid_dim}, "
            f"points={self.points}, latent_channels={self.latent_channels})"
        )
