r"""Predictors behind one estimator interface."""

from collections.abc import Callable
from functools import partial

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.classical import RandomForestPredictor, RidgePredictor, XGBoostPredictor
from pyg_nas_np.predictors.convnp import ConvNPPredictor
from pyg_nas_np.predictors.gp import GPPredictor
from pyg_nas_np.predictors.graphs import Graphs
from pyg_nas_np.predictors.labels import LabelTransform, check_labels

PREDICTORS: dict[str, Callable[..., Predictor]] = {
    "convnp": ConvNPPredictor,
    "gp": GPPredictor,
    "gp-rbf": partial(GPPredictor, kernel="rbf"),
    "random-forest": RandomForestPredictor,
    "xgboost": XGBoostPredictor,
    "ridge": RidgePredictor,
}
"""The predictors by the names that the command line uses."""

__all__ = [
    "PREDICTORS",
    "ConvNPPredictor",
    "GPPredictor",
    "Graphs",
    "LabelTransform",
    "Predictor",
    "RandomForestPredictor",
    "RidgePredictor",
    "XGBoostPredictor",
    "check_labels",
]
