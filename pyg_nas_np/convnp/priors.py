r"""Priors of functions over a search space, from which tasks are synthesised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pyg_nas_np.convnp.auxiliary import check_foreign
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.predictors.kernels import LENGTH, VARIANCE

Prior = Callable[[Tensor, torch.Generator], Tensor]
"""Draws one function at some rows ``[n]`` of a table of architectures: values ``[n]`` float64."""


def additive_gp_prior(table: Tensor, groups: Mapping[str, Sequence[int]]) -> Prior:
    r"""Returns the prior of additive Gaussian processes over feature groups.

    A function is a sum over groups of Matérn-3/2 processes. Log length-scales and log variances are drawn from the
    normal distributions that the GP predictor uses as its hyperprior, so that some groups matter and others do not.

    Args:
        table: Descriptors, ``[A, F]``.
        groups: Columns of each feature group.
    """
    columns = [list(c) for c in groups.values()]

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        x = table[rows].double()
        covariance = torch.zeros(x.size(0), x.size(0), dtype=torch.float64)
        lengths = (LENGTH.mean + LENGTH.std * torch.randn(len(columns), generator=generator)).exp().tolist()
        variances = (VARIANCE.mean + VARIANCE.std * torch.randn(len(columns), generator=generator)).exp()
        for part, length, variance in zip(columns, lengths, (variances / variances.sum()).tolist(), strict=True):
            scaled = x[:, part] / math.sqrt(len(part))
            r = math.sqrt(3.0) / length * torch.cdist(scaled, scaled)
            covariance += variance * (1.0 + r) * (-r).exp()
        covariance.diagonal().add_(1e-6)
        white = torch.randn(x.size(0), generator=generator, dtype=torch.float64)
        values: Tensor = torch.linalg.cholesky(covariance) @ white
        return values

    return draw


def network_prior(coordinates: Tensor) -> Prior:
    r"""Returns the prior of random networks: combinations of their principal coordinates, few of them large.

    Args:
        coordinates: Those of :class:`~pyg_nas_np.features.RandomNetworks`, ``[A, R]``; of another seed than the ones
            that a predictor uses, so that no task is exactly in its span.
    """

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        count = coordinates.size(1)
        chi = torch.randn(3, count, generator=generator).square().sum(dim=0) / 3
        weights = torch.randn(count, generator=generator) / chi.sqrt()
        return (coordinates[rows] @ weights).double()

    return draw


def trend_prior(table: Tensor, column: int) -> Prior:
    r"""Returns the prior of mechanisms along the prior trend: monotone, saturating more or less, mostly upwards.

    Args:
        table: Descriptors, ``[A, F]``.
        column: Column of the trend.
    """

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        h = table[rows, column].double()
        bend, sign = torch.rand(2, generator=generator).tolist()
        curve = torch.tanh(0.3 + 1.5 * bend * h) if bend > 0.3 else h
        return curve if sign < 0.9 else -curve

    return draw


def tree_prior(table: Tensor, columns: Sequence[int], num_trees: int = 30, depth: int = 3) -> Prior:
    r"""Returns the prior of sums of random trees: steps and interactions of a few features.

    Args:
        table: Descriptors, ``[A, F]``.
        columns: Columns that the trees may split on.
        num_trees: Number of trees.
        depth: Splits from the root to a leaf; all nodes of a level share one split.
    """
    candidates = torch.tensor(columns)

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        x = table[rows]
        # Few features matter in one task.
        relevant = candidates[torch.randint(len(candidates), (12,), generator=generator)]
        chosen = relevant[torch.randint(len(relevant), (num_trees, depth), generator=generator)]
        thresholds = x[torch.randint(x.size(0), (num_trees, depth), generator=generator), chosen]
        right = x[:, chosen] > thresholds
        leaf = (right * 2 ** torch.arange(depth)).sum(dim=2)
        values = torch.randn(num_trees, 2**depth, generator=generator, dtype=torch.float64)
        total: Tensor = values.expand(x.size(0), -1, -1).gather(2, leaf.unsqueeze(2)).sum(dim=(1, 2))
        return total

    return draw


def table_prior(labels: Mapping[str, Tensor], target: str) -> Prior:
    r"""Returns the prior of real tables: random mixtures of the ranks of measured labels of other tasks.

    Args:
        labels: Name of each table → its labels ``[A]``. A name is ``dataset/metric``.
        target: Data set that will be predicted. No table of it may take part, whatever its metric or number of epochs.

    Raises:
        InvalidLabelsError: If a table belongs to :obj:`target`, or a label is missing.
    """
    check_foreign(labels, target)
    ranks = torch.stack([_standardise(y.double().argsort().argsort().double()) for y in labels.values()], dim=1)

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        # Dirichlet(0.3) by Gamma variates: mostly one table, sometimes a mixture.
        gamma = torch._standard_gamma(torch.full((ranks.size(1),), 0.3, dtype=torch.float64), generator=generator)
        return ranks[rows] @ (gamma / gamma.sum().clamp_min(1e-12))

    return draw


def mixture_prior(parts: Sequence[Prior], concentration: float = 3.0) -> Prior:
    r"""Returns a prior over all mechanisms at once, as a benchmark might have measured it.

    Each function is a sum of draws from :obj:`parts` with Dirichlet weights, bent by a random monotone map (skewed and
    heavy- or light-tailed), with noise whose level grows towards bad architectures, and in one of ten tasks with a few
    failed measurements.

    Args:
        parts: Priors of single mechanisms.
        concentration: Of the Dirichlet distribution; the larger, the more mechanisms matter in one task, so that no
            single base predictor is right about it.
    """

    def draw(rows: Tensor, generator: torch.Generator) -> Tensor:
        concentrations = torch.full((len(parts),), concentration, dtype=torch.float64)
        weights = torch._standard_gamma(concentrations, generator=generator)
        values = torch.zeros(rows.numel(), dtype=torch.float64)
        for part, weight in zip(parts, (weights / weights.sum()).sqrt().tolist(), strict=True):
            if weight > 0.05:
                values += weight * _standardise(part(rows, generator))
        values = _standardise(values)
        skew, tail, level, slope = torch.randn(4, generator=generator).tolist()
        values = _standardise(torch.sinh(values.asinh() * math.exp(0.3 * tail) - 0.5 * skew))
        noise = torch.randn(rows.numel(), generator=generator, dtype=torch.float64)
        scale = math.exp(0.5 * (math.log(0.04) + level))
        values = values + scale * (-0.3 * abs(slope) * values.clamp(-3.0, 3.0)).exp() * noise
        if float(torch.rand((), generator=generator)) < 0.1:
            failed = torch.rand(rows.numel(), generator=generator) < 0.02
            values = torch.where(failed, values.min() - 2.0, values)
        return values

    return draw


def space_prior(table: Tensor, groups: Mapping[str, list[int]], coordinates: Tensor) -> Prior:
    r"""Returns the mixture of all mechanisms that a space has descriptors for.

    Args:
        table: Descriptors, ``[A, F]``.
        groups: Their groups.
        coordinates: Coordinates of random networks of another seed, ``[A, R]``.
    """
    features = {name: columns for name, columns in groups.items() if name not in (NETWORKS, TREND)}
    every = [column for columns in features.values() for column in columns]
    parts = [additive_gp_prior(table, features), network_prior(coordinates), tree_prior(table, every)]
    # Random networks describe real tables best, and are counted twice.
    parts.append(network_prior(coordinates))
    if TREND in groups:
        parts.append(trend_prior(table, groups[TREND][0]))
    return mixture_prior(parts)


def _standardise(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp_min(1e-9)
