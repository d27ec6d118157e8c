r"""Performance prediction for neural architecture search on PyTorch Geometric."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach
from pyg_nas_np.utils.version import VERSION

if TYPE_CHECKING:
    from pyg_nas_np.convnp import ConvNPPredictor
    from pyg_nas_np.convnp.training import pretrain
    from pyg_nas_np.datasets import NASBench101, NASBench201, NASBenchGraph
    from pyg_nas_np.features import MetaFeatures
    from pyg_nas_np.spaces import NASBench101Space, NASBench201Space, NASBenchGraphSpace, SearchSpace

__version__ = VERSION

__all__ = [
    "ConvNPPredictor",
    "MetaFeatures",
    "NASBench101",
    "NASBench101Space",
    "NASBench201",
    "NASBench201Space",
    "NASBenchGraph",
    "NASBenchGraphSpace",
    "SearchSpace",
    "pretrain",
]

attach(__name__)
