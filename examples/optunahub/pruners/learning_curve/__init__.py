"""Learning-curve pruner for OptunaHub: what it offers lives in the package ``pyg-nas-np``."""

from pyg_nas_np.integrations.optuna import CurvePruner

__all__ = ["CurvePruner"]
