r"""Search loops around predictors."""

from pyg_nas_np.search.early_stopping import Decision, EarlyStopping, StoppingRule
from pyg_nas_np.search.hyperband import FastHyperband, Hyperband, HyperbandResult, RecordedRun, Run
from pyg_nas_np.search.q_learning import MetaQNNGrammar, QLearningResult, QLearningSearch, TabularGrammar
from pyg_nas_np.search.replay import Replay, replay

__all__ = [
    "Decision",
    "EarlyStopping",
    "FastHyperband",
    "Hyperband",
    "HyperbandResult",
    "MetaQNNGrammar",
    "QLearningResult",
    "QLearningSearch",
    "RecordedRun",
    "Replay",
    "Run",
    "StoppingRule",
    "TabularGrammar",
    "replay",
]
