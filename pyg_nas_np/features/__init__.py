r"""Meta-features of architectures."""

from pyg_nas_np.features.meta import MetaFeatures

__all__ = ["MetaFeatures"]
