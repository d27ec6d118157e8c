"""ConvNP sampler for OptunaHub: what it offers lives in the package ``pyg-nas-np``."""

from pyg_nas_np.integrations.optuna import ConvNPSampler, arch_of, suggest_arch, suggest_candidate

__all__ = ["ConvNPSampler", "arch_of", "suggest_arch", "suggest_candidate"]
