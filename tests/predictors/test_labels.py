from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from pyg_nas_np.predictors.labels import LabelTransform, check_labels, rank_gauss, robust_logit, robust_scores
from pyg_nas_np.utils import InvalidLabelsError

accuracies = st.lists(st.integers(1000, 9500).map(lambda v: v / 100), min_size=2, max_size=30).filter(
    lambda values: len(set(values)) > 1
)
kinds = st.sampled_from(["auto", "rank", "robust"])
scores = st.lists(st.floats(-8, 8), min_size=2, max_size=20, unique=True)


def fitted(values, kind):
    transform = LabelTransform(kind)
    return transform, transform.fit(torch.tensor(values, dtype=torch.float64))


@given(accuracies)
def test_rank_gauss_equals_scipy(values):
    expected = norm.ppf((rankdata(values) - 0.5) / len(values))
    np.testing.assert_allclose(rank_gauss(torch.tensor(values)).numpy(), expected, atol=1e-10)


@given(accuracies, kinds)
def test_scores_are_standardised_and_in_the_order_of_the_labels(values, kind):
    _, z = fitted(values, kind)
    assert float(z.mean()) == pytest.approx(0, abs=1e-9)
    assert float(z.std(unbiased=False)) == pytest.approx(1)
    y = torch.tensor(values)
    assert torch.equal((y[:, None] > y), (z[:, None] > z + 1e-12))


@given(accuracies, kinds)
def test_inverse_returns_the_labels(values, kind):
    transform, z = fitted(values, kind)
    torch.testing.assert_close(transform.inverse(z)[0], torch.tensor(values, dtype=torch.float64))


@given(accuracies, kinds, scores)
def test_inverse_is_strictly_increasing_and_bounded(values, kind, z):
    transform, _ = fitted(values, kind)
    z = torch.tensor(z, dtype=torch.float64).sort().values
    z = z[torch.cat([torch.tensor([True]), z.diff() > 1e-6])]
    y, std = transform.inverse(z, torch.full_like(z, 0.3))
    assert bool((y.diff() > 0).all())
    assert bool((std > 0).all())
    reach = max(values) - min(values)
    assert min(values) - reach <= float(y.min())
    assert float(y.max()) <= max(values) + reach


def test_inverse_is_continuous_at_the_ends():
    transform, z = fitted([70.0, 90.0, 92.0, 93.0, 94.0], "rank")
    for end in (z.min(), z.max()):
        near = transform.inverse(end + torch.tensor([-1e-6, 0.0, 1e-6], dtype=torch.float64))[0]
        assert float(near.max() - near.min()) < 1e-3


def test_extrapolation_stays_within_the_distance_to_the_median():
    transform, _ = fitted([70.0, 90.0, 92.0, 93.0, 94.0], "rank")
    low, high = transform.inverse(torch.tensor([-1e6, 1e6]))[0].tolist()
    assert low == pytest.approx(70 - 22, abs=0.01)
    assert high == pytest.approx(94 + 2, abs=0.01)


def test_std_is_half_the_image_of_two_deviations():
    transform, _ = fitted([1.0, 2.0, 3.0, 4.0, 5.0], "rank")
    mean, std = transform.inverse(torch.tensor([0.0]), torch.tensor([0.1]))
    outer = transform.inverse(torch.tensor([-0.1, 0.1]))[0]
    assert float(mean) == pytest.approx(3.0)
    assert float(std) == pytest.approx(float(outer[1] - outer[0]) / 2)


@pytest.mark.parametrize(("values", "std"), [([93.0], 93.0), ([5.0] * 4, 1.25), ([0.0], 1.0), ([-2.0, -2.0], 1.0)])
def test_labels_without_scale_give_the_documented_prior(values, std):
    transform, z = fitted(values, "rank")
    assert not transform.informative
    assert not z.any()
    mean, spread = transform.inverse(torch.tensor([-1.0, 3.0]), torch.ones(2))
    assert mean.tolist() == [values[0]] * 2
    assert spread.tolist() == [std] * 2


def test_ties_at_an_end_leave_room_beyond():
    transform, _ = fitted([10.0, 10.0, 10.0, 90.0], "rank")
    y = transform.inverse(torch.tensor([-3.0, -2.0, 0.0, 2.0, 3.0]))[0]
    assert bool((y.diff() > 0).all())


def test_robust_is_clipped_and_reads_fractions_and_percent():
    y = torch.tensor([10.0, 90.0, 91.0, 92.0, 93.0], dtype=torch.float64)
    assert float(robust_logit(y).min()) == -3.0
    torch.testing.assert_close(robust_logit(y), robust_logit(y / 100))
    assert not robust_logit(torch.tensor([50.0, 90.0, 90.0, 90.0, 95.0], dtype=torch.float64)).any()
    with pytest.raises(InvalidLabelsError, match="range from 3 to 120"):
        robust_logit(torch.tensor([3.0, 120.0]))
    with pytest.raises(ValueError, match="auto, rank, robust"):
        LabelTransform("log")


@pytest.mark.parametrize(
    "y",
    [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3]), np.array([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2.0, 3.0])],
)
def test_labels_come_in_any_form(y):
    assert check_labels(y, 3).tolist() == [1.0, 2.0, 3.0]
    assert check_labels(y).dtype == torch.float64


@pytest.mark.parametrize(
    ("y", "count", "message"),
    [
        ([], 0, "no labels; at least 1"),
        (
            [1.0, float("nan"), float("nan")],
            3,
            r"2 of 3 labels are missing, NaN or infinite, the first at position 1 \(nan\)",
        ),
        ([float("inf")], 1, r"\(inf\)"),
        ([1.0, 2.0], 3, "2 labels for 3 architectures"),
        (torch.ones(2, 2), 2, r"shape \[2, 2\]"),
        (5.0, 1, r"shape \[\]"),
        (["good", "bad"], 2, "must be numbers"),
    ],
)
def test_unusable_labels_are_named(y, count, message):
    with pytest.raises(InvalidLabelsError, match=message):
        check_labels(y, count)


@given(accuracies)
def test_auto_is_robust_for_every_target(values):
    torch.testing.assert_close(fitted(values, "auto")[1], fitted(values, "robust")[1])
    for shift in (100, -100):
        others = [v + shift for v in values]
        torch.testing.assert_close(
            fitted(others, "auto")[1], robust_scores(torch.tensor(others, dtype=torch.float64)), rtol=1e-6, atol=1e-6
        )
    torch.testing.assert_close(fitted(values, "auto")[1], fitted([v / 100 for v in values], "auto")[1])
    assert LabelTransform().kind == "auto"


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_robust_scores_are_standardised_and_in_order(values):
    y = torch.tensor(values, dtype=torch.float64)
    z = robust_scores(y)
    assert z.isfinite().all()
    assert float(z.mean()) == pytest.approx(0, abs=1e-6)
    assert bool((z[y.argsort()].diff() >= -1e-9).all())
    if y.unique().numel() > 1:
        assert float(z.std(unbiased=False)) == pytest.approx(1, abs=1e-6)
    else:
        assert not z.any()
    # What the clip at three deviations leaves of an outlier does not depend on how far it is.
    far = [torch.cat([torch.linspace(0, 1, 20), torch.tensor([v])]).double() for v in (50.0, 5000.0)]
    torch.testing.assert_close(robust_scores(far[0]), robust_scores(far[1]))
