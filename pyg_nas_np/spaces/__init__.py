r"""Search spaces: indexed sets of architectures as graphs."""

from pyg_nas_np.spaces.base import SearchSpace, Validity
from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space

__all__ = ["NASBench101Arch", "NASBench101Space", "SearchSpace", "Validity"]
