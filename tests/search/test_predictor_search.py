from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.predictors import GPPredictor, JointSamples, Predictor, RidgePredictor
from pyg_nas_np.search import PredictorSearch, predictor_search, simulate
from pyg_nas_np.search.acquisition import expected_improvement, pareto_mask
from pyg_nas_np.spaces import Float, Integer, NASBench101Space, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()
Y = SPACE.batch_flops().double() + torch.arange(15625) / 1e5
TOLD = SPACE.sample_indices(30, torch.Generator().manual_seed(5))


def told(**kwargs):
    search = PredictorSearch(SPACE, GPPredictor(), initial=1, **kwargs)
    search.tell(TOLD, Y[TOLD])
    return search


def scores(index=TOLD, y=None):
    gp = GPPredictor(SPACE).fit(SPACE.batch_encode(index), Y[index] if y is None else y)
    return gp, *gp.predict_scores(SPACE.batch_encode())


@pytest.mark.parametrize(
    ("kwargs", "merit"),
    [
        ({"beta": 2.0}, lambda mean, std: mean + 2 * std),
        ({"acquisition": "mean"}, lambda mean, std: mean),
        ({"acquisition": "ei"}, lambda mean, std: expected_improvement(mean, std, mean[TOLD].max())),
    ],
)
def test_asks_for_the_maximum_of_the_acquisition_function(kwargs, merit):
    (asked,) = told(**kwargs).ask()
    _, mean, std = scores()
    values = merit(mean, std)
    values[TOLD] = -torch.inf
    assert values[SPACE.index(asked)] == values.max()


class Helped(RidgePredictor):
    """Remembers the auxiliary labels that it was fitted with."""

    seen: ClassVar[list[str]] = []

    def fit(self, x, y=None, *, auxiliary=None):
        self.seen.append(*auxiliary)
        return super().fit(x, y)


def test_auxiliary_labels_reach_the_predictor():
    search = PredictorSearch(SPACE, Helped(), initial=1, auxiliary={"svhn": Y})
    search.tell(TOLD, Y[TOLD])
    search.ask(2)
    assert set(Helped.seen) == {"svhn"}


def test_batches_and_pending_ones_are_believed():
    alone = told(seed=3)
    first, second = alone.ask(2)
    one_by_one = told(seed=3)
    assert one_by_one.ask() == [first]
    assert one_by_one.pending == [first]
    # The second is the best by a process that has seen the first at its prediction.
    gp, _, _ = scores()
    where = torch.tensor([SPACE.index(first)])
    believed = gp.predict(SPACE.batch_encode(where)).double()
    _, mean, std = scores(torch.cat([TOLD, where]), torch.cat([Y[TOLD], believed]))
    values = mean + 1.5 * std
    values[torch.cat([TOLD, where])] = -torch.inf
    for chosen in (second, *one_by_one.ask()):
        assert values[SPACE.index(chosen)] == pytest.approx(float(values.max()), abs=1e-9)


def test_first_architectures_are_random_and_nothing_is_fitted_without_labels():
    search = PredictorSearch(SPACE, GPPredictor(), initial=4)
    asked = search.ask(7)
    assert len(set(asked)) == 7
    assert not hasattr(search.predictor, "transform_")
    search.tell(asked[:1], [1.0])
    search.ask()
    assert hasattr(search.predictor, "transform_")


def test_equal_predictions_are_drawn_among():
    search = PredictorSearch(SPACE, RidgePredictor(), initial=1)
    first = set()
    for seed in range(4):
        search.seed = seed
        search.reset()
        search.tell([SPACE[0]], [1.0])
        first.update(search.ask())
    assert len(first) > 1


class Undecided(RidgePredictor):
    """Knows nothing of even indices, or of any."""

    every: ClassVar[bool] = False

    def predict_scores(self, x):
        mean, std = super().predict_scores(x)
        return mean.masked_fill(self.every | (x.index % 2 == 0), torch.nan), std


