r"""Ranking and calibration metrics; the same ones as functions in :mod:`pyg_nas_np.metrics.functional`."""

import importlib
from typing import TYPE_CHECKING, Any

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

_RANKING = ("KendallTau", "NAtK", "PrecisionAtK", "RegretAtK", "SpearmanRho")


def __getattr__(name: str) -> Any:
    # The package uses only the functions; the classes import torchmetrics and with it matplotlib.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{'ranking' if name in _RANKING else 'calibration'}"), name)
