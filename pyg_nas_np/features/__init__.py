r"""What is known of architectures before any training: meta-features, encodings, random networks, descriptors."""

from pyg_nas_np.features.descriptors import Descriptors, shared_descriptors
from pyg_nas_np.features.meta import MetaFeatures, shared_features
from pyg_nas_np.features.operation_networks import OperationNetworks, shared_operation_networks
from pyg_nas_np.features.operations import OperationFeatures, shared_operation_features
from pyg_nas_np.features.path_encoding import PathEncoding
from pyg_nas_np.features.random_networks import RandomNetworks, shared_networks

__all__ = [
    "Descriptors",
    "MetaFeatures",
    "OperationFeatures",
    "OperationNetworks",
    "PathEncoding",
    "RandomNetworks",
    "shared_descriptors",
    "shared_features",
    "shared_networks",
    "shared_operation_features",
    "shared_operation_networks",
]
