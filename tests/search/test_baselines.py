from __future__ import annotations

import pytest
import torch

from pyg_nas_np.search import LocalSearch, RandomSearch, RegularizedEvolution
from pyg_nas_np.spaces import NASBench201Space

SPACE = NASBench201Space()
Y = SPACE.batch_flops().double() + torch.arange(15625) / 1e5


def step(search, batch=1):
    archs = search.ask(batch)
    search.tell(archs, Y[[SPACE.index(arch) for arch in archs]])
    return archs


def test_random_search_is_uniform():
    counts = torch.zeros(25)
    for seed in range(40):
        drawn = RandomSearch(SPACE, candidates=torch.arange(25), seed=seed).ask(5)
        counts[[SPACE.index(arch) for arch in drawn]] += 1
    # 200 draws, 8 a candidate: the standard deviation is 2.5.
    assert counts.min() >= 1
    assert counts.max() <= 17


def test_evolution_asks_for_neighbors_of_its_population():
    search = RegularizedEvolution(SPACE, population=8, tournament=3)
    for _ in range(30):
        population = [SPACE[i] for i in search.index[-8:].tolist()]
        (child,) = step(search)
        if len(population) == 8:
            assert any(child in SPACE.neighbors(member) for member in population)


def test_evolution_takes_the_best_of_the_tournament():
    search = RegularizedEvolution(SPACE, population=8, tournament=8)
    for _ in range(8):
        step(search)
    for _ in range(10):
        recent = search.index[-8:]
        parent = SPACE[int(recent[Y[recent].argmax()])]
        (child,) = step(search)
        assert child in SPACE.neighbors(parent)


def test_evolution_beats_random_search():
    scores = {}
    for make in (RandomSearch, RegularizedEvolution):
        found = []
        for seed in range(6):
            search = make(SPACE, seed=seed)
            for _ in range(100):
                step(search)
            found.append(search.best[1])
        scores[make] = sum(found)
    assert scores[RegularizedEvolution] > scores[RandomSearch]


def test_evolution_without_a_free_neighbor_draws_at_random(toy_space):
    # Cells 0 to 7 differ in edges alone and are connected; the others have no neighbor among the candidates.
    candidates = torch.tensor([0, 1, 8, 16, 24, 32])
    search = RegularizedEvolution(toy_space, population=2, tournament=1, candidates=candidates)
    asked = []
    while archs := search.ask():
        asked += [toy_space.index(arch) for arch in archs]
        search.tell(archs, [1.0])
    assert sorted(asked) == candidates.tolist()


def test_local_search_climbs_and_restarts():
    search = LocalSearch(SPACE, initial=3)
    for _ in range(3):
        step(search)
    climbing, climbs = True, 0
    start = 0
    for _ in range(120):
        known = search.index
        current = start + int(Y[known[start:]].argmax())
        around = [a for a in SPACE.neighbors(SPACE[int(known[current])]) if SPACE.index(a) not in known.tolist()]
        climbing = bool(around) and len(known) >= start + 3
        if not around and len(known) >= start + 3:
            start, climbs = len(known), climbs + 1
        (asked,) = step(search)
        if climbing:
            assert asked in around
    assert climbs >= 1
    assert search.best[1] == Y.max()


def test_local_search_of_many_workers_never_stops(toy_space):
    search = LocalSearch(toy_space, initial=2)
    y = toy_space.batch_flops().double()
    first = search.ask(2)
    search.tell(first, y[[toy_space.index(a) for a in first]])
    # Three neighbors at most; the rest of the batch is random.
    assert len({toy_space.index(arch) for arch in search.ask(9)}) == 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegularizedEvolution(SPACE, population=5, tournament=6), "population=5, got 6"),
        (lambda: RegularizedEvolution(SPACE, tournament=0), "got 0"),
        (lambda: LocalSearch(SPACE, initial=0), "initial must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
