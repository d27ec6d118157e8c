r"""Reusable PyG-style modules."""

from pyg_nas_np.nn.convnp import ConvNP, OffGridSetConv
from pyg_nas_np.nn.gp_bank import BankMoments, GPBank

__all__ = ["BankMoments", "ConvNP", "GPBank", "OffGridSetConv"]
