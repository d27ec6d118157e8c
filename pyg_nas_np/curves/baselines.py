r"""The trivial baseline: the last value."""

from __future__ import annotations

import numpy as np

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Floats, LearningCurves


class LastSeenValue(CurvePredictor):
    r"""Predicts the last value; the standard deviation is its root mean square error on finished curves.

    Example:
        >>> curves = LearningCurves([[0.2, 0.4, 0.5], [0.1, 0.3, 0.3], [0.3, 0.6, 0.7]])
        >>> LastSeenValue().fit(curves).predict(curves, tau=2)
        array([0.4, 0.3, 0.6])
    """

    def _fit(self, curves: LearningCurves) -> None:
        pass

    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        known = self._context(tau)
        errors = known.final - known.observed(tau)[:, -1]
        return curves.observed(tau)[:, -1], np.full(len(curves), np.sqrt(np.mean(errors**2)))
