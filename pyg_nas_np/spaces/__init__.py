r"""Search spaces: indexed sets of architectures as graphs."""

from pyg_nas_np.spaces.base import SearchSpace, Validity

__all__ = ["SearchSpace", "Validity"]
