from __future__ import annotations

from array import array
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from pyg_nas_np.predictors.labels import (
    LabelTransform,
    LogTransform,
    check_labels,
    rank_gauss,
    robust_logit,
    robust_scores,
)
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


@pytest.mark.parametrize("maximize", [True, False])
def test_gains_count_from_the_best_label_and_go_on_straight(maximize):
    sign = 1.0 if maximize else -1.0
    transform = LabelTransform("rank", maximize=maximize)
    scores = transform.fit(sign * torch.arange(10, dtype=torch.float64))
    assert transform.gain(scores).tolist() == [0.0] * 10
    gains = transform.gain(scores.max() + torch.tensor([0.5, 1.0, 50.0], dtype=torch.float64))
    assert float(gains[0]) > 0.0
    torch.testing.assert_close(gains / gains[0], torch.tensor([1.0, 2.0, 100.0], dtype=torch.float64))
    # Near the best label the way back says the same.
    near = scores.max() + 1e-4
    torch.testing.assert_close(sign * transform.inverse(near)[0] - 9.0, transform.gain(near), rtol=1e-3, atol=0.0)


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


class Frame:
    """What pandas and polars have in common: a series, or a frame of one column."""

    def __init__(self, values, index=None):
        self.values, self.index = np.asarray(values, dtype=object), index

    def to_numpy(self):
        return self.values

    def __getitem__(self, key):
        raise KeyError(key)

    def __len__(self):
        return len(self.values)


def strided(values):
    return np.repeat(np.asarray(values), 2)[::-2][::-1]


@pytest.mark.parametrize(
    "y",
    [
        Frame([1, 2, 3], index=["a", "b", "c"]),
        Frame([[1.0], [2.0], [3.0]]),
        Frame([np.float32(1), Decimal(2), Fraction(3)]),
        np.ma.array([1.0, 2.0, 3.0], mask=False),
        np.ma.array([[1], [2], [3]]),
        [Decimal(1), Decimal("2.0"), Decimal(3)],
        [Fraction(1), Fraction(4, 2), 3],
        np.array([1, 2, 3], dtype=">i2"),
        np.array([1, 2, 3], dtype=">f8"),
        np.array([1, 2, 3], dtype=np.float16),
        np.array([3.0, 2.0, 1.0])[::-1],
        strided([1.0, 2.0, 3.0]),
        np.array([1, 2, 3], dtype=object),
        np.array([1, 2, 3], dtype=np.longdouble),
        np.array([1, 2, 3], dtype=np.uint64),
        [np.float64(1), torch.tensor(2.0), 3],
        [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)],
        [np.array(1.0), np.array(2.0), np.array(3.0)],
        [[1.0], [2.0], [3.0]],
        torch.tensor([1, 2, 3], dtype=torch.bfloat16),
        torch.sparse_coo_tensor([[0, 1, 2]], [1.0, 2.0, 3.0], (3,)),
        torch.tensor([1.0, 2.0, 3.0], requires_grad=True),
        torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])[:, 0],
        range(1, 4),
        memoryview(np.array([1.0, 2.0, 3.0])),
        array("d", [1.0, 2.0, 3.0]),
    ],
    ids=lambda y: f"{type(y).__name__}-{getattr(y, 'dtype', '')}",
)
def test_labels_come_in_unusual_forms(y):
    assert check_labels(y, 3).tolist() == [1.0, 2.0, 3.0]


