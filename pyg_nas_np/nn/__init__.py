r"""Reusable PyG-style modules."""

from pyg_nas_np.nn.convnp import ConvNP, OffGridSetConv

__all__ = ["ConvNP", "OffGridSetConv"]
