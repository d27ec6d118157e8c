r"""Context-target tasks for meta-training."""

from pyg_nas_np.tasks.batch import Task, TaskBatch
from pyg_nas_np.tasks.synthetic import Moments, Prior, SyntheticTasks, additive_gp_prior

__all__ = ["Moments", "Prior", "SyntheticTasks", "Task", "TaskBatch", "additive_gp_prior"]
