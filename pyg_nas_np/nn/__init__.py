r"""Reusable PyG-style modules."""

from pyg_nas_np.nn.bidirectional_gcn import BidirectionalGCN
from pyg_nas_np.nn.cell_encoder import BidirectionalConv, CellEncoder
from pyg_nas_np.nn.convnp import ConvNP, OffGridSetConv
from pyg_nas_np.nn.set_conv import SetConv, SetConvFromGrid, SetConvToGrid, grid_over

__all__ = [
    "BidirectionalConv",
    "BidirectionalGCN",
    "CellEncoder",
    "ConvNP",
    "OffGridSetConv",
    "SetConv",
    "SetConvFromGrid",
    "SetConvToGrid",
    "grid_over",
]
