from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.convnp import (
    AdditiveGPPrior,
    MixturePrior,
    NetworkPrior,
    TablePrior,
    TreePrior,
    TrendPrior,
    space_prior,
)
from pyg_nas_np.convnp.priors import KNOWN_NOISE, known_noise
from pyg_nas_np.utils import InvalidLabelsError

TABLE = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
COORDINATES = torch.randn(300, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 0.5, 0.2, 0.1, 0.1])
GROUPS = {"first": [0, 1], "second": [2], "networks": [3, 4], "trend": [5]}
LABELS = {"cifar100/valid": TABLE[:, 0].exp(), "ImageNet16-120/valid": TABLE[:, 1]}
PRIORS = {
    "gp": AdditiveGPPrior(TABLE, {"first": [0, 1], "second": [2]}),
    "network": NetworkPrior(COORDINATES),
    "trend": TrendPrior(TABLE, 5),
    "tree": TreePrior(TABLE, [0, 1, 2]),
    "tables": TablePrior(LABELS, "cifar10"),
    "mixture": MixturePrior([NetworkPrior(COORDINATES), TrendPrior(TABLE, 5)]),
    "space": space_prior(TABLE, GROUPS, COORDINATES),
    "space without trend": space_prior(TABLE, {"first": [0, 1], "networks": [3, 4]}, COORDINATES),
}
DRAWS = {
    "gp": [-1.585971, -0.413249, -0.459311],
    "network": [-0.561251, 0.141064, -0.198548],
    "trend": [0.692009, 0.454402, -1.761098],
    "tree": [0.939518, 0.781634, 1.613801],
    "tables": [-1.274485, -0.160405, -0.538192],
    "mixture": [0.418364, -0.192054, 1.165414],
    "space": [0.073934, 0.188634, 0.054084],
    "space without trend": [0.688773, 0.930413, 0.466524],
}
every = pytest.mark.parametrize("name", list(PRIORS))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(4, 60))
@settings(max_examples=25)
def test_functions_are_finite_seeded_and_not_constant(name, seed, count):
    rows = torch.randperm(300, generator=generator(seed))[:count]
    values = PRIORS[name](rows, generator(seed))
    assert values.shape == (count,)
    assert values.dtype == torch.float64
    assert values.isfinite().all()
    assert torch.equal(values, PRIORS[name](rows, generator(seed)))


@every
def test_functions_differ_and_vary(name):
    rows = torch.arange(100)
    draws = torch.stack([PRIORS[name](rows, generator(seed)) for seed in range(8)])
    assert draws.unique(dim=0).size(0) > 1
    assert bool((draws.std(dim=1) > 0).all())
    state = torch.get_rng_state()
    PRIORS[name](rows, generator(0))
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_priors_can_be_pickled(name):
    # Workers of a data loader get them so, wherever processes are spawned.
    rows = torch.arange(40)
    again = pickle.loads(pickle.dumps(PRIORS[name]))
    assert torch.equal(again(rows, generator(3)), PRIORS[name](rows, generator(3)))


@every
def test_equal_seeds_give_the_same_functions_as_ever(name):
    values = PRIORS[name](torch.arange(40), generator(3))
    assert values[[0, 17, 39]].tolist() == pytest.approx(DRAWS[name], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["gp", "network", "trend", "tables"])
def test_equal_architectures_have_equal_values(name):
    values = PRIORS[name](torch.tensor([7, 9, 7, 30, 41]), generator(3))
    assert float(values[0]) == pytest.approx(float(values[2]), abs=0.02)  # the jitter of the process
    assert float(values[0]) != pytest.approx(float(values[1]), abs=0.02)


def test_additive_functions_have_unit_variance_and_are_smooth():
    table = torch.cat([torch.zeros(1, 5), torch.full((1, 5), 1e-3), torch.full((1, 5), 100.0)])
    prior = AdditiveGPPrior(table, {"first": [0, 1], "second": [2, 3, 4]})
    draws = torch.stack([prior(torch.arange(3), generator(seed)) for seed in range(2000)])
    assert draws.var(dim=0).tolist() == pytest.approx([1.0] * 3, rel=0.15)
    correlation = torch.corrcoef(draws.t())
    assert correlation[0, 1] > 0.99
    assert abs(correlation[0, 2]) < 0.1


def test_additive_functions_of_one_group_ignore_other_columns():
    table = torch.zeros(2, 3)
    table[1, 2] = 5.0
    values = AdditiveGPPrior(table, {"only": [0, 1]})(torch.arange(2), generator(0))
    assert float(values[0]) == pytest.approx(float(values[1]), abs=0.01)


def test_trends_are_monotone_and_mostly_rise():
    order = TABLE[:, 5].argsort()
    draws = torch.stack([PRIORS["trend"](order, generator(seed)) for seed in range(300)])
    steps = draws.diff(dim=1)
    rises, falls = (steps >= 0).all(dim=1), (steps <= 0).all(dim=1)
    assert bool((rises | falls).all())
    assert 0.83 < float(rises.float().mean()) < 0.96


