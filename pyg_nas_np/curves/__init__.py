r"""Learning curves: data and readers, prediction of final values, early stopping, Hyperband, replay."""

from typing import TYPE_CHECKING

# Named as its module, which would hide it when it is loaded.
from pyg_nas_np.curves.replay import replay
from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.curves.base import CurvePredictor
    from pyg_nas_np.curves.baselines import LastSeenValue
    from pyg_nas_np.curves.bayesian import BayesianCurveNet
    from pyg_nas_np.curves.convnp import CurveConvNP
    from pyg_nas_np.curves.data import LearningCurves
    from pyg_nas_np.curves.early_stopping import Decision, EarlyStopping, StoppingRule
    from pyg_nas_np.curves.features import curve_features
    from pyg_nas_np.curves.hyperband import FastHyperband, Hyperband, HyperbandResult, RacingHyperband, RecordedRun, Run
    from pyg_nas_np.curves.increments import IncrementGP
    from pyg_nas_np.curves.parametric import ParametricExtrapolation
    from pyg_nas_np.curves.readers import (
        curves_of,
        read_baker,
        read_lightning_logs,
        read_long,
        read_naap440,
        read_nasbench201_curves,
    )
    from pyg_nas_np.curves.replay import Replay
    from pyg_nas_np.curves.sequential import SequentialRegression

__all__ = [
    "BayesianCurveNet",
    "CurveConvNP",
    "CurvePredictor",
    "Decision",
    "EarlyStopping",
    "FastHyperband",
    "Hyperband",
    "HyperbandResult",
    "IncrementGP",
    "LastSeenValue",
    "LearningCurves",
    "ParametricExtrapolation",
    "RacingHyperband",
    "RecordedRun",
    "Replay",
    "Run",
    "SequentialRegression",
    "StoppingRule",
    "curve_features",
    "curves_of",
    "read_baker",
    "read_lightning_logs",
    "read_long",
    "read_naap440",
    "read_nasbench201_curves",
    "replay",
]

attach(__name__)
