r"""Optuna (extra ``search``): a sampler of architectures and a pruner by learning curves."""

from pyg_nas_np.integrations.optuna.pruner import CurvePruner
from pyg_nas_np.integrations.optuna.sampler import ARCH, ConvNPSampler, arch_of, suggest_arch, suggest_candidate

__all__ = ["ARCH", "ConvNPSampler", "CurvePruner", "arch_of", "suggest_arch", "suggest_candidate"]
