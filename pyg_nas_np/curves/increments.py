r"""Prediction of final values from the third finished training on: a Gaussian process of what a curve still gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import stdtr
from typing_extensions import Self, override

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.curves.features import wide_columns

DEGREES = 5.0
"""Degrees of freedom of the scale's prior: what is known of it counts as much as five finished trainings."""

SCALE = 0.3
"""Its centre at the first epoch, relative to the spread of the trainings; it falls with the root of what is left."""

CENTRES = {"slope": 0.1, "gain": 0.2, "shape": 0.2, "feature": 0.2, "noise": 0.1}
"""Medians of the log-normal variances of the kernels, relative to the squared scale."""

LENGTH = 2.0
"""Median of the length-scales on standardised columns."""

OFFSET = 10.0
"""Variance of the common increment: nothing is known of it."""

STUCK = 5
"""Number of equal values from which a training is stuck."""

GRID = 20
"""Stopped trainings are cut to multiples of this share of a full one, so that few sets of them differ in length."""

LARGEST = 64
"""Number of stopped trainings used, the longest first; more would cost time and tell little."""

RARE = 1e-3
"""Settings whose joint posterior weight is smaller are dropped."""


class _Settings(NamedTuple):
    """Draws of the hyperparameters from their prior, ``[K]`` each."""

    slope: Floats
    gain: Floats
    shape: Floats
    feature: Floats
    noise: Floats
    shape_length: Floats
    feature_length: Floats
    scale: Floats

    @classmethod
    def draw(cls, count: int, seed: int) -> _Settings:
        rng = np.random.default_rng(seed)
        variances = [np.exp(rng.normal(np.log(centre), 1.0, count)) for centre in CENTRES.values()]
        lengths = [np.exp(rng.normal(np.log(LENGTH), 0.7, count)) for _ in range(2)]
        scale = np.exp(rng.normal(np.log(SCALE), 1.0, count))
        return cls(*[np.asarray(column) for column in (*variances, *lengths, scale)])

    def take(self, keep: NDArray[np.int64]) -> _Settings:
        return _Settings(*(column[keep] for column in self))


class _Inputs(NamedTuple):
    """What the kernels see of ``n`` prefixes."""

    level: Floats
    gains: Floats
    shape: Floats
    described: Floats


def _matern(distances: Floats, lengths: Floats) -> Floats:
    r = np.sqrt(5.0) * distances / lengths[:, None, None]
    return np.asarray((1.0 + r + r * r / 3.0) * np.exp(-r))


def _apart(a: Floats, b: Floats) -> Floats:
    return np.asarray(cdist(a, b) / np.sqrt(a.shape[1]))


def _kernel(settings: _Settings, a: _Inputs, b: _Inputs) -> Floats:
    """Covariances of increments without noise, ``[K, n, m]``, relative to the squared scale."""
    total = OFFSET + settings.slope[:, None, None] * np.outer(a.level, b.level)
    total += settings.shape[:, None, None] * _matern(_apart(a.shape, b.shape), settings.shape_length)
    if a.gains.shape[1]:
        total += settings.gain[:, None, None] * (a.gains @ b.gains.T / a.gains.shape[1])
    if a.described.shape[1]:
        linear = a.described @ b.described.T / a.described.shape[1]
        nonlinear = _matern(_apart(a.described, b.described), settings.feature_length)
        total += settings.feature[:, None, None] * (nonlinear + linear) / 2.0
    return np.asarray(total)


def _variances(settings: _Settings, a: _Inputs) -> Floats:
    """Variances with noise, ``[K, n]``."""
    total = OFFSET + settings.slope[:, None] * a.level**2 + (settings.shape + settings.noise)[:, None]
    if a.gains.shape[1]:
        total = total + settings.gain[:, None] * np.square(a.gains).mean(1)
    if a.described.shape[1]:
        total = total + settings.feature[:, None] * (1.0 + np.square(a.described).mean(1)) / 2.0
    return np.asarray(total)


def _unit(reference: Floats, floor: Floats | float) -> tuple[Floats, Floats]:
    """Mean and standard deviation of columns; a constant column is scaled by the floor."""
    mean, std = reference.mean(0), reference.std(0)
    return mean, np.where(std > 1e-9 * (floor + np.abs(mean)), std, floor)


