r"""Features of architectures that need no training: meta-features, encodings, random networks, descriptors."""

from pyg_nas_np.features.descriptors import Descriptors, shared_descriptors
from pyg_nas_np.features.meta import MetaFeatures, shared_features
from pyg_nas_np.features.path_encoding import PathEncoding
from pyg_nas_np.features.random_networks import RandomNetworks, shared_networks

__all__ = [
    "Descriptors",
    "MetaFeatures",
    "PathEncoding",
    "RandomNetworks",
    "shared_descriptors",
    "shared_features",
    "shared_networks",
]
