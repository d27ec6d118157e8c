r"""All predictors by their names on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyg_nas_np.convnp.bank_predictor import BankPredictor
from pyg_nas_np.convnp.predictor import ConvNPPredictor
from pyg_nas_np.predictors import (
    EnsemblePredictor,
    GCNPredictor,
    GNNPredictor,
    GPPredictor,
    MLPEnsemblePredictor,
    Predictor,
    RandomForestPredictor,
    RidgePredictor,
    WLPredictor,
    XGBoostPredictor,
)

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
"""Constructors by name."""
