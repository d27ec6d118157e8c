r"""Optuna (extra ``search``): samplers of architectures, pruners by learning curves and by a budget."""

from pyg_nas_np.integrations.optuna.budget import BudgetedPruner, BudgetedSampler, suggest_training
from pyg_nas_np.integrations.optuna.pruner import CurvePruner
from pyg_nas_np.integrations.optuna.sampler import ARCH, ConvNPSampler, arch_of, suggest_arch, suggest_candidate

__all__ = [
    "ARCH",
    "BudgetedPruner",
    "BudgetedSampler",
    "ConvNPSampler",
    "CurvePruner",
    "arch_of",
    "suggest_arch",
    "suggest_candidate",
    "suggest_training",
]
