r"""Search loops around predictors."""

from pyg_nas_np.search.early_stopping import Decision, EarlyStopping, StoppingRule
from pyg_nas_np.search.replay import Replay, replay

__all__ = ["Decision", "EarlyStopping", "Replay", "StoppingRule", "replay"]