def test_series_of_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"y": [0.0, 1.0, 2.0, 3.0]}, index=list("abcd"))
    kept = frame[frame.y > 0]
    for y in (
        kept.y,
        kept,
        kept.y.astype("Float64"),
        kept.y.astype("Int64"),
        kept.y.astype(object),
        kept.y.reset_index(drop=True),
    ):
        assert check_labels(y, 3).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(InvalidLabelsError, match="the first at position 1"):
        check_labels(pandas.Series([1, None, 3], dtype="Int64"))
    with pytest.raises(InvalidLabelsError, match="must be numbers"):
        check_labels(pandas.Series(["1", "x"]))
    with pytest.raises(InvalidLabelsError, match="must be numbers"):
        check_labels(pandas.Series(pandas.to_datetime(["2020-01-01", "2021-01-01"])))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]), "the first at position 1"),
        (np.ma.array([1, 2, 3], mask=[0, 0, 1]), "the first at position 2"),
        (Frame([1.0, None, 3.0]), "the first at position 1"),
        ([1.0, None, 3.0], "the first at position 1"),
        ([1.0, Decimal("NaN"), 3.0], "the first at position 1"),
        ([1.0, 10**400, 3.0], "too large"),
        (["1", "2", "3"], "must be numbers"),
        (Frame(["1", "2", "3"]), "must be numbers"),
        (np.array(["1", "2", "3"]), "must be numbers"),
        (np.array([b"1", b"2", b"3"]), "must be numbers"),
        (np.array([1j, 2, 3]), "must be numbers"),
        (torch.tensor([1j, 2, 3]), "must be numbers"),
        (np.array(["2020", "2021", "2022"], dtype="datetime64[Y]"), "must be numbers"),
        ([1.0, [2.0, 3.0], 4.0], "must be numbers"),
        ([1.0, object(), 3.0], "must be numbers"),
        ("123", "must be numbers"),
        (b"123", "must be numbers"),
        ({1: 1.0, 2: 2.0, 3: 3.0}, "must be numbers"),
        ({1.0, 2.0, 3.0}, "must be numbers"),
        (None, "must be one number an architecture"),
        ((value for value in (1, 2, 3)), "must be numbers"),
        ({"a": 1, "b": 2, "c": 3}.values(), "must be numbers"),
        (object(), "must be numbers"),
        (torch.ones(3, device="meta"), "must be numbers"),
        (Frame([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]), r"shape \[3, 2\]"),
        (np.array(3.0), r"shape \[\]"),
        (np.ones((3, 1, 1)), r"shape \[3, 1, 1\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unusual_labels_are_refused_by_name(y, message):
    with pytest.raises(InvalidLabelsError, match=message):
        check_labels(y, 3)


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("kind", ["auto", "rank"])
@pytest.mark.parametrize(
    ("offset", "unit"), [(1e9, 1e-3), (-1e12, 1.0), (0.0, 1e300), (0.0, 1e-300), (1e300, 1e286), (0.0, 1.7e308)]
)
def test_neither_offset_nor_magnitude_costs_anything(kind, offset, unit, maximize):
    shape = torch.tensor([0.1, -0.9, 0.3, 0.95, -0.2, 0.31], dtype=torch.float64)
    y = offset + unit * shape
    transform = LabelTransform(kind, maximize=maximize)
    z = transform.fit(check_labels(y))
    assert z.isfinite().all()
    assert z.argsort().tolist() == shape.argsort(descending=not maximize).tolist()
    # "auto" takes labels from 0 to 100 for accuracies, which these are not.
    torch.testing.assert_close(z, LabelTransform(kind, maximize=maximize).fit(shape), rtol=1e-2, atol=1e-2)
    back, std = transform.inverse(z, torch.full_like(z, 0.1))
    torch.testing.assert_close((back - offset) / unit, (y - offset) / unit, rtol=1e-6, atol=1e-6)
    assert std.isfinite().all()
    assert (std > 0).all()


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=20), st.booleans())
def test_any_finite_labels_have_finite_scores(values, maximize):
    y = check_labels(values)
    transform = LabelTransform(maximize=maximize)
    z = transform.fit(y)
    assert z.isfinite().all()
    mean, std = transform.inverse(torch.linspace(-9, 9, 19, dtype=torch.float64), torch.ones(19))
    assert mean.isfinite().all()
    assert std.isfinite().all()


@given(accuracies, kinds)
def test_minimising_mirrors(values, kind):
    up, down = LabelTransform(kind), LabelTransform(kind, maximize=False)
    y = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(down.fit(y), -up.fit(y))
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for a, b in zip(down.inverse(-z, torch.ones(7)), up.inverse(z, torch.ones(7)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("maximize", [True, False])
def test_without_labels_predictions_are_scores(maximize):
    transform = LabelTransform(maximize=maximize)
    assert transform.fit(check_labels([], 0, least=0)).numel() == 0
    assert not transform.labelled
    assert not transform.informative
    mean, std = transform.inverse(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 1.0]))
    assert mean.tolist() == ([-1.0, 2.0] if maximize else [1.0, -2.0])
    assert std.tolist() == [0.5, 1.0]
    assert transform.inverse(torch.tensor([1.0]))[1] is None


@pytest.mark.parametrize("maximize", [True, False])
def test_deviations_of_labels_become_those_of_scores(maximize: bool) -> None:
    y = torch.linspace(-300, 300, 61, dtype=torch.float64)
    transform = LabelTransform("rank", maximize=maximize)
    z = transform.fit(y)
    found = transform.score_std(y, torch.full_like(y, 10.0))
    middle = slice(5, -5)
    torch.testing.assert_close(found[middle], (z[2:] - z[:-2]).abs()[4:-4] / 2)
    assert bool((found > 0).all())
    assert bool((transform.score_std(y, torch.zeros_like(y)) == 0).all())
    equal = LabelTransform()
    equal.fit(torch.ones(2, dtype=torch.float64))
    assert equal.score_std(torch.ones(2, dtype=torch.float64), torch.ones(2)).tolist() == [0.0, 0.0]


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20), st.floats(1e-3, 1e3))
def test_logarithms_are_free_of_the_unit(values, factor):
    y = torch.tensor(values, dtype=torch.float64)
    transform, scaled = LogTransform(), LogTransform()
    z = transform.fit(y)
    torch.testing.assert_close(scaled.fit(factor * y), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(transform.inverse(z)[0], y)
    assert abs(float(z.mean())) < 1e-6


def test_logarithms_of_one_label_and_of_none():
    transform = LogTransform()
    transform.fit(torch.tensor([3.0], dtype=torch.float64))
    assert transform.informative
    mean, std = transform.inverse(torch.zeros(1), torch.full((1,), 0.1))
    torch.testing.assert_close(mean, torch.tensor([3.0], dtype=torch.float64))
    torch.testing.assert_close(std, transform.score_std(mean, std) * mean, rtol=1e-2, atol=0.0)
    transform.fit(torch.empty(0, dtype=torch.float64))
    assert not transform.labelled
    with pytest.raises(InvalidLabelsError, match="position 1 is -2; latencies must be positive"):
        transform.fit(torch.tensor([3.0, -2.0], dtype=torch.float64))
