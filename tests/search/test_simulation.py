from __future__ import annotations

import pytest
import torch

from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.search import RandomSearch, RegularizedEvolution, simulate
from pyg_nas_np.search.simulation import trace_of
from pyg_nas_np.utils import InvalidLabelsError, MissingLabelsError

Y = torch.full((128,), float("nan"), dtype=torch.float64)
Y[:6] = torch.tensor([3.0, 5.0, 5.0, 1.0, 9.0, 4.0])


@pytest.mark.parametrize("maximize", [True, False])
def test_trace_by_hand(maximize, toy_space):
    search = RandomSearch(toy_space, maximize=maximize)
    y = Y if maximize else -Y
    search.tell(torch.tensor([3, 0, 2, 0, 4, 5]), y[[3, 0, 2, 0, 4, 5]])
    trace = trace_of(search, y)
    sign = 1 if maximize else -1
    assert trace.best_y.tolist() == [sign * v for v in [1.0, 3.0, 5.0, 5.0, 9.0, 9.0]]
    assert trace.best_rank.tolist() == [6, 5, 2, 2, 1, 1]
    assert trace.regret.tolist() == [8.0, 6.0, 4.0, 4.0, 0.0, 0.0]
    assert trace.queries_to_optimum == 5
    assert trace_of(RandomSearch(toy_space, maximize=maximize), y).queries_to_optimum is None


def test_simulation_asks_for_labelled_candidates_only(toy_space):
    with pytest.raises(MissingLabelsError, match="pass candidates="):
        simulate(RandomSearch(toy_space), Y, 20)
    search = RandomSearch(toy_space, candidates=torch.arange(6))
    assert simulate(search, Y, 20, batch=4).indices.sort().values.tolist() == list(range(6))
    with pytest.raises(InvalidLabelsError, match="no labels"):
        simulate(RandomSearch(toy_space), torch.full((128,), float("nan")), 5)
    with pytest.raises(ValueError, match="one for each of the 128"):
        simulate(RandomSearch(toy_space), torch.ones(5), 5)


def test_simulation_stops_at_the_optimum_and_goes_on(toy_space):
    full = simulate(RandomSearch(toy_space), toy_space.batch_flops(), 100)
    search = RandomSearch(toy_space)
    short = simulate(search, toy_space.batch_flops(), 100, stop=True)
    assert short.indices.numel() == short.queries_to_optimum == full.queries_to_optimum
    again = simulate(search, toy_space.batch_flops(), 100)
    assert torch.equal(again.indices, full.indices)


def test_data_sets_are_tables(labelled_root):
    dataset = NASBench201(str(labelled_root))
    chosen = dataset[torch.arange(0, 15625, 100)]
    search = RegularizedEvolution(dataset.space, population=5, tournament=2, candidates=chosen.arch_index)
    trace = simulate(search, chosen, 200)
    assert trace.indices.numel() == 157
    assert trace.best_rank[-1] == 1
    assert trace.best_y[-1] == chosen.y.max()


def test_nothing_to_do_is_refused(toy_space):
    for options, name in (
        ({"queries": 0}, "queries"),
        ({"queries": -1}, "queries"),
        ({"queries": 3, "batch": 0}, "batch"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            simulate(RandomSearch(toy_space), toy_space.batch_flops(), **options)
