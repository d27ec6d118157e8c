r"""Meta-features of architectures."""

from pyg_nas_np.features.meta import MetaFeatures, shared_features
from pyg_nas_np.features.path_encoding import PathEncoding

__all__ = ["MetaFeatures", "PathEncoding", "shared_features"]
