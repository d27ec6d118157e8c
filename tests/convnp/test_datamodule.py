from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from pyg_nas_np.convnp import AdditiveGPPrior, MixturePrior, SyntheticTasks, TablePrior, space_prior
from pyg_nas_np.convnp.cell_bank import bank_groups, bank_moments
from pyg_nas_np.convnp.datamodule import PoolOrder, SyntheticTaskModule
from pyg_nas_np.features import RandomNetworks, shared_descriptors
from pyg_nas_np.predictors.labels import rank_gauss, robust_scores
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import DataFileError

TABLE = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))


def no_moments(x_context, z_context, x_target):
    return torch.zeros(len(x_context), 1, 2), torch.zeros(len(x_target), 1, 2)


def module(*, num_batches: int = 4, tasks_seed: int = 0, **kwargs) -> SyntheticTaskModule:
    prior = AdditiveGPPrior(TABLE, {"all": [0, 1, 2]})
    tasks = SyntheticTasks(
        TABLE,
        [0, 1],
        prior,
        rank_gauss,
        no_moments,
        num_context=(4, 10),
        num_target=5,
        batch_size=1,
        seed=tasks_seed,
    )
    return SyntheticTaskModule(tasks, num_batches=num_batches, **kwargs)


def ready(**kwargs) -> SyntheticTaskModule:
    made = module(**kwargs)
    made.prepare_data()
    made.setup("fit")
    return made


def scores(batches, count: int) -> list[float]:
    return [float(batch.z_target[0]) for batch in itertools.islice(batches, count)]


def test_pool_does_not_depend_on_the_workers():
    for one, two in zip(ready().pool, ready(num_workers=2).pool, strict=True):
        torch.testing.assert_close(one.z_target, two.z_target)
        torch.testing.assert_close(one.x_context, two.x_context)


def test_tasks_reach_workers_that_are_not_forked(processes):
    # As by default on macOS and Windows, workers get the stream pickled.
    space = NASBench201Space()
    index = torch.arange(0, 15625, 50)
    descriptors = shared_descriptors(space)
    table = descriptors.table(index)
    groups = bank_groups(descriptors)
    prior = space_prior(table, groups, RandomNetworks(space, num_functions=32, rank=8).table(index))
    prior = MixturePrior([prior, TablePrior({"cifar100/x": table[:, 0]}, "cifar10")])
    moments = bank_moments(groups, max_iter=2, num_trees=3)
    tasks = SyntheticTasks(
        table, [0, 1], prior, robust_scores, moments, num_context=(4, 10), num_target=5, batch_size=1
    )
    loader = DataLoader(tasks, batch_size=None, num_workers=1, multiprocessing_context=processes)
    batch = next(iter(loader))
    torch.testing.assert_close(batch.z_target, tasks.batch(0).z_target)


def test_every_pass_shows_the_pool_in_a_new_order():
    order = scores(PoolOrder(list(ready(num_batches=5).pool), seed=1), 30)
    passes = [order[start : start + 5] for start in range(0, 30, 5)]
    assert all(sorted(p) == sorted(passes[0]) for p in passes)
    assert len(set(map(tuple, passes))) > 3
    assert scores(ready(num_batches=5, seed=1).train_dataloader(), 30) == order
    assert scores(ready(num_batches=5, seed=2).train_dataloader(), 30) != order


@pytest.mark.parametrize("start", [0, 1, 4, 7, 13])
def test_an_order_is_entered_anywhere(start):
    pool = list(ready(num_batches=5).pool)
    assert scores(PoolOrder(pool, start=start), 9) == scores(PoolOrder(pool), 30)[start : start + 9]


def test_ranks_share_an_order():
    pool = list(ready(num_batches=5).pool)
    whole = scores(PoolOrder(pool), 24)
    shares = [scores(PoolOrder(pool, start=2, rank=rank, world_size=2), 10) for rank in range(2)]
    assert [value for pair in zip(*shares, strict=True) for value in pair] == whole[4:24]


def test_trainer_tells_where_the_order_is_entered():
    made = ready(num_batches=5)
    made.trainer = SimpleNamespace(global_step=3, global_rank=1, world_size=2)
    assert scores(made.train_dataloader(), 5) == scores(PoolOrder(made.pool, 0, 3, 1, 2), 5)


def test_pool_is_kept_in_a_file(tmp_path, monkeypatch):
    path = tmp_path / "tasks.pt"
    first = ready(path=path)
    assert [p.name for p in tmp_path.iterdir()] == ["tasks.pt"]
    monkeypatch.setattr(SyntheticTaskModule, "_draw", lambda self: pytest.fail("the pool was drawn again"))
    again = ready(path=path)
    assert scores(again.pool, 4) == scores(first.pool, 4)
    pool = again.pool
    again.setup("fit")
    assert again.pool is pool


def test_pools_of_auxiliary_are_refused(tmp_path):
    path = tmp_path / "tasks.pt"
    ready(path=path)
    with pytest.raises(DataFileError, match=r"tasks\.pt holds 4 batches, 6 are wanted; delete it"):
        ready(path=path, num_batches=6)
    with pytest.raises(DataFileError, match=r"tasks\.pt holds other tasks.*delete it"):
        ready(path=path, tasks_seed=7)


def test_damaged_pools_are_refused(tmp_path):
    path = tmp_path / "tasks.pt"
    ready(path=path)
    content = path.read_bytes()
    for damaged in (content[:-200], content[: len(content) // 2], b"", b"not a pool at all"):
        path.write_bytes(damaged)
        with pytest.raises(DataFileError, match=r"(?s)tasks\.pt.*delete it"):
            ready(path=path)
    for foreign in ([{"x": torch.zeros(1)}], torch.zeros(3), {"a": 1}, 5):
        torch.save(foreign, path)
        with pytest.raises(DataFileError, match=r"(?s)tasks\.pt.*delete it"):
            ready(path=path)


def test_a_failed_draw_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ready(path=tmp_path / "tasks.pt")
    assert list(tmp_path.iterdir()) == []
