r"""Stacked set convolutions in learned embeddings: the off-grid form of the process."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyg_nas_np.ops import set_conv


class OffGridSetConv(nn.Module):
    r"""One layer of multi-head set convolution in learned embeddings.

    Sources and targets are embedded into ``heads`` spaces of ``dim`` dimensions; every target receives the
    density-normalised kernel mean of the sources' values and the log density, and a residual network mixes the heads.

    Args:
        channels: Width of the states.
        heads: Number of kernels.
        dim: Dimensions of each embedding.

    Shapes:
        - **source:** ``[N, channels]``, **target:** ``[M, channels]``; ragged by ``ptr_source``, ``ptr_target``.
        - **output:** ``[M, channels]``.
    """

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.channels, self.heads, self.dim = channels, heads, dim
        self.norm_source = nn.LayerNorm(channels)
        self.norm_target = nn.LayerNorm(channels)
        self.embed = nn.Linear(channels, heads * dim)
        self.value = nn.Linear(channels, channels)
        self.raw_lengthscale = nn.Parameter(torch.empty(heads, 1))
        self.mix = nn.Sequential(
            nn.Linear(2 * channels + heads, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Initialises length scales to half to twice the typical distance between embeddings."""
        for module in (self.norm_source, self.norm_target, self.embed, self.value, *self.mix):
            _reset(module)
        raw = self.raw_lengthscale
        scale = math.sqrt(self.dim) * torch.logspace(-1, 1, self.heads, base=2.0, dtype=raw.dtype, device=raw.device)
        with torch.no_grad():
            # Inverse of softplus.
            raw.copy_(scale.expm1().log().unsqueeze(1))

    def forward(self, source: Tensor, target: Tensor, ptr_source: Tensor, ptr_target: Tensor) -> Tensor:
        r"""Updates the targets."""
        normed_source, normed_target = self.norm_source(source), self.norm_target(target)
        shape = (-1, self.heads, self.dim)
        density, signal = set_conv(
            self.embed(normed_source).view(shape),
            self.value(normed_source).view(-1, self.heads, self.channels // self.heads),
            self.embed(normed_target).view(shape),
            softplus(self.raw_lengthscale) + 1e-3,
            ptr_source,
            ptr_target,
            normalize=True,
            eps=1e-6,
        )
        inputs = [normed_target, signal.flatten(1), (density + 1e-6).log()]
        mixed: Tensor = target + self.mix(torch.cat(inputs, dim=1))
        return mixed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, heads={self.heads}, dim={self.dim})"


class OffGridProcess(nn.Module):
    r"""A stack of set convolutions within the context and from the context to the targets.

    Args:
        channels: Width of the states.
        heads: Kernels per layer.
        dim: Dimensions of each head's embedding.
        num_layers: Number of layers.

    Shapes:
        - **context:** ``[N, channels]``, **target:** ``[M, channels]``; ragged by ``ptr_context``, ``ptr_target``.
        - **output:** ``[M, channels]``.
    """

    def __init__(self, channels: int, *, heads: int = 8, dim: int = 6, num_layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(OffGridSetConv(channels, heads, dim) for _ in range(num_layers))

    def reset_parameters(self) -> None:
        r"""Resets every layer."""
        for layer in self.layers:
            _reset(layer)

    def forward(self, context: Tensor, target: Tensor, ptr_context: Tensor, ptr_target: Tensor) -> Tensor:
        r"""Returns the states of the targets."""
        for layer in self.layers[:-1]:
            target = layer(context, target, ptr_context, ptr_target)
            context = layer(context, context, ptr_context, ptr_context)
        updated: Tensor = self.layers[-1](context, target, ptr_context, ptr_target)
        return updated

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.layers)} x {self.layers[0]!r})"


def _reset(module: nn.Module) -> None:
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
