r"""The scale of curves for networks."""

from __future__ import annotations

import numpy as np

from pyg_nas_np.curves.data import Floats, LearningCurves


class CurveScale:
    r"""Standardises values by the final values of finished curves; positive values to minimise become logarithms.

    Args:
        curves: Finished curves.

    Example:
        >>> scale = CurveScale(LearningCurves([[0.1, 0.4], [0.2, 0.6]]))
        >>> scale.forward(np.array([0.4, 0.6])).round(6)
        array([-1.,  1.])
    """

    def __init__(self, curves: LearningCurves) -> None:
        self.log = curves.direction == "down" and bool((curves.values[curves.mask] > 0).all())
        final = self._raw(curves.final)
        self.center, self.width = float(final.mean()), float(final.std()) or 1.0

    def _raw(self, values: Floats) -> Floats:
        return np.log(np.maximum(values, 1e-12)) if self.log else values

    def forward(self, values: Floats) -> Floats:
        r"""Returns values on the scale; values that are not finite become NaN."""
        clean = np.where(np.isfinite(values), values, np.nan)
        return np.asarray((self._raw(clean) - self.center) / self.width)

    def back(self, mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        r"""Returns means (medians for logarithms) and standard deviations on the scale of the curves."""
        value, spread = self.center + self.width * mean, self.width * std
        if not self.log:
            return value, spread
        # Clipped, because the exponential would overflow far beyond any curve.
        value = np.exp(np.clip(value, -700, 700))
        return value, value * spread
