r"""Oracles: brute force over all pairs, SciPy, and definitions written out in plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pyg_nas_np.metrics.functional import kendall_tau, n_at_k, precision_at_k, regret_at_k, spearman_rho
from pyg_nas_np.utils import InvalidLabelsError

# Few distinct values, so that ties are the rule.
tied = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30)
cases = st.tuples(tied, st.integers(0, 2**16))
SELECTIONS = [n_at_k, precision_at_k, regret_at_k]


def vectors(pairs: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))


def is_constant(x: torch.Tensor) -> bool:
    return x.unique().numel() == 1


def brute_force_tau(preds: list[float], target: list[float]) -> float:
    score, free_x, free_y = 0, 0, 0
    for i, j in itertools.combinations(range(len(preds)), 2):
        x, y = preds[i] - preds[j], target[i] - target[j]
        score += (x * y > 0) - (x * y < 0)
        free_x += x != 0
        free_y += y != 0
    return score / math.sqrt(free_x * free_y)


@given(tied)
def test_tau_equals_brute_force(pairs):
    preds, target = vectors(pairs)
    if is_constant(preds) or is_constant(target):
        with pytest.raises(InvalidLabelsError, match="undefined"):
            kendall_tau(preds, target)
    else:
        expected = brute_force_tau(preds.tolist(), target.tolist())
        assert kendall_tau(preds, target).item() == pytest.approx(expected, abs=1e-12)


@given(tied)
def test_spearman_equals_scipy(pairs):
    preds, target = vectors(pairs)
    if not is_constant(preds) and not is_constant(target):
        expected = stats.spearmanr(preds.numpy(), target.numpy()).statistic
        assert spearman_rho(preds, target).item() == pytest.approx(expected, abs=1e-12)


def test_golden_values_by_hand():
    preds, target = torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0, 3.0])
    # Six pairs: four concordant, one tied in each input; ranks 1, 2.5, 2.5, 4 and 1, 2, 3.5, 3.5.
    assert kendall_tau(preds, target).item() == pytest.approx(4 / 5)
    assert spearman_rho(preds, target).item() == pytest.approx(3.75 / 4.5)


def test_large_input_with_ties_equals_scipy():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(20000, generator=generator)
    preds = (target + torch.randn(20000, generator=generator)).mul(20).round()
    assert kendall_tau(preds, target).item() == pytest.approx(stats.kendalltau(preds, target).statistic, abs=1e-6)
    assert spearman_rho(preds, target).item() == pytest.approx(stats.spearmanr(preds, target).statistic, abs=1e-6)


@pytest.mark.parametrize("metric", [kendall_tau, spearman_rho])
def test_correlations_depend_on_ranks_only(metric):
    x = torch.tensor([0.3, float("-inf"), 2.0, float("inf")])
    assert metric(x, torch.tensor([2.0, 1.0, 3.0, 4.0])).item() == pytest.approx(1.0)
    assert metric(-x, torch.tensor([2, 1, 3, 4])).item() == pytest.approx(-1.0)


@pytest.mark.parametrize("metric", [kendall_tau, spearman_rho])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_dtypes(metric, dtype):
    preds = torch.tensor([1, 2, 3, 4]).to(dtype)
    if dtype.is_floating_point:
        preds.requires_grad_()
    value = metric(preds, torch.tensor([1, 3, 2, 4]))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.item() == pytest.approx({kendall_tau: 2 / 3, spearman_rho: 0.8}[metric], abs=1e-6)
    assert not value.requires_grad


@pytest.mark.parametrize("metric", [kendall_tau, spearman_rho])
def test_constant_input(metric):
    with pytest.raises(InvalidLabelsError, match=r"all 3 values of preds equal 0\.5"):
        metric(torch.full((3,), 0.5), torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(InvalidLabelsError, match="all 3 values of target equal 7"):
        metric(torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 7.0))
    assert metric(torch.full((3,), 0.5), torch.tensor([1.0, 2.0, 3.0]), undefined=0.0).item() == 0.0


@pytest.mark.parametrize("metric", [kendall_tau, spearman_rho, *SELECTIONS])
def test_bad_input_raises(metric):
    with pytest.raises(InvalidLabelsError, match="target is NaN"):
        metric(torch.arange(12.0), torch.full((12,), float("nan")))
    with pytest.raises(InvalidLabelsError, match=r"preds \[12\], target \[11\]"):
        metric(torch.arange(12.0), torch.arange(11.0))
    with pytest.raises(InvalidLabelsError):
        metric(torch.empty(0), torch.empty(0))


# -- selection --------------------------------------------------------------------------------------------------------


def worst_case(preds, target, k, maximize):
    """Tries every way to resolve ties and returns the least favourable values of the three metrics."""
    sign = 1 if maximize else -1
    p, t = [sign * x for x in preds], [sign * x for x in target]
    border = sorted(t, reverse=True)[k - 1]
    values = []
    for chosen in itertools.combinations(range(len(p)), k):
        rest = set(range(len(p))) - set(chosen)
        if all(p[i] >= p[j] for i in chosen for j in rest):
            best = max(t[i] for i in chosen)
            values.append((1 + sum(x > best for x in t), sum(t[i] >= border for i in chosen) / k, max(t) - best))
    ranks, precisions, regrets = zip(*values, strict=True)
    return max(ranks), min(precisions), max(regrets)


@given(tied.filter(lambda p: len(p) <= 7), st.integers(1, 7), st.booleans())
def test_selection_equals_the_worst_case_of_the_definition(pairs, k, maximize):
    preds, target = vectors(pairs)
    k = min(k, len(pairs))
    rank, precision, regret = worst_case(preds.tolist(), target.tolist(), k, maximize)
    assert n_at_k(preds, target, k, maximize=maximize).item() == rank
    assert precision_at_k(preds, target, k, maximize=maximize).item() == pytest.approx(precision)
    assert regret_at_k(preds, target, k, maximize=maximize).item() == pytest.approx(regret)


@pytest.mark.parametrize("metric", SELECTIONS)
@given(case=cases)
def test_selection_does_not_depend_on_the_order_of_the_inputs(metric, case):
    pairs, seed = case
    preds, target = vectors(pairs)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    k = 1 + seed % len(pairs)
    torch.testing.assert_close(metric(preds, target, k), metric(preds[order], target[order], k))


@given(tied, st.floats(0.01, 1.0))
def test_perfect_predictions(pairs, k):
    _, target = vectors(pairs)
    for maximize in (True, False):
        assert n_at_k(target, target, k, maximize=maximize).item() == 1
        assert precision_at_k(target, target, k, maximize=maximize).item() == 1.0
        assert regret_at_k(target, target, k, maximize=maximize).item() == 0.0


def test_a_constant_predictor_gains_nothing():
    target = torch.arange(100.0)
    assert n_at_k(torch.zeros(100), target, 10).item() == 91
    assert precision_at_k(torch.zeros(100), target, 10).item() == 0.0
    assert regret_at_k(torch.zeros(100), target, 10).item() == 90.0


def test_selecting_everything():
    preds, target = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 5.0, 2.0])
    assert (n_at_k(preds, target, 3).item(), precision_at_k(preds, target, 1.0).item()) == (1, 1.0)
    assert regret_at_k(preds, target, 3).item() == 0.0


@pytest.mark.parametrize("metric", SELECTIONS)
def test_k_is_checked(metric):
    with pytest.raises(ValueError, match="k must be an int from 1 to 3"):
        metric(torch.arange(3.0), torch.arange(3.0), 4)


def test_regret_needs_finite_labels():
    with pytest.raises(InvalidLabelsError, match="target is infinite"):
        regret_at_k(torch.arange(2.0), torch.tensor([1.0, float("inf")]), 1)
