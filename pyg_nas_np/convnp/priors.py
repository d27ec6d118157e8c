r"""Priors of functions over a search space, from which tasks are synthesised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from pyg_nas_np.convnp.auxiliary import check_foreign
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.predictors.kernels import LENGTH, VARIANCE

Prior = Callable[[Tensor, torch.Generator], Tensor]
"""Draws one function at some rows ``[n]`` of a table of architectures: values ``[n]`` float64."""

KNOWN_NOISE = (0.1, 1.5)
"""Range of the largest known standard deviation in a task with noise, in standard deviations of the function."""


@dataclass(frozen=True, eq=False, repr=False)
class AdditiveGPPrior:
    r"""Additive Gaussian processes over feature groups.

    A function is a sum of Matérn-3/2 GPs over groups. Log length-scales and log variances are drawn from the normal
    distributions that the GP predictor uses as its hyperprior, so that some groups matter and others do not.

    Args:
        table: Descriptors, ``[A, F]``.
        groups: Columns of each feature group.
    """

    table: Tensor
    groups: Mapping[str, Sequence[int]]

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        r"""Draws one function."""
        x = self.table[rows].double()
        count = len(self.groups)
        covariance = x.new_zeros(x.size(0), x.size(0))
        lengths = (LENGTH.mean + LENGTH.std * _normal(generator, count)).exp().tolist()
        variances = (VARIANCE.mean + VARIANCE.std * _normal(generator, count)).exp()
        weights = (variances / variances.sum()).tolist()
        for columns, length, variance in zip(self.groups.values(), lengths, weights, strict=True):
            scaled = x[:, list(columns)] / math.sqrt(len(columns))
            r = math.sqrt(3.0) / length * torch.cdist(scaled, scaled)
            covariance += variance * (1.0 + r) * (-r).exp()
        covariance.diagonal().add_(1e-6)
        values: Tensor = torch.linalg.cholesky(covariance) @ _normal(generator, x.size(0), dtype=torch.float64)
        return values


@dataclass(frozen=True, eq=False, repr=False)
class NetworkPrior:
    r"""Combinations of the principal coordinates of random networks, few of them with large weights.

    Args:
        coordinates: Those of :class:`~pyg_nas_np.features.RandomNetworks`, ``[A, R]``. Their seed must differ from that
            of the predictor's networks; otherwise every task would lie exactly in the span of the predictor's features.
    """

    coordinates: Tensor

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        r"""Draws one function."""
        count = self.coordinates.size(1)
        chi = _normal(generator, 3, count).square().sum(dim=0) / 3
        weights = _normal(generator, count) / chi.sqrt()
        return (self.coordinates[rows] @ weights).double()


@dataclass(frozen=True, eq=False, repr=False)
class TrendPrior:
    r"""Monotone, mostly increasing functions of the prior trend, with random saturation.

    Args:
        table: Descriptors, ``[A, F]``.
        column: Column of the trend.
    """

    table: Tensor
    column: int

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        r"""Draws one function."""
        h = self.table[rows, self.column].double()
        bend, sign = _uniform(generator, 2).tolist()
        curve = torch.tanh(0.3 + 1.5 * bend * h) if bend > 0.3 else h
        return curve if sign < 0.9 else -curve


@dataclass(frozen=True, eq=False, repr=False)
class TreePrior:
    r"""Sums of random trees: steps and interactions of a few features.

    Args:
        table: Descriptors, ``[A, F]``.
        columns: Columns that the trees may split on.
        num_trees: Number of trees.
        depth: Splits from the root to a leaf; all nodes of a level share one split.
    """

    table: Tensor
    columns: Sequence[int]
    num_trees: int = 30
    depth: int = 3

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        r"""Draws one function."""
        x = self.table[rows]
        splits = (self.num_trees, self.depth)
        candidates = torch.tensor(self.columns, dtype=torch.long, device="cpu")
        # In each task only a few features matter.
        relevant = candidates[_below(generator, len(candidates), 12)]
        chosen = relevant[_below(generator, len(relevant), *splits)]
        thresholds = x[_below(generator, x.size(0), *splits), chosen]
        right = x[:, chosen] > thresholds
        leaf = (right * 2 ** torch.arange(self.depth, device="cpu")).sum(dim=2)
        values = _normal(generator, self.num_trees, 2**self.depth, dtype=torch.float64)
        total: Tensor = values.expand(x.size(0), -1, -1).gather(2, leaf.unsqueeze(2)).sum(dim=(1, 2))
        return total


@dataclass(frozen=True, eq=False, repr=False)
class TablePrior:
    r"""Random mixtures of the ranks of auxiliary labels.

    Args:
        labels: Auxiliary labels, name (``dataset/metric``) → ``[A]``.
        target: Data set that will be predicted. No labels may be of it, whatever their metric or number of epochs.

    Raises:
        InvalidLabelsError: If some labels are of :obj:`target`, or a label is missing.
    """

    labels: InitVar[Mapping[str, Tensor]]
    target: str
    ranks: Tensor = field(init=False)

    def __post_init__(self, labels: Mapping[str, Tensor]) -> None:
        check_foreign(labels, self.target)
        ranks = [_standardise(y.double().argsort().argsort().double()) for y in labels.values()]
        object.__setattr__(self, "ranks", torch.stack(ranks, dim=1))

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        r"""Draws one function."""
        # Dirichlet(0.3) by Gamma variates: mostly one data set, sometimes a mixture.
        gamma = _gamma(generator, 0.3, self.ranks.size(1))
        return self.ranks[rows] @ (gamma / gamma.sum().clamp_min(1e-12))


@dataclass(frozen=True, eq=False, repr=False)
class MixturePrior:
    r"""A mixture of several mechanisms with the noise of a benchmark.

    Each function is a sum of draws from :obj:`parts` with Dirichlet weights, warped by a random monotone map (skewed
    and heavy- or light-tailed). The noise level is larger for worse architectures. One of ten tasks contains a few
    failed measurements.

    Args:
        parts: Priors of single mechanisms.
        concentration: Of the Dirichlet distribution. With larger values more mechanisms matter in each task, so that no
            single base predictor is well specified.
    """

    parts: Sequence[Prior]
    concentration: float = 3.0

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        r"""Draws one function."""
        weights = _gamma(generator, self.concentration, len(self.parts))
        values = weights.new_zeros(rows.numel())
        for part, weight in zip(self.parts, (weights / weights.sum()).sqrt().tolist(), strict=True):
            if weight > 0.05:
                values += weight * _standardise(part(rows, generator))
        values = _standardise(values)
        skew, tail, level, slope = _normal(generator, 4).tolist()
        values = _standardise(torch.sinh(values.asinh() * math.exp(0.3 * tail) - 0.5 * skew))
        noise = _normal(generator, rows.numel(), dtype=torch.float64)
        scale = math.exp(0.5 * (math.log(0.04) + level))
        values = values + scale * (-0.3 * abs(slope) * values.clamp(-3.0, 3.0)).exp() * noise
        if float(_uniform(generator)) < 0.1:
            failed = _uniform(generator, rows.numel()) < 0.02
            values = torch.where(failed, values.min() - 2.0, values)
        return values


def space_prior(table: Tensor, groups: Mapping[str, list[int]], coordinates: Tensor) -> Prior:
    r"""Returns the mixture of all mechanisms that a space has descriptors for.

    Args:
        table: Descriptors, ``[A, F]``.
        groups: Their groups.
        coordinates: Coordinates of random networks of another seed, ``[A, R]``.
    """
    features = {name: columns for name, columns in groups.items() if name not in (NETWORKS, TREND)}
    every = [column for columns in features.values() for column in columns]
    networks = NetworkPrior(coordinates)
    # Random networks fit the measured tables best, so they count twice.
    parts: list[Prior] = [AdditiveGPPrior(table, features), networks, TreePrior(table, every), networks]
    if TREND in groups:
        parts.append(TrendPrior(table, groups[TREND][0]))
    return MixturePrior(parts)


def known_noise(count: int, generator: torch.Generator) -> Tensor:
    r"""Draws standard deviations of measurements, as fractions of that of the function, ``[count]`` float64.

    The largest one of a task is log-uniform within :data:`KNOWN_NOISE`. In a third of the tasks, a part of the
    measurements has it and the others have none; in a third, measurements are means of 1 to 10 repeats; in a third,
    deviations are log-uniform over two decades.
    """
    low, high = (math.log(bound) for bound in KNOWN_NOISE)
    largest, kind, part = map(float, _uniform(generator, 3, dtype=torch.float64))
    each = _uniform(generator, count, dtype=torch.float64)
    if kind < 1 / 3:
        shape = (each < part).double()
    elif kind < 2 / 3:
        shape = ((10 * each).floor() + 1).rsqrt()
    else:
        shape = (-2.0 * math.log(10.0) * each).exp()
    return shape * math.exp(low + (high - low) * largest)


def _normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=dtype, device="cpu")


def _uniform(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=dtype, device="cpu")


def _below(generator: torch.Generator, bound: int, *shape: int) -> Tensor:
    return torch.randint(bound, shape, generator=generator, device="cpu")


def _gamma(generator: torch.Generator, concentration: float, count: int) -> Tensor:
    shape = torch.full((count,), concentration, dtype=torch.float64, device="cpu")
    return torch._standard_gamma(shape, generator=generator)


def _standardise(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp_min(1e-9)
