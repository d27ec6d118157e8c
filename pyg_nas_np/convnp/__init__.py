r"""The convolutional neural process as a predictor, whole: its bank, tasks and priors, meta-training, weight files."""

from pyg_nas_np.convnp.bank import Bank, BankPredictor
from pyg_nas_np.convnp.predictor import ConvNPPredictor
from pyg_nas_np.convnp.priors import (
    Prior,
    additive_gp_prior,
    mixture_prior,
    network_prior,
    space_prior,
    table_prior,
    tree_prior,
    trend_prior,
)
from pyg_nas_np.convnp.registry import PREDICTORS
from pyg_nas_np.convnp.synthetic import Moments, SyntheticTasks

__all__ = [
    "PREDICTORS",
    "Bank",
    "BankPredictor",
    "ConvNPPredictor",
    "Moments",
    "Prior",
    "SyntheticTasks",
    "additive_gp_prior",
    "mixture_prior",
    "network_prior",
    "space_prior",
    "table_prior",
    "tree_prior",
    "trend_prior",
]
