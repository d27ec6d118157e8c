r"""Metrics as functions of tensors."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.metrics.functional.calibration import (
        calibration_error,
        gaussian_crps,
        gaussian_nll,
        gaussian_pit,
        interval_coverage,
        sample_crps,
    )
    from pyg_nas_np.metrics.functional.ranking import kendall_tau, n_at_k, precision_at_k, regret_at_k, spearman_rho

__all__ = [
    "calibration_error",
    "gaussian_crps",
    "gaussian_nll",
    "gaussian_pit",
    "interval_coverage",
    "kendall_tau",
    "n_at_k",
    "precision_at_k",
    "regret_at_k",
    "sample_crps",
    "spearman_rho",
]

attach(__name__)
