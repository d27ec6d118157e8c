r"""Benchmarks as PyG in-memory data sets."""

from pyg_nas_np.datasets.backbone import EfficientNetLite0
from pyg_nas_np.datasets.base import ArchData, ArchitectureDataset, Check, Source, SourceInfo
from pyg_nas_np.datasets.image_features import ImageFeatures
from pyg_nas_np.datasets.images import LabelledImages, read_images
from pyg_nas_np.datasets.meta import FeatureSets, MetaDataset, build_meta_dataset
from pyg_nas_np.datasets.metad2a import read_metad2a
from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.mobilenetv3 import OFAMobileNetV3
from pyg_nas_np.datasets.nasbench101 import NASBench101
from pyg_nas_np.datasets.nasbench201 import NASBench201
from pyg_nas_np.datasets.nasbenchgraph import NASBenchGraph
from pyg_nas_np.datasets.splits import Split

__all__ = [
    "ArchData",
    "ArchitectureDataset",
    "Check",
    "EfficientNetLite0",
    "FeatureSets",
    "ImageFeatures",
    "LabelledImages",
    "MetaDataset",
    "Metric",
    "NASBench101",
    "NASBench201",
    "NASBenchGraph",
    "OFAMobileNetV3",
    "Source",
    "SourceInfo",
    "Split",
    "build_meta_dataset",
    "read_images",
    "read_metad2a",
]
