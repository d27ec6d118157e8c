r"""Search inside Optuna studies (extra ``search``)."""

from pyg_nas_np.search.optuna.sampler import ARCH, ConvNPSampler, arch_of, suggest_arch

__all__ = ["ARCH", "ConvNPSampler", "arch_of", "suggest_arch"]
