r"""Performance prediction for neural architecture search on PyTorch Geometric."""

from typing import Any

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.datasets import NASBench101, NASBench201, NASBenchGraph
from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space, NASBenchGraphSpace, SearchSpace
from pyg_nas_np.utils.version import VERSION

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


def __getattr__(name: str) -> Any:
    # Lightning is imported only by those who train.
    if name == "pretrain":
        from pyg_nas_np.convnp.training import pretrain

        return pretrain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
