r"""Predictors of where learning curves end."""

from pyg_nas_np.predictors.curves.base import CurvePredictor
from pyg_nas_np.predictors.curves.baselines import LastSeenValue
from pyg_nas_np.predictors.curves.features import curve_features
from pyg_nas_np.predictors.curves.sequential import SequentialRegression

__all__ = ["CurvePredictor", "LastSeenValue", "SequentialRegression", "curve_features"]
