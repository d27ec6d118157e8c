r"""Search loops around predictors, and the searches that they are compared with.

All share one protocol, :class:`~pyg_nas_np.search.base.Search`: ``ask(batch)`` for architectures, ``tell(archs, y)``
what was measured. The Optuna sampler is in :mod:`pyg_nas_np.search.optuna`.
"""

from pyg_nas_np.search.bananas import BananasSearch
from pyg_nas_np.search.base import Search
from pyg_nas_np.search.baselines import LocalSearch, RandomSearch, RegularizedEvolution
from pyg_nas_np.search.predictor_search import PredictorSearch
from pyg_nas_np.search.simulation import Trace, simulate

__all__ = [
    "BananasSearch",
    "LocalSearch",
    "PredictorSearch",
    "RandomSearch",
    "RegularizedEvolution",
    "Search",
    "Trace",
    "simulate",
]