def _summary(seen: Floats) -> Floats:
    """The last value, then means of the last tenth of the prefix and of its halves, ``[n, S]``."""
    ends = [seen.shape[1]]
    while ends[-1] > 1 and len(ends) < 4:
        ends.append(ends[-1] // 2)
    means = [seen[:, end - int(np.ceil(0.1 * end)) : end].mean(1) for end in ends]
    return np.stack([seen[:, -1], *means] if seen.shape[1] > 1 else means, axis=1)


@dataclass
class _Scaler:
    """Standardises prefixes by those of a fit."""

    centre: float
    spread: float
    unit: tuple[Floats, Floats]
    described: tuple[Floats, Floats]
    varied: NDArray[np.bool_]

    @classmethod
    def of(cls, seen: Floats, final: Floats, described: Floats) -> _Scaler:
        levels = _summary(seen)
        spread = float(np.sqrt((levels[:, 0].var() + final.var()) / 2.0))
        spread = max(spread, 1e-9 * float(np.abs(final).max()), 1e-300)
        columns = np.column_stack([levels[:, 0], levels[:, :-1] - levels[:, 1:]])
        varied = described.std(0) > 1e-9 * np.abs(described).max(0, initial=1e-300)
        return cls(float(levels[:, 0].mean()), spread, _unit(columns, spread), _unit(described[:, varied], 1.0), varied)

    def __call__(self, seen: Floats, described: Floats) -> _Inputs:
        levels = _summary(seen)
        columns = np.column_stack([levels[:, 0], levels[:, :-1] - levels[:, 1:]])
        columns = (columns - self.unit[0]) / self.unit[1]
        told = (described[:, self.varied] - self.described[0]) / self.described[1]
        # A gain far outside is not extrapolated; the level may be.
        gains = columns[:, 1:].clip(-5.0, 5.0)
        return _Inputs((levels[:, 0] - self.centre) / self.spread, gains, columns.clip(-5.0, 5.0), told.clip(-3.0, 3.0))


class _Mixture(NamedTuple):
    """Student's t distributions of final values ``[K, m]``, with the weights ``[K]`` of their settings."""

    mean: Floats
    scale: Floats
    degrees: float
    weights: Floats

    def moments(self) -> tuple[Floats, Floats]:
        mean = self.weights @ self.mean
        wide = self.degrees / (self.degrees - 2.0) * self.scale**2
        return mean, np.sqrt(self.weights @ (wide + (self.mean - mean) ** 2))

    def below(self, value: float) -> Floats:
        return np.asarray(self.weights @ stdtr(self.degrees, (value - self.mean) / self.scale))


class _Stage:
    r"""The fit for one number of observed epochs.

    Args:
        settings: Draws from the prior, their scales in units of the curves' spread.
        left: Share of the training that is left.
        seen: Prefixes ``[n, tau]``, finished trainings first.
        described: Features of the configurations ``[n, F]``.
        final: Final values ``[n]``; those of stopped trainings are predictions.
        variance: Of these predictions, ``[p]``.
    """

    def __init__(
        self, settings: _Settings, left: float, seen: Floats, described: Floats, final: Floats, variance: Floats
    ) -> None:
        done = len(final) - len(variance)
        self.scaler = _Scaler.of(seen, final, described)
        inputs = self.scaler(seen, described)
        gain = final - seen[:, -1]
        prior = (settings.scale * self.scaler.spread) ** 2 * left
        # Only finished trainings decide about scale and weights: what is predicted by a setting would confirm it.
        first = _Inputs(*(part[:done] for part in inputs))
        noise = settings.noise[:, None, None]
        kernel = _kernel(settings, first, first) + noise * np.eye(done)
        factor: Floats = np.asarray(np.linalg.cholesky(kernel))
        solved = _solve(factor, gain[:done])
        self.degrees = DEGREES + done
        total = DEGREES * prior + np.square(solved).sum(1)
        weights = -_log_diagonal(factor) - 0.5 * self.degrees * np.log(total) + 0.5 * DEGREES * np.log(prior)
        keep = np.flatnonzero(weights >= weights.max() + np.log(RARE / len(weights)))
        self.settings, self.square = settings.take(keep), (total / self.degrees)[keep]
        weights, factor, solved = weights[keep], factor[keep], solved[keep]
        if len(variance):
            kernel = _kernel(self.settings, inputs, inputs)
            told = np.concatenate([np.zeros(done), variance])
            kernel += (self.settings.noise[:, None] + told / self.square[:, None])[:, :, None] * np.eye(len(final))
            factor = np.asarray(np.linalg.cholesky(kernel))
            solved = _solve(factor, gain)
        self.inputs, self.factor, self.solved = inputs, factor, solved
        weights = np.exp(weights - weights.max())
        self.weights = weights / weights.sum()

    def _project(self, inputs: _Inputs) -> Floats:
        return np.asarray(np.linalg.solve(self.factor, _kernel(self.settings, self.inputs, inputs)))

    def predict(self, seen: Floats, described: Floats) -> _Mixture:
        inputs = self.scaler(seen, described)
        projected = self._project(inputs)
        mean = seen[:, -1] + np.einsum("knm,kn->km", projected, self.solved)
        left = np.maximum(_variances(self.settings, inputs) - np.square(projected).sum(1), 1e-12)
        return _Mixture(mean, np.sqrt(left * self.square[:, None]), self.degrees, self.weights)


def _solve(factor: Floats, values: Floats) -> Floats:
    return np.asarray(np.linalg.solve(factor, np.broadcast_to(values[None, :, None], (*factor.shape[:2], 1)))[..., 0])


def _log_diagonal(factor: Floats) -> Floats:
    return np.asarray(np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1))


