r"""Benchmarks and own measurements as PyG in-memory data sets."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.datasets.base import ArchData, ArchitectureDataset, Check, Source
    from pyg_nas_np.datasets.images import LabelledImages, read_images
    from pyg_nas_np.datasets.measurements import Candidates, Measurements, read_measurements, read_pool
    from pyg_nas_np.datasets.metric import Metric
    from pyg_nas_np.datasets.mobilenetv3 import OFAMobileNetV3
    from pyg_nas_np.datasets.nasbench101 import NASBench101
    from pyg_nas_np.datasets.nasbench201 import NASBench201
    from pyg_nas_np.datasets.nasbenchgraph import NASBenchGraph
    from pyg_nas_np.datasets.processed import SourceInfo
    from pyg_nas_np.datasets.splits import Split
    from pyg_nas_np.datasets.table import TableDataset

__all__ = [
    "ArchData",
    "ArchitectureDataset",
    "Candidates",
    "Check",
    "LabelledImages",
    "Measurements",
    "Metric",
    "NASBench101",
    "NASBench201",
    "NASBenchGraph",
    "OFAMobileNetV3",
    "Source",
    "SourceInfo",
    "Split",
    "TableDataset",
    "read_images",
    "read_measurements",
    "read_pool",
]

attach(__name__)
