r"""Oracles: torch.distributions, numerical integration of the definitions, and simulation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from pyg_nas_np.metrics.functional import (
    calibration_error,
    gaussian_crps,
    gaussian_nll,
    gaussian_pit,
    interval_coverage,
    sample_crps,
)
from pyg_nas_np.utils import InvalidLabelsError

GAUSSIAN = [gaussian_nll, gaussian_crps, interval_coverage, gaussian_pit]
values = st.floats(-5, 5)


def random_predictions(count: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, std, noise = torch.randn(3, count, generator=generator, dtype=torch.float64)
    return mean, std.exp(), mean + noise


def test_nll_equals_the_distribution():
    mean, std, target = random_predictions()
    expected = -torch.distributions.Normal(mean, std).log_prob(target).mean()
    assert gaussian_nll(mean, std, target).item() == pytest.approx(expected.item(), abs=1e-12)


@given(values, st.floats(0.1, 3), values)
def test_crps_equals_the_integral(mean, std, y):
    def squared(x: float) -> float:
        return (stats.norm.cdf(x, mean, std) - (x >= y)) ** 2

    low, high = min(mean - 12 * std, y), max(mean + 12 * std, y)
    expected = integrate.quad(squared, low, y)[0] + integrate.quad(squared, y, high)[0]
    actual = gaussian_crps(*(torch.tensor([v], dtype=torch.float64) for v in (mean, std, y)))
    assert actual.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("score", [gaussian_nll, gaussian_crps])
def test_scores_are_differentiable(score):
    mean, std, target = random_predictions(5)
    assert torch.autograd.gradcheck(score, (mean.requires_grad_(), std.requires_grad_(), target))


@given(st.lists(values, min_size=2, max_size=6), values, st.booleans())
def test_sample_crps_equals_the_double_sum(samples, y, fair):
    count = len(samples)
    pairs = sum(abs(a - b) for a in samples for b in samples)
    expected = sum(abs(x - y) for x in samples) / count - pairs / (2 * count * (count - 1 if fair else count))
    x = torch.tensor(samples, dtype=torch.float64).unsqueeze(1)
    assert sample_crps(x, torch.tensor([y], dtype=torch.float64), fair=fair).item() == pytest.approx(expected, abs=1e-9)


def test_sample_crps_converges_to_the_closed_form():
    mean, std, target = random_predictions(20)
    noise = torch.randn(4000, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert sample_crps(mean + std * noise, target).item() == pytest.approx(
        gaussian_crps(mean, std, target).item(), abs=0.01
    )


def test_sample_crps_of_points_is_the_absolute_error():
    samples, target = torch.tensor([[1.0, 2.0]]), torch.tensor([0.0, 4.0])
    assert sample_crps(samples, target, fair=False).item() == pytest.approx(1.5)
    assert torch.autograd.gradcheck(
        lambda x: sample_crps(x, target.double()),
        torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True),
    )


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_coverage_of_a_calibrated_model(level):
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(2))
    coverage = interval_coverage(torch.ones(20000), torch.full((20000,), 2.0), 1 + 2 * noise, level)
    assert coverage.item() == pytest.approx(level, abs=0.01)


def test_coverage_interval_is_central():
    # The 50 % interval of N(0, 1) ends at 0.6745.
    target = torch.tensor([0.674, -0.674, 0.675, -0.675])
    assert interval_coverage(torch.zeros(4), torch.ones(4), target, 0.5).item() == 0.5


def test_pit_equals_the_distribution_function():
    mean, std, target = random_predictions()
    expected = torch.distributions.Normal(mean, std).cdf(target)
    assert torch.allclose(gaussian_pit(mean, std, target), expected, atol=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_calibration_error_equals_the_area(pit):
    u = torch.tensor(pit, dtype=torch.float64)
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    empirical = (u.unsqueeze(0) <= grid.unsqueeze(1)).double().mean(dim=1)
    assert calibration_error(u).item() == pytest.approx((empirical - grid).abs().mean().item(), abs=1e-4)


def test_calibration_error_of_a_calibrated_and_of_an_overconfident_model():
    mean, std = torch.zeros(5000), torch.ones(5000)
    noise = torch.randn(5000, generator=torch.Generator().manual_seed(3))
    assert calibration_error(gaussian_pit(mean, std, noise)).item() < 0.02
    assert calibration_error(gaussian_pit(mean, 0.3 * std, noise)).item() > 0.1


@pytest.mark.parametrize("metric", GAUSSIAN)
def test_bad_gaussian_input_raises(metric):
    one, nan, inf = torch.ones(2), torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])
    for name, arguments in {"mean": (nan, one, one), "std": (one, nan, one), "target": (one, one, nan)}.items():
        with pytest.raises(InvalidLabelsError, match=f"{name} is NaN at position 1"):
            metric(*arguments)
    with pytest.raises(InvalidLabelsError, match="mean is infinite"):
        metric(inf, one, one)
    with pytest.raises(InvalidLabelsError, match="std must be positive"):
        metric(one, 0 * one, one)
    with pytest.raises(InvalidLabelsError, match="vectors of one length"):
        metric(one, torch.ones(3), one)


@pytest.mark.parametrize(
    ("samples", "target", "fair", "message"),
    [
        (torch.ones(3), torch.ones(3), True, r"shape \[S, N\]"),
        (torch.ones(4, 3), torch.ones(4), True, r"got \[4, 3\] and \[4\]"),
        (torch.ones(1, 3), torch.ones(3), True, "1 samples per label are too few"),
        (torch.ones(0, 3), torch.ones(3), False, "0 samples per label are too few"),
        (torch.ones(2, 0), torch.ones(0), False, "at least 1"),
        (torch.full((2, 3), math.nan), torch.ones(3), True, "samples is NaN"),
        (torch.full((2, 3), math.inf), torch.ones(3), True, "samples is infinite"),
        (torch.ones(2, 3), torch.full((3,), math.nan), True, "target is NaN"),
    ],
)
def test_bad_samples_raise(samples, target, fair, message):
    with pytest.raises(InvalidLabelsError, match=message):
        sample_crps(samples, target, fair=fair)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90.0])
def test_level_is_checked(level):
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        interval_coverage(torch.zeros(2), torch.ones(2), torch.zeros(2), level)


def test_pit_is_checked():
    with pytest.raises(InvalidLabelsError, match=r"pit must lie in \[0, 1\], got 1.5"):
        calibration_error(torch.tensor([0.5, 1.5]))
