r"""The convolutional neural process as a predictor: its bank, tasks and priors, meta-training, weight files."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.convnp.bank import Bank
    from pyg_nas_np.convnp.bank_predictor import BankPredictor
    from pyg_nas_np.convnp.devices import DeviceBasis, DeviceTable
    from pyg_nas_np.convnp.fidelities import FidelityPredictor
    from pyg_nas_np.convnp.latency import LatencyPredictor
    from pyg_nas_np.convnp.modules import RankedModule, rank_modules
    from pyg_nas_np.convnp.predictor import ConvNPPredictor
    from pyg_nas_np.convnp.priors import (
        AdditiveGPPrior,
        MixturePrior,
        NetworkPrior,
        Prior,
        TablePrior,
        TreePrior,
        TrendPrior,
        space_prior,
    )
    from pyg_nas_np.convnp.registry import PREDICTORS
    from pyg_nas_np.convnp.synthetic import Moments, SyntheticTasks

__all__ = [
    "PREDICTORS",
    "AdditiveGPPrior",
    "Bank",
    "BankPredictor",
    "ConvNPPredictor",
    "DeviceBasis",
    "DeviceTable",
    "FidelityPredictor",
    "LatencyPredictor",
    "MixturePrior",
    "Moments",
    "NetworkPrior",
    "Prior",
    "RankedModule",
    "SyntheticTasks",
    "TablePrior",
    "TreePrior",
    "TrendPrior",
    "rank_modules",
    "space_prior",
]

attach(__name__)
