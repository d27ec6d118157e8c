r"""Reusable PyG-style modules."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.nn.bidirectional_gcn import BidirectionalGCN
    from pyg_nas_np.nn.cell_encoder import BidirectionalConv, CellEncoder
    from pyg_nas_np.nn.convnp import ConvNP
    from pyg_nas_np.nn.dag import DAGDecoder, DAGEncoder
    from pyg_nas_np.nn.off_grid import OffGridProcess, OffGridSetConv
    from pyg_nas_np.nn.on_grid import OnGridProcess
    from pyg_nas_np.nn.operation_encoder import Encoded, OperationEncoder
    from pyg_nas_np.nn.set_conv import SetConv, SetConvFromGrid, SetConvToGrid, grid_over
    from pyg_nas_np.nn.set_encoder import DatasetEncoder, SetEncoder
    from pyg_nas_np.nn.set_transformer import ISAB, MAB, PMA, SAB
    from pyg_nas_np.nn.task_batch import Task, TaskBatch

__all__ = [
    "ISAB",
    "MAB",
    "PMA",
    "SAB",
    "BidirectionalConv",
    "BidirectionalGCN",
    "CellEncoder",
    "ConvNP",
    "DAGDecoder",
    "DAGEncoder",
    "DatasetEncoder",
    "Encoded",
    "OffGridProcess",
    "OffGridSetConv",
    "OnGridProcess",
    "OperationEncoder",
    "SetConv",
    "SetConvFromGrid",
    "SetConvToGrid",
    "SetEncoder",
    "Task",
    "TaskBatch",
    "grid_over",
]

attach(__name__)
