from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.search.acquisition import (
    expected_hypervolume_improvement,
    expected_improvement,
    feasible_bound,
    pareto_mask,
    upper_confidence_bound,
)

numbers = st.floats(-3, 3)


def test_upper_confidence_bound():
    mean, std = torch.randn(5), torch.rand(5)
    assert torch.equal(upper_confidence_bound(mean, std, 0.0), mean)
    torch.testing.assert_close(upper_confidence_bound(mean, std, 2.0), mean + 2 * std)


def test_expected_improvement_by_hand_and_by_sampling():
    one = torch.ones(1, dtype=torch.float64)
    # At the best itself: sigma / sqrt(2 pi).
    assert float(expected_improvement(0 * one, 2 * one, 0.0)) == pytest.approx(2 / math.sqrt(2 * math.pi))
    mean, std = torch.tensor([0.3, -1.0]).double(), torch.tensor([0.7, 1.5]).double()
    drawn = mean + std * torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampled = (drawn - 0.5).clamp_min(0).mean(dim=0)
    torch.testing.assert_close(expected_improvement(mean, std, 0.5), sampled, rtol=0.02, atol=1e-3)


@given(numbers, st.floats(0, 3), numbers)
def test_expected_improvement_bounds(mean, std, best):
    value = float(expected_improvement(*torch.tensor([[mean], [std]], dtype=torch.float64), best))
    assert value >= max(mean - best, 0.0) - 1e-9
    assert value <= max(mean - best, 0.0) + 0.4 * std + 1e-8


points = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), max_size=12)


@given(points)
def test_pareto_mask_equals_its_definition(pairs):
    value = torch.tensor([float(v) for v, _ in pairs])
    cost = torch.tensor([float(c) for _, c in pairs])
    expected = [not any((v2 >= v and c2 <= c) and (v2 > v or c2 < c) for v2, c2 in pairs) for v, c in pairs]
    assert pareto_mask(value, cost).tolist() == expected


def area(value, cost, reference):
    """Dominated area by counting unit squares; all coordinates are integers."""
    worst, limit = int(reference[0]), int(reference[1])
    squares = {
        (v, c)
        for top, left in zip(value, cost, strict=True)
        for v in range(worst, int(top))
        for c in range(int(left), limit)
    }
    return len(squares)


@given(points, st.integers(-4, 4), st.integers(-4, 4))
def test_hypervolume_of_a_certain_value_is_the_new_area(pairs, value, cost):
    reference = (-4.0, 4.0)
    values, costs = [v for v, _ in pairs], [c for _, c in pairs]
    gained = area([*values, value], [*costs, cost], reference) - area(values, costs, reference)
    found = expected_hypervolume_improvement(
        torch.tensor([float(value)]).double(),
        torch.zeros(1).double(),
        torch.tensor([float(cost)]).double(),
        torch.tensor(values).double(),
        torch.tensor(costs).double(),
        reference,
    )
    assert float(found) == pytest.approx(gained, abs=1e-6)


def test_hypervolume_of_an_uncertain_value_by_sampling():
    front_value, front_cost = torch.tensor([0.0, 1.0, 1.5]).double(), torch.tensor([1.0, 2.0, 3.5]).double()
    mean, std, cost = torch.tensor([0.8, 2.0]).double(), torch.tensor([0.6, 0.3]).double(), torch.tensor([1.5, 3.0])
    args = (cost.double(), front_value, front_cost, (-1.0, 4.0))
    exact = expected_hypervolume_improvement(mean, std, *args)
    drawn = mean + std * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampled = torch.stack([expected_hypervolume_improvement(z, 0 * std, *args) for z in drawn]).mean(dim=0)
    torch.testing.assert_close(exact, sampled, rtol=0.03, atol=0.01)


def test_feasible_bound_orders_as_the_product_of_exponentials():
    bound, probability = torch.randn(20).double(), torch.rand(20).double()
    assert torch.equal(feasible_bound(bound, probability).argsort(), (bound.exp() * probability).argsort())
    assert torch.equal(feasible_bound(bound, torch.ones(20)), bound)
    assert bool(feasible_bound(bound, torch.zeros(20)).isfinite().all())
