r"""What is known of architectures before any training: meta-features, encodings, random networks, descriptors."""

from pyg_nas_np.features.descriptors import Descriptors
from pyg_nas_np.features.meta import MetaFeatures
from pyg_nas_np.features.path_encoding import PathEncoding
from pyg_nas_np.features.random_networks import RandomNetworks, shared_networks
from pyg_nas_np.features.records import RecordFeatures
from pyg_nas_np.features.space import SpaceDescriptors, SpaceFeatures, shared_descriptors, shared_features

__all__ = [
    "Descriptors",
    "MetaFeatures",
    "PathEncoding",
    "RandomNetworks",
    "RecordFeatures",
    "SpaceDescriptors",
    "SpaceFeatures",
    "shared_descriptors",
    "shared_features",
    "shared_networks",
]
