r"""Search spaces: sets of architectures as configurations, graphs, or both."""

from typing import TYPE_CHECKING

# Named as modules of this room, which would hide them when they are loaded.
from pyg_nas_np.spaces.graph_codec import graph_codec
from pyg_nas_np.spaces.graphs import operation_graph
from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.spaces.base import CellSpace, Costs, EnumerableSpace, GraphView, Scores, SearchSpace, Validity
    from pyg_nas_np.spaces.configuration import Configuration
    from pyg_nas_np.spaces.graph_codec import GraphCodec, MobileNetV3GraphCodec, NASBench201GraphCodec
    from pyg_nas_np.spaces.graphs import GraphSpace, SampledGraphSpace
    from pyg_nas_np.spaces.inference import InferredSpace
    from pyg_nas_np.spaces.mobilenetv3 import MobileNetV3Arch, MobileNetV3Space
    from pyg_nas_np.spaces.module_trace import trace
    from pyg_nas_np.spaces.modules import BuiltModuleSpace, ModuleSpace
    from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space
    from pyg_nas_np.spaces.nasbench201 import NASBench201Arch, NASBench201Space
    from pyg_nas_np.spaces.nasbenchgraph import NASBenchGraphArch, NASBenchGraphSpace
    from pyg_nas_np.spaces.onnx_graphs import from_onnx
    from pyg_nas_np.spaces.operation_graph import OperationGraph
    from pyg_nas_np.spaces.operations import Operation, OperationGraphs, OperationView
    from pyg_nas_np.spaces.parameter_space import ParameterSpace
    from pyg_nas_np.spaces.parameters import Categorical, Float, Integer, Parameter, RecordView, Repeat, TableView
    from pyg_nas_np.spaces.registry import SPACES, space_by_name
    from pyg_nas_np.spaces.views import draw, from_networkx, to_networkx

__all__ = [
    "SPACES",
    "BuiltModuleSpace",
    "Categorical",
    "CellSpace",
    "Configuration",
    "Costs",
    "EnumerableSpace",
    "Float",
    "GraphCodec",
    "GraphSpace",
    "GraphView",
    "InferredSpace",
    "Integer",
    "MobileNetV3Arch",
    "MobileNetV3GraphCodec",
    "MobileNetV3Space",
    "ModuleSpace",
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
    "Parameter",
    "ParameterSpace",
    "RecordView",
    "Repeat",
    "SampledGraphSpace",
    "Scores",
    "SearchSpace",
    "TableView",
    "Validity",
    "draw",
    "from_networkx",
    "from_onnx",
    "graph_codec",
    "operation_graph",
    "space_by_name",
    "to_networkx",
    "trace",
]

attach(__name__)