class IncrementGP(CurvePredictor):
    r"""Predicts what a curve still gains, with an uncertainty that is honest from three finished trainings on.

    For every number :math:`\tau` of observed epochs, the increment :math:`y_T - y_\tau` is a Gaussian process of the
    level, of the recent gains and of the features of the configuration. An increment needs less data than a level: its
    prior already says that a curve that is better now ends better. The common increment has a vague prior, and the
    scale an inverse-gamma prior, so that predictions are Student's t. Variances and length-scales are not fitted:
    predictions are averaged over draws from their prior, weighted by the marginal likelihood. With few curves all draws
    count, with many the best.

    **Trainings that were stopped are data too.** Finished ones are a selection of the good ones, and few. A
    stopped training is one more observation for shorter prefixes: its final value is predicted from all that it has,
    and enters with the variance of this prediction. This is valid because a rule stops by observed values only. Scale
    and weights are left to the finished trainings; correlations of these predictions are not used, because with them
    predictions became worse and too certain.

    Curves that are positive and to be minimised are transformed to logarithms. A training whose values so far (at least
    five) are all equal is predicted to stay there and is left out of the other fits.

    Args:
        draws: Number of settings that are averaged.
        random_state: Seed of the draws.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> height, rate = rng.uniform(0.5, 0.9, (60, 1)), rng.uniform(0.2, 0.4, (60, 1))
        >>> curves = LearningCurves(height * (1 - np.exp(-rate * np.arange(1, 21))))
        >>> few, many = (IncrementGP().fit(curves[:n]).predict(curves[40:], tau=8, return_std=True) for n in (3, 40))
        >>> bool(few[1].mean() > 2 * many[1].mean())
        True
        >>> stopped = IncrementGP().fit(LearningCurves.concat([curves[:3], curves[3:40].truncate(12)]))
        >>> bool(stopped.predict(curves[40:], tau=8, return_std=True)[1].mean() < few[1].mean())
        True
    """

    uses_stopped = True

    def __init__(self, *, draws: int = 32, random_state: int = 0) -> None:
        self.draws = draws
        self.random_state = random_state

    @override
    def fit(self, curves: LearningCurves) -> Self:
        r"""Learns from the finished curves and from the beginnings of others; diverged ones are ignored.

        Raises:
            InvalidCurvesError: If fewer than :attr:`minimum` are finished.
        """
        if isinstance(curves, LearningCurves):
            self.stopped_ = curves[~curves.finished & ~curves.diverged & np.asarray(curves.mask.any(1))]
        return super().fit(curves)

    def _fit(self, curves: LearningCurves) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1 but is {self.draws}")
        total = len(curves.epochs)
        marks = np.unique(np.linspace(0, total, GRID + 1).round().astype(int))[1:-1]
        lengths = np.minimum(self.stopped_.lengths, total - 1)
        cut = np.concatenate([[0], marks])[np.searchsorted(marks, lengths, side="right")]
        # The latest of equally long ones first: a search moves on.
        longest = np.argsort(-cut[::-1], kind="stable")[:LARGEST]
        longest = np.sort(len(cut) - 1 - longest[cut[::-1][longest] > 0])
        self.cut_ = cut[longest]
        self.all_ = LearningCurves.concat([curves, self.stopped_[longest]]) if len(longest) else curves
        positive = bool((self.all_.values[self.all_.mask] > 0).all())
        self.log_ = positive and curves.direction == "down"
        self.wide_ = wide_columns(self.all_)
        self.settings_ = _Settings.draw(self.draws, self.random_state)
        self.stages_: dict[int, _Stage] = {}
        self.told_: dict[int, tuple[Floats, Floats]] = {}

    def _forward(self, values: Floats, curves: LearningCurves) -> Floats:
        """Values on the scale of the fit, where more is better."""
        return -np.log(np.maximum(values, 1e-12)) if self.log_ else curves.sign * values

    def _described(self, curves: LearningCurves) -> Floats:
        columns = {**curves.architecture, **curves.hyperparameters}
        tiny = np.finfo(np.float32).tiny
        table = [np.log(np.maximum(c, tiny)) if name in self.wide_ else c for name, c in columns.items()]
        return np.stack(table, axis=1) if table else np.empty((len(curves), 0))

    def _stage(self, tau: int) -> _Stage:
        if tau not in self.stages_:
            done = len(self.curves_)
            self._context(tau)  # Raises if too few have a value.
            rows = [i for i in range(done) if self.curves_.mask[i, :tau].any()]
            free = [i for i in rows if not self._is_stuck(self.all_[[i]], tau)[0]]
            rows = free if len(free) >= self.minimum else rows
            means, variances = [self._forward(self.curves_.final[rows], self.curves_)], [np.empty(0)]
            for length in sorted({*self.cut_.tolist()}, reverse=True):
                group = done + np.flatnonzero(self.cut_ == length)
                if length <= tau:
                    break
                part = self.all_[group]
                usable = np.asarray(part.mask[:, :tau].any(1)) & ~self._is_stuck(part, length)
                if usable.any():
                    mean, std = self._told(length, group)
                    rows += group[usable].tolist()
                    means.append(mean[usable])
                    variances.append(std[usable] ** 2)
            known = self.all_[rows]
            left = 1.0 - tau / len(known.epochs)
            seen = self._forward(known.observed(tau), known)
            described, final, variance = self._described(known), np.concatenate(means), np.concatenate(variances)
            self.stages_[tau] = _Stage(self.settings_, left, seen, described, final, variance)
        return self.stages_[tau]

    def _told(self, length: int, group: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """What the stopped trainings of one length are predicted to end at, and the standard deviations."""
        if length not in self.told_:
            part = self.all_[group]
            seen = self._forward(part.observed(length), part)
            self.told_[length] = self._stage(length).predict(seen, self._described(part)).moments()
        return self.told_[length]

    def _is_stuck(self, curves: LearningCurves, tau: int) -> NDArray[np.bool_]:
        """Which trainings are stuck after :obj:`tau` epochs; none if a finished one has recovered from that."""

        def still(some: LearningCurves) -> NDArray[np.bool_]:
            alike = np.ptp(some.observed(tau), axis=1) == 0.0
            return np.asarray(alike & (some.mask[:, :tau].sum(1) >= STUCK))

        found = still(curves)
        if found.any():
            context = self._context(tau)
            known = still(context)
            recovered = known & (context.final != context.observed(tau)[:, -1])
            if recovered.any() or (~known).sum() < self.minimum:
                return np.zeros_like(found)
        return found

    def _mixture(self, curves: LearningCurves, tau: int) -> _Mixture:
        seen = self._forward(curves.observed(tau), curves)
        mixture = self._stage(tau).predict(seen, self._described(curves))
        return mixture._replace(mean=np.where(self._is_stuck(curves, tau), seen[:, -1], mixture.mean))

    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        mean, std = self._mixture(curves, tau).moments()
        if not self.log_:
            return curves.sign * mean, std
        # The median of a log-normal, and its standard deviation to first order; clipped far beyond any curve.
        median = np.exp(np.clip(-mean, -700.0, 700.0))
        return median, median * std

    @override
    def probability_not_better(self, curves: LearningCurves, value: float, tau: int | None = None) -> Floats:
        r"""Returns the probability that final values are not better than a value, ``[n]``."""
        chances = super().probability_not_better(curves, value, tau)
        if not self.constant_:
            lengths = curves.lengths if tau is None else np.full(len(curves), tau)
            bar = float(self._forward(np.array([value]), curves)[0])
            for length in np.unique(lengths[lengths < len(curves.epochs)]).tolist():
                rows = np.flatnonzero(lengths == length)
                chances[rows] = self._mixture(curves[rows].truncate(length), length).below(bar)
        return chances
