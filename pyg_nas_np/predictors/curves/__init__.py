r"""Predictors of where learning curves end."""

from pyg_nas_np.predictors.curves.base import CurvePredictor
from pyg_nas_np.predictors.curves.baselines import LastSeenValue
from pyg_nas_np.predictors.curves.bayesian import BayesianCurveNet
from pyg_nas_np.predictors.curves.convnp import CurveConvNP
from pyg_nas_np.predictors.curves.features import curve_features
from pyg_nas_np.predictors.curves.parametric import ParametricExtrapolation
from pyg_nas_np.predictors.curves.sequential import SequentialRegression

__all__ = [
    "BayesianCurveNet",
    "CurveConvNP",
    "CurvePredictor",
    "LastSeenValue",
    "ParametricExtrapolation",
    "SequentialRegression",
    "curve_features",
]
