r"""Parts for Optuna (extra ``search``)."""

from pyg_nas_np.search.optuna.pruner import CurvePruner

__all__ = ["CurvePruner"]