@pytest.mark.parametrize("acquisition", ["ucb", "thompson", "independent-thompson"])
def test_predictions_that_are_not_numbers_come_last(acquisition, monkeypatch):
    search = PredictorSearch(SPACE, Undecided(), initial=1, acquisition=acquisition)
    search.tell(TOLD, Y[TOLD])
    assert all(SPACE.index(arch) % 2 for arch in search.ask(5))
    monkeypatch.setattr(Undecided, "every", True)
    asked = {SPACE.index(arch) for arch in search.ask(5)}
    assert len(asked - set(TOLD.tolist())) == 5


class Joint(RidgePredictor, JointSamples):
    """Joint samples that agree on an offset, and rank by index."""

    def sample_scores(self, x, num=1, generator=None):
        return self.sample(x, num, generator)

    def sample(self, x, num=1, generator=None):
        return torch.randn(num, 1, generator=generator) + x.index.double()


@pytest.mark.parametrize("maximize", [True, False])
def test_thompson_sampling_takes_joint_samples_over_the_shortlist(maximize, monkeypatch):
    monkeypatch.setattr(predictor_search, "SHORTLIST", 50)
    search = PredictorSearch(SPACE, Joint(), acquisition="thompson", initial=1, maximize=maximize)
    search.tell(TOLD, Y[TOLD])
    asked = [SPACE.index(arch) for arch in search.ask(3)]
    mean, std = search.predictor.predict_scores(SPACE.batch_encode())
    bound = mean + 2 * std
    bound[TOLD] = -torch.inf
    short = bound.topk(50).indices.sort(descending=maximize).values
    assert asked == short[:3].tolist()


@pytest.mark.parametrize("acquisition", ["thompson", "independent-thompson"])
def test_thompson_sampling_without_joint_samples(acquisition):
    search = PredictorSearch(SPACE, RidgePredictor(), acquisition=acquisition, initial=1)
    search.tell(TOLD, Y[TOLD])
    asked = search.ask(20)
    assert len({SPACE.index(arch) for arch in asked} - set(TOLD.tolist())) == 20
    reached = Y[[SPACE.index(arch) for arch in asked]]
    assert reached.mean() > Y.mean()


@pytest.mark.parametrize("cost", ["num_parameters", "flops", lambda archs: SPACE.batch_flops(archs.given) / 1e6])
def test_two_objectives_cover_the_front(cost):
    # Paths without convolution are cheap and good: the front is not a single point.
    value = SPACE.batch_num_parameters().double().sqrt() + torch.arange(15625) / 1e5
    candidates = torch.arange(0, 15625, 11)
    search = PredictorSearch(SPACE, GPPredictor(), cost=cost, candidates=candidates, initial=8)
    simulate(search, value, 24)
    front = search.pareto_front
    assert len(front) >= 5
    costs, values = [c for _, _, c in front], [v for _, v, _ in front]
    assert costs == sorted(costs)
    assert values == sorted(values)
    chosen = torch.tensor([SPACE.index(arch) for arch, _, _ in front])
    assert pareto_mask(value[search.index], search.cost(search.measured))[torch.isin(search.index, chosen)].all()
    with pytest.raises(ValueError, match="no Pareto front"):
        _ = told().pareto_front


def test_spaces_too_large_to_predict_are_searched_through_proposals():
    space = NASBench101Space()
    index = space.sample_indices(12, torch.Generator().manual_seed(0))
    search = PredictorSearch(space, RidgePredictor(), initial=1, proposals=40)
    y = space.batch_num_parameters(index).double()
    search.tell(index, y)
    pool = search._pool(search._taken())
    parents = index[y.argsort(descending=True)[: predictor_search.PARENTS]]
    near = {space.index(arch) for i in parents.tolist() for arch in space.neighbors(space[i])} - set(index.tolist())
    assert near <= set(pool)
    assert len(pool) == len(set(pool)) == len(near) + 40
    (asked,) = search.ask()
    assert space.num_parameters(asked) > y.median()


