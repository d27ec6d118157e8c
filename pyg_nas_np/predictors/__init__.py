r"""Predictors behind one estimator interface."""

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.ensemble import EnsemblePredictor
from pyg_nas_np.predictors.gnn import GCNPredictor, GNNPredictor
from pyg_nas_np.predictors.gp import GPPredictor
from pyg_nas_np.predictors.inputs import Graphs
from pyg_nas_np.predictors.labels import LabelTransform, check_labels
from pyg_nas_np.predictors.mlp import MLPEnsemblePredictor
from pyg_nas_np.predictors.ridge import RidgePredictor
from pyg_nas_np.predictors.trees import RandomForestPredictor, XGBoostPredictor
from pyg_nas_np.predictors.wl import WLPredictor

__all__ = [
    "EnsemblePredictor",
    "GCNPredictor",
    "GNNPredictor",
    "GPPredictor",
    "Graphs",
    "LabelTransform",
    "MLPEnsemblePredictor",
    "Predictor",
    "RandomForestPredictor",
    "RidgePredictor",
    "WLPredictor",
    "XGBoostPredictor",
    "check_labels",
]
