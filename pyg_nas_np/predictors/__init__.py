r"""Predictors behind one estimator interface."""

from collections.abc import Callable
from functools import partial

from pyg_nas_np.predictors.bank import Bank, BankPredictor
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.classical import RandomForestPredictor, RidgePredictor, XGBoostPredictor
from pyg_nas_np.predictors.convnp import ConvNPPredictor
from pyg_nas_np.predictors.ensemble import EnsemblePredictor
from pyg_nas_np.predictors.gnn import GCNPredictor, GNNPredictor
from pyg_nas_np.predictors.gp import GPPredictor
from pyg_nas_np.predictors.graphs import Graphs
from pyg_nas_np.predictors.labels import LabelTransform, check_labels
from pyg_nas_np.predictors.mlp import MLPEnsemblePredictor
from pyg_nas_np.predictors.wl import WLPredictor

PREDICTORS: dict[str, Callable[..., Predictor]] = {
    "convnp": ConvNPPredictor,
    "bank": BankPredictor,
    "gp": GPPredictor,
    "gp-additive": partial(GPPredictor, networks=False),
    "gp-rbf": partial(GPPredictor, kernel="rbf", networks=False),
    "random-forest": RandomForestPredictor,
    "xgboost": XGBoostPredictor,
    "ridge": RidgePredictor,
    "wl": WLPredictor,
    "mlp": MLPEnsemblePredictor,
    "gcn": GCNPredictor,
    "gnn": GNNPredictor,
    "ensemble": EnsemblePredictor,
}
"""The predictors by the names that the command line uses."""

__all__ = [
    "PREDICTORS",
    "Bank",
    "BankPredictor",
    "ConvNPPredictor",
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
