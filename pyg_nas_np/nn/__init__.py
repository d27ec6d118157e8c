r"""Reusable PyG-style modules."""

from pyg_nas_np.nn.set_conv import Grid, SetConv, SetConvFromGrid, SetConvToGrid, cover

__all__ = [
    "Grid",
    "SetConv",
    "SetConvFromGrid",
    "SetConvToGrid",
    "cover",
]
