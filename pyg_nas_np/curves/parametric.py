r"""Extrapolation with parametric curves, fitted to each training separately (LCE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.utils import one_blas_thread


class Family(NamedTuple):
    r"""A family of increasing curves: function of epochs and parameters, initial values, lower and upper bounds."""

    function: Callable[..., Any]
    start: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


FAMILIES: dict[str, Family] = {
    "vapor_pressure": Family(
        lambda t, a, b, c: np.exp(np.clip(a + b / t + c * np.log(t), -50, 5)),
        (-0.5, -0.5, 0.05), (-20, -20, -2), (2, 5, 2),
    ),
    "pow3": Family(lambda t, c, a, s: c - a * t**-s, (0.7, 0.5, 0.5), (-1, -2, 1e-3), (2, 5, 5)),
    "log_log_linear": Family(
        lambda t, a, b: np.log(np.maximum(a * np.log(t) + b, 1e-6)), (0.3, 1.2), (-1, 0.1), (3, 8)
    ),
    "hill3": Family(
        lambda t, y, e, k: y * t**e / (k**e + t**e), (0.7, 1.0, 2.0), (0, 1e-2, 1e-2), (2, 8, 500)
    ),
    "log_power": Family(
        lambda t, a, b, c: a / (1 + (t / np.exp(b)) ** c), (0.7, 0.5, -0.5), (0, -6, -6), (2, 8, -1e-3)
    ),
    "pow4": Family(
        lambda t, c, a, b, s: c - (a * t + b) ** -s, (0.7, 1.0, 1.0, 0.5), (-1, 1e-3, 1e-3, 1e-2), (2, 50, 50, 5)
    ),
    "mmf": Family(
        lambda t, m, b, k, d: m - (m - b) / (1 + (k * t) ** d), (0.7, 0.1, 0.3, 1.0), (0, -1, 1e-3, 1e-2), (2, 1, 20, 5)
    ),
    "exp4": Family(
        lambda t, c, a, b, s: c - np.exp(np.clip(-a * t**s + b, -50, 5)),
        (0.7, 0.3, -0.5, 0.7), (-1, 1e-3, -10, 1e-2), (2, 5, 2, 3),
    ),
    "janoschek": Family(
        lambda t, m, b, k, d: m - (m - b) * np.exp(-np.clip(k * t**d, 0, 50)),
        (0.7, 0.1, 0.3, 0.7), (0, -1, 1e-3, 1e-2), (2, 1, 5, 3),
    ),
    "weibull": Family(
        lambda t, m, b, k, d: m - (m - b) * np.exp(-np.clip((k * t) ** d, 0, 50)),
        (0.7, 0.1, 0.3, 0.7), (0, -1, 1e-3, 1e-2), (2, 1, 5, 3),
    ),
    "ilog2": Family(lambda t, c, a: c - a / np.log(t + 1), (0.7, 0.3), (-1, -2), (2, 3)),
}  # fmt: skip
"""The eleven families of Domhan et al. (2015)."""


class ParametricExtrapolation(CurvePredictor):
    r"""Learning-curve extrapolation (LCE) in the manner of `Domhan et al., 2015
    <https://ml.informatik.uni-freiburg.de/wp-content/uploads/papers/15-IJCAI-Extrapolation_of_Learning_Curves.pdf>`_.

    Each of eleven families of increasing, saturating curves is fitted to the prefix by least squares. In place of the
    paper's Markov chain over their weighted sum, the families are averaged with weights :math:`e^{-\mathrm{AICc}/2}`.
    The standard deviation includes their disagreement and the residual noise. Other trainings only provide the range of
    values, widened by a tenth; extrapolations outside of it are dropped. If all families are dropped, or there are
    fewer than four values, the last value is predicted, with its root mean square error on the finished curves.

    Example:
        >>> epochs = np.arange(1, 31)
        >>> curves = LearningCurves(np.array([[0.9], [0.8], [0.7]]) - 0.5 * epochs**-0.8)
        >>> bool(abs(ParametricExtrapolation().fit(curves).predict(curves, tau=10) - curves.final).max() < 0.01)
        True
    """

    def _fit(self, curves: LearningCurves) -> None:
        flat = self._forward(curves.values[curves.mask])
        self.low_, self.high_ = float(flat.min()), float(flat.max())

    def _forward(self, values: Floats) -> Floats:
        # The families increase; losses are negated, and positive ones are transformed to logarithms first.
        if self.curves_.direction == "up":
            return values
        self.log_ = bool((self.curves_.values[self.curves_.mask] > 0).all())
        return -np.log(np.maximum(values, 1e-12)) if self.log_ else -values

    def _back(self, values: Floats) -> Floats:
        if self.curves_.direction == "up":
            return values
        return np.exp(-values) if self.log_ else -values

    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        known = self._context(tau)
        missed = self._forward(known.observed(tau)[:, -1]) - self._forward(known.final)
        error = float(np.sqrt(np.mean(missed**2)))
        span = self.high_ - self.low_
        # Fitted on a common scale, so that the same initial values and bounds apply to accuracies in any unit.
        rows = (self._forward(curves.observed(tau)) - self.low_) / span
        pairs = np.array([self._one(row, len(curves.epochs), error / span) for row in rows])
        mean, std = self.low_ + span * pairs[:, 0], span * pairs[:, 1]
        back = self._back(mean)
        return back, std * (np.abs(back) if curves.direction == "down" and self.log_ else 1.0)

    @staticmethod
    def _one(y: Floats, total: int, error: float) -> tuple[float, float]:
        """Mean and standard deviation of the last of :obj:`total` values."""
        t = np.arange(1, len(y) + 1, dtype=np.float64)
        means, noises, scores = [], [], []
        for family in FAMILIES.values():
            count = len(family.start)
            if len(y) < max(4, count):
                continue
            start = np.array(family.start)
            with one_blas_thread():
                fit = least_squares(
                    lambda p, f=family.function: f(t, *p) - y, start, bounds=(family.low, family.high), max_nfev=200
                )
            end = float(family.function(np.float64(total), *fit.x))
            if not -0.1 <= end <= 1.1:
                continue
            variance = max(2.0 * fit.cost / len(y), 1e-8)
            slack = max(len(y) - count - 2, 1)
            means.append(end)
            noises.append(variance * len(y) / max(len(y) - count, 1))
            scores.append(len(y) * np.log(variance) + 2 * (count + 1) * (1 + (count + 2) / slack))
        if not means:
            return float(y[-1]), error
        weights = np.exp(-0.5 * (np.array(scores) - min(scores)))
        weights /= weights.sum()
        mean = float(weights @ means)
        return mean, float(np.sqrt(weights @ (np.array(noises) + (np.array(means) - mean) ** 2)))