def test_trees_are_steps_of_the_given_columns():
    rows = torch.arange(300)
    values = TreePrior(TABLE, [0, 1], num_trees=1, depth=2)(rows, generator(0))
    assert 2 <= values.unique().numel() <= 4
    other = TABLE.clone()
    other[:, 2:] += torch.randn(300, 4, generator=generator(5))
    assert torch.equal(TreePrior(other, [0, 1], num_trees=1, depth=2)(rows, generator(0)), values)


def test_network_functions_lie_in_the_span_of_the_coordinates():
    values = PRIORS["network"](torch.arange(300), generator(0))
    solution = torch.linalg.lstsq(COORDINATES.double(), values.unsqueeze(1)).solution
    torch.testing.assert_close(COORDINATES.double() @ solution, values.unsqueeze(1), rtol=1e-4, atol=1e-5)


def test_tables_enter_by_their_ranks_alone():
    rows = torch.arange(300)
    warped = {name: (3 * y).exp() for name, y in LABELS.items()}
    torch.testing.assert_close(
        TablePrior(warped, "cifar10")(rows, generator(0)), PRIORS["tables"](rows, generator(0)), rtol=1e-6, atol=1e-6
    )
    single = TablePrior({"cifar100/valid": TABLE[:, 0]}, "cifar10")(rows, generator(0))
    assert torch.equal(single.argsort(), TABLE[:, 0].argsort())
    # Mostly one table, sometimes a mixture.
    best = []
    for seed in range(100):
        both = torch.stack([PRIORS["tables"](rows, generator(seed)), *(y.argsort().argsort() for y in LABELS.values())])
        best.append(float(torch.corrcoef(both)[0, 1:].max()))
    assert sum(value > 0.99 for value in best) > 40
    assert min(best) < 0.95


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("cifar10/valid_accuracy", "cifar10"),
        ("cifar10/valid_accuracy@12", "cifar10"),
        ("cifar10", "cifar10"),
        ("CIFAR10/x", "cifar10"),
        ("cifar-10/x", "cifar10"),
        ("CIFAR_10/x", "cifar10"),
        ("cifar 10/x", "cifar10"),
        ("cifar10-valid/x", "cifar10"),
        ("cifar10/x", "cifar10-valid"),
        ("cifar10_valid/x", "CIFAR-10"),
        ("imagenet16-120/x", "ImageNet16-120"),
        ("ImageNet16_120/x", "ImageNet16-120"),
        ("imagenet16120", "ImageNet16-120"),
        ("imagenet/valid", "ImageNet16-120"),
        ("cifar10@12", "cifar10"),
        ("ogbn-arxiv/x", "arxiv"),
        ("arxiv/accuracy", "ogbn_arxiv"),
    ],
)
def test_no_table_of_the_target_takes_part(name, target):
    labels = {"other/x": torch.arange(5.0), name: torch.arange(5.0)}
    with pytest.raises(InvalidLabelsError, match=f"the table {name!r} is of {target!r}, the data set to predict"):
        TablePrior(labels, target)


@pytest.mark.parametrize(
    ("name", "target"),
    [("cifar100/x", "cifar10"), ("cifar10/x", "cifar100"), ("cs/x", "physics"), ("cifar10/x", ""), ("/x", "")],
)
def test_tables_of_other_data_sets_take_part(name, target):
    assert TablePrior({name: torch.arange(5.0)}, target)(torch.arange(5), generator(0)).isfinite().all()


def test_tables_with_missing_labels_are_refused():
    for bad in (torch.nan, torch.inf):
        labels = {"cifar100/x": torch.tensor([1.0, bad, 2.0, bad])}
        with pytest.raises(InvalidLabelsError, match="'cifar100/x' lacks 2 of 4 labels"):
            TablePrior(labels, "cifar10")


def test_mixtures_follow_their_parts_and_add_noise():
    rows = torch.arange(300)
    prior = MixturePrior([TrendPrior(TABLE, 5)])
    h = TABLE[:, 5].double()
    correlation = [
        abs(float(torch.corrcoef(torch.stack([prior(rows, generator(seed)), h]))[0, 1])) for seed in range(30)
    ]
    assert sorted(correlation)[15] > 0.8
    assert max(correlation) < 0.999


def test_known_noise_is_within_its_range_and_differs_between_labels():
    drawn = torch.stack([known_noise(400, generator(seed)) for seed in range(60)])
    assert drawn.dtype == torch.float64
    assert torch.equal(drawn[1], known_noise(400, generator(1)))
    assert bool((drawn >= 0.0).all())
    largest = drawn.max(dim=1).values
    assert bool((largest <= KNOWN_NOISE[1]).all())
    assert float(largest.min()) < 0.3
    assert float(largest.max()) > 1.0
    assert bool((drawn.std(dim=1) > 0.0).all())
    # Three kinds: a part without noise, means of up to ten repeats, two decades.
    silent = (drawn == 0).any(dim=1)
    values = torch.tensor([row.unique().numel() for row in drawn])
    assert bool((values[silent] == 2).all())
    assert 5 < int(silent.sum()) < 35
    assert 5 < int((values == 10).sum()) < 35
    assert 5 < int((values == 400).sum()) < 35
