r"""Search spaces: indexed sets of architectures as graphs."""

from pyg_nas_np.spaces.base import CellSpace, Costs, EnumerableSpace, GraphView, SearchSpace, Validity
from pyg_nas_np.spaces.graph_codec import GraphCodec, MobileNetV3GraphCodec, NASBench201GraphCodec, graph_codec
from pyg_nas_np.spaces.graphs import GraphSpace, SampledGraphSpace, operation_graph
from pyg_nas_np.spaces.mobilenetv3 import MobileNetV3Arch, MobileNetV3Space
from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space
from pyg_nas_np.spaces.nasbench201 import NASBench201Arch, NASBench201Space
from pyg_nas_np.spaces.nasbenchgraph import NASBenchGraphArch, NASBenchGraphSpace
from pyg_nas_np.spaces.operation_graph import OperationGraph
from pyg_nas_np.spaces.operations import Operation, OperationGraphs, OperationView
from pyg_nas_np.spaces.registry import SPACES, space_by_name
from pyg_nas_np.spaces.views import draw, from_networkx, to_networkx

__all__ = [
    "SPACES",
    "CellSpace",
    "Costs",
    "EnumerableSpace",
    "GraphCodec",
    "GraphSpace",
    "GraphView",
    "MobileNetV3Arch",
    "MobileNetV3GraphCodec",
    "MobileNetV3Space",
    "NASBench101Arch",
    "NASBench101Space",
    "NASBench201Arch",
    "NASBench201GraphCodec",
    "NASBench201Space",
    "NASBenchGraphArch",
    "NASBenchGraphSpace",
    "Operation",
    "OperationGraph",
    "OperationGraphs",
    "OperationView",
    "SampledGraphSpace",
    "SearchSpace",
    "Validity",
    "draw",
    "from_networkx",
    "graph_codec",
    "operation_graph",
    "space_by_name",
    "to_networkx",
]
