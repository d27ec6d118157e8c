from __future__ import annotations

import itertools

import torch

from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.tasks import SyntheticTasks, additive_gp_prior
from pyg_nas_np.tasks.datamodule import SyntheticTaskModule


def test_workers_share_one_stream_without_repeating():
    table = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    tasks = SyntheticTasks(
        table, additive_gp_prior({"all": [0, 1, 2]}), rank_gauss, num_context=(4, 10), num_target=5, batch_size=1
    )
    alone = itertools.islice(SyntheticTaskModule(tasks).train_dataloader(), 4)
    shared = itertools.islice(SyntheticTaskModule(tasks, num_workers=2).train_dataloader(), 4)
    for one, two in zip(alone, shared, strict=True):
        assert torch.equal(one.z_target, two.z_target)
