r"""Features of architectures that need no training: meta-features, encodings, random networks, descriptors."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.features.descriptors import Descriptors
    from pyg_nas_np.features.meta import MetaFeatures
    from pyg_nas_np.features.operation_inputs import EncoderInputs, OperationInputs
    from pyg_nas_np.features.operation_networks import OperationNetworks, shared_operation_networks
    from pyg_nas_np.features.operations import OperationFeatures, shared_operation_features
    from pyg_nas_np.features.path_encoding import PathEncoding
    from pyg_nas_np.features.random_networks import RandomNetworks, shared_networks
    from pyg_nas_np.features.records import RecordFeatures
    from pyg_nas_np.features.space import SpaceDescriptors, SpaceFeatures, shared_descriptors, shared_features

__all__ = [
    "Descriptors",
    "EncoderInputs",
    "MetaFeatures",
    "OperationFeatures",
    "OperationInputs",
    "OperationNetworks",
    "PathEncoding",
    "RandomNetworks",
    "RecordFeatures",
    "SpaceDescriptors",
    "SpaceFeatures",
    "shared_descriptors",
    "shared_features",
    "shared_networks",
    "shared_operation_features",
    "shared_operation_networks",
]

attach(__name__)
