r"""Predictors with one estimator interface."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.predictors.base import Predictor
    from pyg_nas_np.predictors.ensemble import EnsemblePredictor
    from pyg_nas_np.predictors.fidelity import Fidelity
    from pyg_nas_np.predictors.gnn import GCNPredictor, GNNPredictor
    from pyg_nas_np.predictors.gp import GPPredictor
    from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures
    from pyg_nas_np.predictors.joint import JointSamples
    from pyg_nas_np.predictors.labels import LabelTransform, check_labels
    from pyg_nas_np.predictors.mlp import MLPEnsemblePredictor
    from pyg_nas_np.predictors.ridge import RidgePredictor
    from pyg_nas_np.predictors.trees import RandomForestPredictor, XGBoostPredictor
    from pyg_nas_np.predictors.wl import WLPredictor

__all__ = [
    "Architectures",
    "ArchitecturesLike",
    "EnsemblePredictor",
    "Fidelity",
    "GCNPredictor",
    "GNNPredictor",
    "GPPredictor",
    "JointSamples",
    "LabelTransform",
    "MLPEnsemblePredictor",
    "Predictor",
    "RandomForestPredictor",
    "RidgePredictor",
    "WLPredictor",
    "XGBoostPredictor",
    "as_architectures",
    "check_labels",
]

attach(__name__)
