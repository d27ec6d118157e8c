from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.utils.histogram import Histogram

NUMBERS = st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=60)


def counted(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.update(np.asarray(part, dtype=np.float64))
    return histogram


def state(histogram):
    return histogram._exponent, histogram._first, histogram._counts.tolist(), histogram.minimum, histogram.maximum


@given(NUMBERS, st.floats(0, 1))
def test_quantiles_are_within_the_bound(values, q):
    histogram = counted(values)
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert abs(histogram.quantile(q) - exact) <= 3.1e-5 * (max(values) - min(values)) + 1e-9 * max(map(abs, values))
    assert (histogram.quantile(0.0), histogram.quantile(1.0)) == pytest.approx((min(values), max(values)), rel=1e-4)
    assert histogram.count == len(values)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_order_and_parts_do_not_matter(first, second, third):
    wanted = state(counted([*first, *second, *third]))
    assert state(counted(third, first, [], second)) == wanted
    merged = counted(second)
    merged.merge(counted(third, first))
    merged.merge(Histogram())
    assert state(merged) == wanted


def test_many_normal_numbers():
    values = np.random.default_rng(0).normal(93.0, 0.01, 200_000)
    histogram = counted(*np.array_split(values, 7))
    for q in (0.01, 0.5, 0.99):
        assert histogram.quantile(q) == pytest.approx(float(np.quantile(values, q)), abs=3e-6)


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-1e-320], [1e300, -1e300], [0.1] * 3])
def test_degenerate_ranges(values):
    histogram = counted(values)
    assert histogram.quantile(0.5) == pytest.approx(sorted(values)[(len(values) - 1) // 2], rel=1e-4)


def test_what_is_refused():
    for values in ([math.nan], [math.inf, 0.0]):
        with pytest.raises(ValueError, match="counts finite numbers"):
            counted(values)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Histogram().quantile(0.5)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        counted([1.0]).quantile(1.5)
