r"""Searches, and early stopping of trainings.

Searches share one protocol, :class:`~pyg_nas_np.search.base.Search`: ``ask(batch)`` for architectures, then
``tell(archs, y)`` what was measured. What plugs into Optuna is in :mod:`pyg_nas_np.integrations.optuna`.
"""

from pyg_nas_np.search.bananas import BananasSearch
from pyg_nas_np.search.base import Search
from pyg_nas_np.search.baselines import LocalSearch, RandomSearch, RegularizedEvolution
from pyg_nas_np.search.predictor_search import PredictorSearch
from pyg_nas_np.search.q_learning import MetaQNNGrammar, QLearningResult, QLearningSearch, TabularGrammar
from pyg_nas_np.search.simulation import Trace, simulate

__all__ = [
    "BananasSearch",
    "LocalSearch",
    "MetaQNNGrammar",
    "PredictorSearch",
    "QLearningResult",
    "QLearningSearch",
    "RandomSearch",
    "RegularizedEvolution",
    "Search",
    "TabularGrammar",
    "Trace",
    "simulate",
]
