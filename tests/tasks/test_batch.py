from __future__ import annotations

import torch

from pyg_nas_np.tasks import Task, TaskBatch


def test_tasks_are_concatenated_without_padding():
    tasks = [
        Task(
            torch.full((n, 2), n),
            torch.full((n,), n),
            torch.full((m, 2), m),
            torch.full((n, 1, 2), n),
            torch.full((m, 1, 2), m),
            torch.full((m,), m),
        )
        for n, m in ((3, 5), (1, 2))
    ]
    batch = TaskBatch.from_tasks(tasks)
    assert len(batch) == 2
    assert batch.ptr_context.tolist() == [0, 3, 4]
    assert batch.ptr_target.tolist() == [0, 5, 7]
    assert batch.x_context.tolist() == [[3, 3]] * 3 + [[1, 1]]
    assert batch.context_moments[:, 0, 0].tolist() == [3, 3, 3, 1]
    assert batch.target_moments.shape == (7, 1, 2)
    assert batch.z_target.tolist() == [5] * 5 + [2] * 2


def test_targets_may_be_unknown():
    task = Task(torch.zeros(1, 2), torch.zeros(1), torch.zeros(3, 2), torch.zeros(1, 1, 2), torch.zeros(3, 1, 2))
    assert TaskBatch.from_tasks([task]).z_target is None
