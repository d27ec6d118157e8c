r"""Search methods with one protocol, :class:`~pyg_nas_np.search.base.Search`.

``ask(batch)`` proposes architectures, ``tell(archs, y)`` takes their measurements. Samplers and pruners for Optuna are
in :mod:`pyg_nas_np.integrations.optuna`.
"""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.search.bananas import BananasSearch
    from pyg_nas_np.search.base import Search
    from pyg_nas_np.search.baselines import LocalSearch, RandomSearch, RegularizedEvolution
    from pyg_nas_np.search.budgeted import BudgetedSearch, Prospect, Training
    from pyg_nas_np.search.constraints import LatencyLimit
    from pyg_nas_np.search.predictor_search import PredictorSearch
    from pyg_nas_np.search.q_learning import MetaQNNGrammar, QLearningResult, QLearningSearch, TabularGrammar
    from pyg_nas_np.search.simulation import Trace, simulate

__all__ = [
    "BananasSearch",
    "BudgetedSearch",
    "LatencyLimit",
    "LocalSearch",
    "MetaQNNGrammar",
    "PredictorSearch",
    "Prospect",
    "QLearningResult",
    "QLearningSearch",
    "RandomSearch",
    "RegularizedEvolution",
    "Search",
    "TabularGrammar",
    "Trace",
    "Training",
    "simulate",
]

attach(__name__)
