from __future__ import annotations

import itertools

import torch

from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.tasks import SyntheticTasks, additive_gp_prior
from pyg_nas_np.tasks.datamodule import SyntheticTaskModule


def no_moments(x_context, z_context, x_target):
    return torch.zeros(len(x_context), 1, 2), torch.zeros(len(x_target), 1, 2)


def module(**kwargs) -> SyntheticTaskModule:
    table = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    prior = additive_gp_prior({"all": [0, 1, 2]})
    tasks = SyntheticTasks(table, prior, rank_gauss, no_moments, num_context=(4, 10), num_target=5, batch_size=1)
    made = SyntheticTaskModule(tasks, num_batches=4, **kwargs)
    made.setup("fit")
    return made


def test_pool_does_not_depend_on_the_workers():
    for one, two in zip(module().pool, module(num_workers=2).pool, strict=True):
        assert torch.equal(one.z_target, two.z_target)


def test_every_epoch_shows_the_pool_in_a_new_order():
    made = module(seed=1)
    loader = made.train_dataloader()
    epochs = [[float(batch.z_target.sum()) for batch in loader] for _ in range(6)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    again = itertools.islice(module(seed=1).train_dataloader(), 4)
    assert [float(batch.z_target.sum()) for batch in again] == epochs[0]
    pool = made.pool
    made.setup("fit")
    assert made.pool is pool
