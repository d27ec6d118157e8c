r"""Ranking and calibration metrics; the same ones as functions in :mod:`pyg_nas_np.metrics.functional`."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.metrics.calibration import CalibrationError, GaussianCRPS, GaussianNLL, IntervalCoverage, SampleCRPS
    from pyg_nas_np.metrics.ranking import KendallTau, NAtK, PrecisionAtK, RegretAtK, SpearmanRho

__all__ = [
    "CalibrationError",
    "GaussianCRPS",
    "GaussianNLL",
    "IntervalCoverage",
    "KendallTau",
    "NAtK",
    "PrecisionAtK",
    "RegretAtK",
    "SampleCRPS",
    "SpearmanRho",
]

attach(__name__)
