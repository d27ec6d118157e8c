r"""Meta-features of architectures."""

from pyg_nas_np.features.meta import MetaFeatures, shared_features

__all__ = ["MetaFeatures", "shared_features"]
