r"""A generator of architectures for a new data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.nn.dag import DAGDecoder
from pyg_nas_np.nn.set_encoder import DatasetEncoder
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.graph_codec import GraphCodec
from pyg_nas_np.utils import fixed_defaults

Cost = Callable[[Archs], Tensor]
"""Costs of architectures, ``[B]``."""

LIMITED = ("parameters", "flops")
"""The costs whose limits condition the generator; limits of other costs only filter its samples."""


class GeneratorLoss(NamedTuple):
    r"""Parts of the loss, means over the (weighted) batch in nats: the graph, and the latent code."""

    reconstruction: Tensor
    divergence: Tensor
    total: Tensor


class MetaD2AGenerator(nn.Module):
    r"""Generates architectures from the images of a data set, as in `MetaD2A <https://arxiv.org/abs/2107.00860>`_.

    The set encoder gives the mean and the variance of a latent code ``z`` of the data set; the decoder generates graphs
    from it. Training maximises

    .. math::
        \log p(\text{types}, \text{edges} \mid z) - 0.005\,\mathrm{KL}\big(q(z \mid D) \,\|\, \mathcal N(0, I)\big),
        \qquad z = \mu + 0.01\,\sigma\,\varepsilon

    over architectures that are accurate on their data set. Generation uses :math:`z = \mu`.

    Beyond the paper, the decoder also reads limits of parameters and of multiply-accumulates. Trained on architectures
    within limits drawn at random, it learns the distribution of good architectures *given that* they stay within.

    Args:
        codec: Graph codec of the space.
        in_channels: Width of the image features.
        hidden_channels: Width of all hidden layers.
        noise: Scale of the noise of the latent code in training.
        kl_weight: Weight of the divergence.

    Shapes:
        - **input:** :class:`~pyg_nas_np.metad2a.FeatureSets` of ``T`` data sets.

    Example:
        >>> from pyg_nas_np.spaces.graph_codec import NASBench201GraphCodec
        >>> generator = MetaD2AGenerator(NASBench201GraphCodec(), in_channels=16, hidden_channels=8)
        >>> digits = FeatureSets.from_datasets([[torch.randn(3, 16), torch.randn(5, 16)]])
        >>> draw = torch.Generator().manual_seed(0)
        >>> cells = generator.generate(digits, 100, limits={"parameters": 0.5e6}, generator=draw)
        >>> len(set(cells)), max(map(generator.codec.space.num_parameters, cells)) <= 0.5e6
        (100, True)
    """

    @fixed_defaults
    def __init__(
        self,
        codec: GraphCodec[Any],
        in_channels: int,
        *,
        hidden_channels: int = 56,
        noise: float = 0.01,
        kl_weight: float = 0.005,
    ) -> None:
        super().__init__()
        self.codec, self.in_channels, self.hidden_channels = codec, in_channels, hidden_channels
        self.noise, self.kl_weight = noise, kl_weight
        self.config = {
            "in_channels": in_channels,
            "hidden_channels": hidden_channels,
            "noise": noise,
            "kl_weight": kl_weight,
        }
        self.set_encoder = DatasetEncoder(in_channels, hidden_channels)
        self.mean = nn.Linear(hidden_channels, hidden_channels)
        self.log_variance = nn.Linear(hidden_channels, hidden_channels)
        self.decoder = DAGDecoder(codec, hidden_channels + len(LIMITED), hidden_channels)

    @cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return _cost_ranges(self.codec)

    def reset_parameters(self) -> None:
        r"""Draws new weights."""
        for module in (self.set_encoder, self.mean, self.log_variance, self.decoder):
            module.reset_parameters()

    def encode(self, sets: FeatureSets) -> tuple[Tensor, Tensor]:
        r"""Returns the mean and the log variance of the latent codes of data sets, ``[T, hidden_channels]`` each."""
        return self.code(self.set_encoder(sets.features, sets.class_ptr, sets.dataset_ptr))

    def code(self, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the same from the outputs of the set encoder, ``[T, hidden_channels]``."""
        return self.mean(v), self.log_variance(v)

    @fixed_defaults
    def loss(
        self,
        v: Tensor,
        types: Tensor,
        positions: Tensor | None = None,
        weight: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        constrained: bool = False,
    ) -> GeneratorLoss:
        r"""Loss of accurate architectures.

        Args:
            v: Output of the set encoder for the data set of each architecture, ``[T, hidden_channels]``.
            types: The architectures, ``[T, V]``.
            positions: Positions of the limits, ``[T, 2]``; see :meth:`positions`. (default: no limit)
            weight: Weight of each architecture, ``[T]``. (default: all equal)
            generator: Source of the noise.
            constrained: Whether to use the likelihood of constrained decoding. It is faster, but neither edges nor
                types that may not follow are learned.
        """
        mean, log_variance = self.code(v)
        epsilon = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = mean + self.noise * (0.5 * log_variance).exp() * epsilon
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        joined = self._joined(z, positions)
        reconstruction = -self.decoder.log_prob(joined, types) if constrained else self.decoder.loss(joined, types)
        weight = torch.ones_like(kl) if weight is None else weight
        norm = weight.sum().clamp_min(1e-8)
        parts = (weight * reconstruction).sum() / norm, (weight * kl).sum() / norm
        return GeneratorLoss(*parts, parts[0] + self.kl_weight * parts[1])

    @fixed_defaults
    def positions(self, costs: Mapping[str, Tensor | float]) -> Tensor:
        r"""Positions of costs in the space's range of each of :data:`LIMITED`, ``[B, 2]`` in [0, 1], on a log scale.

        A cost that :obj:`costs` does not name has position 1: a limit at the most expensive architecture is no limit.
        """
        columns = []
        for name in LIMITED:
            low, high = self._ranges[name]
            cost = torch.as_tensor(costs.get(name, math.exp(high)), dtype=torch.float64).reshape(-1)
            columns.append(((cost.log() - low) / (high - low)).clamp(0, 1))
        return torch.stack(torch.broadcast_tensors(*columns), dim=1).float()

    @torch.no_grad()
    @fixed_defaults
    def log_prob(self, sets: FeatureSets, types: Tensor, positions: Tensor | None = None) -> Tensor:
        r"""Log probability ``[T]`` of an architecture ``[T, V]`` for each data set, by constrained decoding."""
        return self.decoder.log_prob(self._joined(self.encode(sets)[0], positions), types)

    @torch.no_grad()
    @fixed_defaults
    def generate(
        self,
        sets: FeatureSets,
        n: int,
        *,
        limits: Mapping[str, float] = MappingProxyType({}),
        costs: Mapping[str, Cost] = MappingProxyType({}),
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> list[Any]:
        r"""Draws :obj:`n` different architectures for one data set, all within the limits.

        They are drawn without replacement (:meth:`~pyg_nas_np.nn.dag.DAGDecoder.sample_distinct`). Architectures beyond
        a limit are dropped, and more are drawn until there are enough.

        Args:
            sets: One data set.
            n: Number of architectures; fewer are returned if the space has fewer within the limits.
            limits: Largest cost allowed, by name: ``parameters``, ``flops`` or a key of :obj:`costs`.
            costs: Further costs, such as latencies on a device.
            temperature: Below 1 sharpens the distribution, above 1 flattens it.
            generator: Source of randomness.

        Raises:
            ValueError: If :obj:`n` is not from 1 to :data:`MOST`, there is not one data set, or a limit is not positive
                or of an unknown cost.
        """
        if not 1 <= n <= MOST:
            raise ValueError(f"n must be from 1 to {MOST}, got {n}")
        if len(sets) != 1:
            raise ValueError(f"generate() takes one data set at a time, got {len(sets)}; index them as sets[i]")
        limits = check_limits(limits, costs)
        if any(
            math.log(limit) < self._ranges[name][0] - 1e-9 for name, limit in limits.items() if name in self._ranges
        ):
            return []
        z = self._joined(self.encode(sets)[0], self.positions(limits))[0]
        wanted = n
        while True:
            types = self.decoder.sample_distinct(z, wanted, temperature, generator).types
            archs = self.codec.archs(types)
            for name, limit in limits.items():
                spent = cost_of(self.codec.space, name, costs)(archs)
                archs = [arch for arch, cost in zip(archs, spent.tolist(), strict=True) if cost <= limit]
            if len(archs) >= n or types.size(0) < wanted or wanted >= MOST:
                return archs[:n]
            # A third more than the acceptance rate requires, at most four times as many.
            wanted = min(math.ceil(wanted * min(4.0, 4 * n / (3 * max(len(archs), 1)))), MOST)

    @torch.no_grad()
    @fixed_defaults
    def generate_graphs(
        self,
        sets: FeatureSets,
        n: int,
        *,
        constrained: bool = True,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Any:
        r"""Draws :obj:`n` graphs for each data set, independently, as in the paper.

        Args:
            sets: ``T`` data sets.
            n: Number of graphs for each.
            constrained: If false, edges are drawn too, and not every graph is an architecture.
            temperature: Below 1 sharpens the distribution, above 1 flattens it.
            generator: Source of randomness.

        Returns:
            :class:`~pyg_nas_np.spaces.dense.DenseGraphs` of ``T * n`` graphs.
        """
        z = self._joined(self.encode(sets)[0], None).repeat_interleave(n, dim=0)
        if constrained:
            return self.codec.graphs_of(self.decoder.sample(z, temperature, generator))
        return self.decoder.sample_free(z, temperature, generator)

    def _joined(self, z: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            positions = z.new_ones(z.size(0), len(LIMITED))
        return torch.cat([z, positions.to(z)], dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.codec}, {self.in_channels}, hidden_channels={self.hidden_channels})"


MOST = 1 << 16
"""Largest beam of :meth:`MetaD2AGenerator.generate`."""


def cost_of(space: CellSpace[Any], name: str, costs: Mapping[str, Cost] = MappingProxyType({})) -> Cost:
    r"""Returns the function of a cost: one of :obj:`costs`, or the space's ``parameters`` or ``flops``.

    Raises:
        ValueError: If there is no such cost.
    """
    known = {"parameters": space.batch_num_parameters, "flops": space.batch_flops, **costs}
    if name not in known:
        raise ValueError(f"there is no cost '{name}'; costs: {', '.join(known)}. Give a function of it in costs=")
    return known[name]


def check_limits(limits: Mapping[str, float], costs: Mapping[str, Cost]) -> dict[str, float]:
    r"""Returns the limits if each is a positive number of a known cost.

    Raises:
        ValueError: If not.
    """
    known = {*LIMITED, *costs}
    for name, limit in limits.items():
        if name not in known:
            raise ValueError(f"there is no cost '{name}'; costs: {', '.join(sorted(known))}. Add it to costs=")
        if not limit > 0:
            raise ValueError(f"the limit of {name} must be positive, got {limit}")
    return dict(limits)


def _cost_ranges(codec: GraphCodec[Any]) -> dict[str, tuple[float, float]]:
    """Smallest and largest log cost over the graphs of the codec."""
    archs, ranges = codec.extremes(), {}
    for name in LIMITED:
        values = cost_of(codec.space, name)(archs).double().log()
        ranges[name] = (float(values.min()), float(values.max()))
    return ranges
