r"""Context-target tasks for meta-training."""

from pyg_nas_np.tasks.priors import (
    Prior,
    additive_gp_prior,
    mixture_prior,
    network_prior,
    space_prior,
    table_prior,
    tree_prior,
    trend_prior,
)
from pyg_nas_np.tasks.synthetic import Moments, SyntheticTasks

__all__ = [
    "Moments",
    "Prior",
    "SyntheticTasks",
    "additive_gp_prior",
    "mixture_prior",
    "network_prior",
    "space_prior",
    "table_prior",
    "tree_prior",
    "trend_prior",
]
