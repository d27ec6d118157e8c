r"""The convolutional neural process over architectures."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyg_nas_np.ops import set_conv
from pyg_nas_np.tasks import TaskBatch


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
        r"""Length scales start at half to twice the typical distance between embeddings."""
        for module in (self.norm_source, self.norm_target, self.embed, self.value, *self.mix):
            _reset(module)
        scale = math.sqrt(self.dim) * torch.logspace(-1, 1, self.heads, base=2.0)
        with torch.no_grad():
            # Inverse of softplus.
            self.raw_lengthscale.copy_((scale.expm1()).log().unsqueeze(1))

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


class ConvNP(nn.Module):
    r"""A convolutional neural process that corrects base predictors.

    Context architectures enter with their score and the base predictors' leave-one-out moments, targets with the base
    predictions; off-grid set convolutions in learned embeddings pass information within the context and from it to
    the targets. The output is a mixture of the base predictions with learned weights, shifted and stretched by a
    learned correction. The correction starts at zero and the mixture at the first base predictor: before training the
    process is that predictor.

    Args:
        in_channels: Number ``F`` of features.
        num_base: Number ``K`` of base predictors.
        channels: Width of the states.
        heads: Kernels a layer.
        dim: Dimensions of each head's embedding.
        num_layers: Number of layers.

    Shapes:
        - **input:** a :class:`~pyg_nas_np.tasks.TaskBatch`.
        - **output:** mean ``[M]`` and standard deviation ``[M]`` of the target scores.

    Example:
        >>> x, z, moments = torch.randn(6, 3), torch.randn(6), torch.zeros(6, 1, 2)
        >>> ptr_context, ptr_target = torch.tensor([0, 2, 6]), torch.tensor([0, 4, 9])
        >>> tasks = TaskBatch(x, z, torch.randn(9, 3), moments, torch.zeros(9, 1, 2), ptr_context, ptr_target)
        >>> mean, std = ConvNP(3, num_base=1)(tasks)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([9]), True)
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_base: int = 2,
        channels: int = 64,
        heads: int = 8,
        dim: int = 6,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels={channels} must be divisible by heads={heads}")
        self.in_channels, self.num_base, self.channels = in_channels, num_base, channels
        self.embed = nn.Sequential(nn.Linear(in_channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.embed_context = nn.Linear(1 + 2 * num_base, channels)
        self.embed_target = nn.Linear(2 * num_base, channels)
        self.layers = nn.ModuleList(OffGridSetConv(channels, heads, dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 2 + num_base)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Starts from the first base predictor, with little weight on the others and without correction."""
        for module in (*self.embed, self.embed_context, self.embed_target, *self.layers, self.norm):
            _reset(module)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.bias[2] = 3.0

    def forward(self, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        r"""Returns mean and standard deviation of the target scores."""
        context = torch.cat([tasks.z_context.unsqueeze(1), tasks.context_moments.flatten(1)], dim=1)
        h_context = self.embed(tasks.x_context) + self.embed_context(context)
        h_target = self.embed(tasks.x_target) + self.embed_target(tasks.target_moments.flatten(1))
        for layer in self.layers[:-1]:
            h_target = layer(h_context, h_target, tasks.ptr_context, tasks.ptr_target)
            h_context = layer(h_context, h_context, tasks.ptr_context, tasks.ptr_context)
        h_target = self.layers[-1](h_context, h_target, tasks.ptr_context, tasks.ptr_target)
        shift, stretch, *logits = self.head(self.norm(h_target)).unbind(dim=1)
        weights = torch.softmax(torch.stack(logits, dim=1), dim=1)
        base_mean, base_var = tasks.target_moments[..., 0], (2.0 * tasks.target_moments[..., 1]).exp()
        mean = (weights * base_mean).sum(dim=1)
        # Law of total variance over the base predictors.
        std = (weights * (base_var + (base_mean - mean.unsqueeze(1)).square())).sum(dim=1).sqrt()
        return mean + shift * std, std * stretch.clamp(-3.0, 3.0).exp()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, channels={self.channels}, layers={len(self.layers)})"


def _reset(module: nn.Module) -> None:
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
