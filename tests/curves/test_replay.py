"""Replay of recorded curves (its agreement with decisions one by one is tested with the rule)."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves import EarlyStopping, LastSeenValue, replay
from pyg_nas_np.curves.data import LearningCurves


def test_fewer_curves_than_the_burn_in():
    curves = LearningCurves(np.random.default_rng(0).uniform(size=(10, 5)))
    result = replay(curves, np.arange(10), EarlyStopping(5, "up", LastSeenValue(), burn_in=20))
    assert (result.speedup, result.regret) == (1.0, 0.0)
    assert result.best == int(curves.final.argmax())


def test_equal_ends_stop_nothing():
    values = np.random.default_rng(0).uniform(size=(30, 5))
    values[:, -1] = 0.5
    result = replay(LearningCurves(values), np.arange(30), EarlyStopping(5, "up", LastSeenValue(), burn_in=5))
    assert result.speedup == 1.0


def test_the_best_last_is_found_or_counted_as_regret():
    heights = np.linspace(0.9, 0.1, 40)
    curves = LearningCurves(heights[:, None] * (1 - 0.5 ** np.arange(1, 9)))
    down = LearningCurves(1.0 - curves.values, "down")
    results = [
        replay(c, np.arange(40), EarlyStopping(8, c.direction, LastSeenValue(), burn_in=10)) for c in (curves, down)
    ]
    assert results[0].best == results[1].best == 0
    assert results[0].regret == results[1].regret == 0.0
    np.testing.assert_array_equal(results[0].epochs, results[1].epochs)
    assert results[0].speedup > 1.5


def test_nothing_is_stopped_before_the_least_epochs():
    heights = np.linspace(0.9, 0.1, 40)
    curves = LearningCurves(heights[:, None] * (1 - 0.5 ** np.arange(1, 9)))
    for least in (3, 8):
        rule = EarlyStopping(8, "up", LastSeenValue(), burn_in=10, min_epochs=least)
        assert replay(curves, np.arange(40), rule).epochs.min() == least


def test_bad_orders_and_checks_are_named():
    curves = LearningCurves(np.linspace(0, 1, 60).reshape(6, 10), "up")
    for order, checks, message in (
        ([0, 9], 3, "order names curve 9, which is none of 6"),
        ([-1], 3, "-1"),
        ([0], 0, "checks"),
    ):
        with pytest.raises(ValueError, match=message):
            replay(curves, np.array(order), EarlyStopping(10, "up", burn_in=3), checks)