def test_the_given_predictor_is_not_touched():
    predictor = GPPredictor()
    search = PredictorSearch(SPACE, predictor)
    assert search.predictor is not predictor
    assert predictor.space is None
    assert isinstance(search.predictor, Predictor)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"acquisition": "pi"}, "acquisition must be one of ucb, .*'pi'"),
        ({"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ({"beta": float("nan")}, "beta must be at least 0, got nan"),
        ({"initial": 0}, "initial must be at least 1, got 0"),
        ({"proposals": 0}, "proposals must be at least 1, got 0"),
        ({"cost": "latency"}, "num_parameters, flops, got 'latency'"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PredictorSearch(SPACE, GPPredictor(), **kwargs)


def test_a_predictor_of_another_space_is_refused(toy_space):
    with pytest.raises(InvalidArchitectureError, match="works on toy, the search on nasbench201"):
        PredictorSearch(SPACE, GPPredictor(toy_space))


# -- spaces without an index ------------------------------------------------------------------------------------------

OPEN = ParameterSpace(
    {f"width{i}": Integer(1, 64) for i in range(8)},
    lr=Float(1e-5, 1e-1, log=True),
    costs={"size": lambda arch: float(sum(arch[f"width{i}"] for i in range(8)))},
)


def value(arch):
    return -sum(abs(arch[f"width{i}"] - 8 * i) for i in range(8)) / 64


def searched(space=OPEN, **kwargs):
    search = PredictorSearch(space, RidgePredictor(), initial=1, proposals=128, **kwargs)
    known = OPEN.sample(20, torch.Generator().manual_seed(1))
    search.tell(known, [value(arch) for arch in known])
    return search


def test_proposals_evolve_under_the_acquisition_function(monkeypatch):
    reached = []
    original = PredictorSearch._argmax

    def recorded(self, merit, free):
        reached.append(float(merit[free].max()))
        return original(self, merit, free)

    monkeypatch.setattr(PredictorSearch, "_argmax", recorded)
    # Parents, neighbors and random candidates are the same for each number of generations.
    for generations in (0, 1, 6):
        (asked,) = searched(generations=generations).ask()
        assert asked not in searched().measured
    assert reached[0] <= reached[1] < reached[2]


@pytest.mark.parametrize("acquisition", ["ucb", "ei", "thompson", "independent-thompson"])
def test_batches_of_a_space_without_an_index_are_distinct(acquisition):
    search = searched(acquisition=acquisition)
    asked = search.ask(5)
    assert len({*asked, *search.measured}) == 25
    assert search.pending == asked


def test_small_spaces_without_an_index_are_searched_exhaustively():
    space = ParameterSpace(a=Integer(1, 6), b=["x", "y"], c=Integer(1, 3, when={"b": "y"}))
    search = PredictorSearch(space, RidgePredictor(), initial=3)
    for _ in range(24):
        (arch,) = search.ask()
        search.tell([arch], [float(arch["a"])])
    assert search.ask() == []
    assert len(set(search.measured)) == 24


@pytest.mark.parametrize("cost", ["size", None])
def test_bounds_hold_for_every_proposal(cost):
    search = searched(bounds={"size": 200.0}, cost=cost)
    fresh = search.fresh()
    asked = search.ask(4) + fresh.ask(6)
    assert all(OPEN.costs([arch])["size"] <= 200 for arch in asked)
    assert len(asked) == 10
    if cost:
        assert len(search.pareto_front) >= 1


def test_bounds_of_a_listed_space_leave_only_what_is_within():
    limit = float(SPACE.batch_flops().double().quantile(0.01))
    search = PredictorSearch(SPACE, RidgePredictor(), bounds={"flops": limit}, initial=4)
    asked = search.ask(300)
    assert len(set(asked)) == len(asked) > 100
    assert max(SPACE.flops(arch) for arch in asked) <= limit
    with pytest.raises(ValueError, match="none of the 15625 candidates is within the bounds"):
        PredictorSearch(SPACE, RidgePredictor(), bounds={"flops": 0.0})
    with pytest.raises(ValueError, match="cost must be a function or one of num_parameters, flops, got 'latency'"):
        PredictorSearch(SPACE, RidgePredictor(), bounds={"latency": 1.0})


def test_bounds_that_nothing_meets_are_told():
    with pytest.raises(ValueError, match=r"found no architecture within the bounds \{'size': 7.0\}"):
        PredictorSearch(OPEN, RidgePredictor(), bounds={"size": 7.0}).ask()


@pytest.mark.parametrize("given", [{"cost": "ms"}, {"bounds": {"ms": 3.0}}])
def test_costs_that_are_not_known_are_told(given):
    rows = [{"width": width, "lr": width / 64, "ms": float(width)} for width in range(1, 12)]
    space = ParameterSpace.from_records(rows, costs={"ms": "ms"})
    search = PredictorSearch(space, RidgePredictor(), initial=2, **given)
    search.tell(space.pool, [arch["lr"] for arch in space.pool])
    with pytest.raises(ValueError, match=r"cost 'ms' of .* is not known; declare it as a function"):
        search.ask()
    # Candidates whose costs are known will do.
    known = PredictorSearch(space, RidgePredictor(), initial=2, candidates=space.pool, **given)
    known.tell(space.pool[:3], [1.0, 2.0, 3.0])
    assert set(known.ask(20)) <= set(space.pool[3:])


def test_constraints_multiply_the_expected_improvement_on_what_is_feasible():
    feasible = torch.linspace(0.05, 1.0, 15625, dtype=torch.float64)
    search = told(acquisition="ei", constraints=[lambda archs: feasible[archs.index]])
    (asked,) = search.ask()
    _, mean, std = scores()
    best = mean[TOLD][feasible[TOLD] >= predictor_search.LIKELY].max()
    values = expected_improvement(mean, std, best) * feasible
    values[TOLD] = -torch.inf
    assert values[SPACE.index(asked)] == values.max()


def test_without_a_feasible_measurement_the_probability_decides():
    feasible = torch.full((15625,), 0.01, dtype=torch.float64)
    feasible[4321] = 0.4
    search = told(acquisition="ei", constraints=[lambda archs: feasible[archs.index]])
    assert SPACE.index(search.ask()[0]) == 4321


def test_constraints_hold_with_a_cost_and_together():
    even = (torch.arange(15625) % 2 == 0).double()
    third = (torch.arange(15625) % 3 == 0).double()
    constraints = [lambda archs: even[archs.index], lambda archs: third[archs.index]]
    search = PredictorSearch(SPACE, RidgePredictor(), initial=1, cost="flops", constraints=constraints)
    index = torch.arange(0, 15625, 600)
    search.tell(index, Y[index])
    assert all(SPACE.index(arch) % 6 == 0 for arch in search.ask(3))


@pytest.mark.parametrize("given", [torch.tensor([2.0]), torch.ones(3), torch.tensor([float("nan")])])
def test_constraints_that_are_no_probabilities(given):
    search = told(constraints=[lambda archs: given])
    with pytest.raises(ValueError, match="one probability for each"):
        search.ask()


def test_a_search_starts_each_fit_from_the_one_before_unless_told_otherwise(toy_space):
    predictor = ConvNPPredictor(warm_start=False)
    assert PredictorSearch(toy_space, predictor).predictor.warm_start
    assert not PredictorSearch(toy_space, predictor, warm_start=False).predictor.warm_start
    assert not predictor.warm_start
    # Others know no such thing.
    assert "warm_start" not in PredictorSearch(toy_space, GPPredictor()).predictor.get_params()
