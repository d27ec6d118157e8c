r"""Context-target tasks for meta-training."""

from pyg_nas_np.tasks.batch import TaskBatch
from pyg_nas_np.tasks.synthetic import Prior, SyntheticTasks, additive_gp_prior

__all__ = ["Prior", "SyntheticTasks", "TaskBatch", "additive_gp_prior"]
