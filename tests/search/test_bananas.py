from __future__ import annotations

import torch

from pyg_nas_np.predictors import GPPredictor
from pyg_nas_np.search import BananasSearch, RandomSearch, simulate
from pyg_nas_np.search.bananas import LEAST_PROPOSALS
from pyg_nas_np.spaces import NASBench201Space

SPACE = NASBench201Space()
Y = SPACE.batch_flops().double() + torch.arange(15625) / 1e5


def test_proposals_are_near_the_best():
    search = BananasSearch(SPACE, GPPredictor, initial=12)
    archs = search.ask(12)
    search.tell(archs, Y[[SPACE.index(arch) for arch in archs]])
    around = {arch for i in search.index[search.y.argsort(descending=True)[:10]] for arch in SPACE.neighbors(SPACE[i])}
    assert len(around) > LEAST_PROPOSALS
    asked = search.ask(8)
    assert len(set(asked)) == 8
    assert set(asked) <= around - set(archs)


def test_few_neighbors_are_filled_up():
    search = BananasSearch(SPACE, GPPredictor, initial=2, candidates=torch.arange(0, 15625, 10))
    search.tell(torch.tensor([10, 20]), [1.0, 2.0])
    pool = search._pool({10, 20})
    assert len(pool) == len(set(pool)) == LEAST_PROPOSALS
    assert all(index % 10 == 0 for index in pool)


def test_beats_random_search():
    ours, random = (
        sum(float(simulate(make(seed), Y, 60, batch=5).best_y[-1]) for seed in range(2))
        for make in (lambda s: BananasSearch(SPACE, GPPredictor, seed=s), lambda s: RandomSearch(SPACE, seed=s))
    )
    assert ours > random
