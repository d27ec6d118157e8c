r"""The process behind latencies of a new device: a level, the mean known device, and a combination of known devices."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.utils import seeded

SCALES = range(-4, 5)
"""Logarithms of the variance of the weights of known devices, times their number."""

NOISES = range(-11, -1)
"""Logarithms of the noise variance of a log latency: standard deviations from .4 % to 37 %."""

TASKS = 3
"""Sets of architectures for which each known device plays the new one."""

SHOWN = 15
"""Architectures of such a set."""

_ROUNDS = 3
_LEAST = 1e-4


class DeviceProcess:
    r"""Log latencies of a new device as a level, the mean of known devices, and a combination of them.

    The weights of the standardised known devices are independent, their number times their variance and the noise
    variance are unknown: a grid of both, averaged by marginal likelihood. The level has a flat prior.

    Args:
        spreads: Standard deviation of each known device over architectures, ``[D]``.
        chances: Prior of the cells of the grid, ``[G]``; see :func:`grid_chances`.

    Example:
        >>> known = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> process = DeviceProcess(known.std(dim=0), grid_chances(known)).fit(known[:10], 7 + known[:10, 0])
        >>> mean, variance = process.predict(known[10:])
        >>> bool((mean - 7 - known[10:, 0]).abs().max() < 0.1)
        True
    """

    def __init__(self, spreads: Tensor, chances: Tensor) -> None:
        self.spreads = spreads
        self.chances = chances

    def fit(self, known: Tensor, y: Tensor) -> Self:
        r"""Conditions on log latencies.

        Args:
            known: Centred log latencies on the known devices, ``[n, D]``, ``n >= 1``.
            y: Log latencies on the new device, ``[n]``.
        """
        self.known, self.y = known, y
        features = self._features(known)
        values, vectors = torch.linalg.eigh(features @ features.T)
        parts = _solve(values, vectors, y - known.mean(dim=1))
        posterior = (parts.log_evidence + self.chances.log()).softmax(dim=0)
        kept = (posterior > _LEAST).nonzero().flatten()
        self._posterior = posterior[kept] / posterior[kept].sum()
        self._scale, self._noise = _grid()[kept].unbind(dim=1)
        self._level, self._inverse = parts.level[kept], parts.inverse[kept]
        # Of the features, per cell of the grid.
        self._weights = self._scale.unsqueeze(1) * (parts.residual[kept] @ (vectors.T @ features))
        self._ones = (vectors.T @ torch.ones_like(y)) * self._inverse
        self._precision = (self._ones * (vectors.T @ torch.ones_like(y))).sum(dim=1)
        self._map = vectors.T @ features
        return self

    def predict(self, known: Tensor, errors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Predicts log latencies of new measurements.

        Args:
            known: Log latencies on the known devices, ``[m, D]``.
            errors: Variances of their errors, ``[m, D]``. (default: zero)

        Returns:
            Means and variances, ``[m]`` each.
        """
        features = self._features(known)
        mean = known.mean(dim=1).unsqueeze(1) + self._level + features @ self._weights.T
        cross = features @ self._map.T
        variances = []
        own = features.square().sum(dim=1)
        for scale, noise, inverse, ones, precision in zip(
            self._scale, self._noise, self._inverse, self._ones, self._precision, strict=True
        ):
            explained = scale.square() * (cross.square() @ inverse)
            level = (1.0 - scale * (cross @ ones)).square() / precision
            variances.append((scale * own - explained).clamp_min(0.0) + level + noise)
        within = torch.stack(variances, dim=1)
        if errors is not None:
            slopes = 1.0 / known.size(1) + self._weights / (self.spreads * known.size(1) ** 0.5)
            within = within + errors @ slopes.square().T
        centre = mean @ self._posterior
        return centre, within @ self._posterior + (mean - centre.unsqueeze(1)).square() @ self._posterior

    def _features(self, known: Tensor) -> Tensor:
        features: Tensor = known / (self.spreads * known.size(1) ** 0.5)
        return features


class _Parts(NamedTuple):
    """What follows from log latencies, for each cell of the grid."""

    log_evidence: Tensor
    level: Tensor
    residual: Tensor
    inverse: Tensor


def _solve(values: Tensor, vectors: Tensor, y: Tensor) -> _Parts:
    """Solves the process on eigenvalues ``[n]`` and eigenvectors ``[n, n]`` of the unscaled kernel."""
    scale, noise = _grid().unsqueeze(2).unbind(dim=1)
    total = scale * values.clamp_min(0.0) + noise
    turned, ones = vectors.T @ y, vectors.T @ torch.ones_like(y)
    precision = (ones.square() / total).sum(dim=1)
    level = (turned * ones / total).sum(dim=1) / precision
    residual = turned - level.unsqueeze(1) * ones
    evidence = (residual.square() / total + total.log()).sum(dim=1) + precision.log()
    return _Parts(-0.5 * evidence, level, residual / total, 1.0 / total)


def _grid() -> Tensor:
    """Variances of the weights and of the noise, ``[G, 2]``."""
    return torch.tensor(list(itertools.product(SCALES, NOISES)), dtype=torch.float64, device="cpu").exp()


def grid_chances(known: Tensor, measured: Tensor | None = None, seed: int = 0) -> Tensor:
    r"""Returns how likely each pair of variances is, learned from known devices: each plays the new one in turn.

    The prior of the pairs is the mean of their posteriors over devices and sets of architectures, three times in turn
    (an expectation-maximisation). With less than three devices, all are equally likely.

    Args:
        known: Centred log latencies on the known devices, ``[R, D]``.
        measured: Which of them were measured, bool ``[R, D]``; the others do not play. (default: all)
        seed: Seed of the sets of architectures.

    Returns:
        ``[G]``, with sum 1.
    """
    cells = len(SCALES) * len(NOISES)
    chances = known.new_full((cells,), 1.0 / cells)
    if known.size(1) < 3:
        return chances
    generator, found = seeded(seed), []
    for d in range(known.size(1)):
        others = torch.cat([known[:, :d], known[:, d + 1 :]], dim=1)
        features = others / (others.std(dim=0).clamp_min(1e-9) * others.size(1) ** 0.5)
        rows = torch.arange(len(known)) if measured is None else measured[:, d].nonzero().flatten()
        for _ in range(TASKS):
            shown = rows[torch.randperm(len(rows), generator=generator, device="cpu")[:SHOWN]]
            values, vectors = torch.linalg.eigh(features[shown] @ features[shown].T)
            found.append(_solve(values, vectors, known[shown, d] - others[shown].mean(dim=1)).log_evidence)
    evidence = torch.stack(found)
    for _ in range(_ROUNDS):
        chances = (evidence + chances.log()).softmax(dim=1).mean(dim=0) + _LEAST / cells
        chances = chances / chances.sum()
    return chances
