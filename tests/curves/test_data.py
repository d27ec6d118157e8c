"""The container of learning curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.utils import InvalidCurvesError

NAN, INF = float("nan"), float("inf")
CURVES = LearningCurves(
    [[0.1, 0.2, 0.3], [0.1, NAN, 0.2], [0.4, NAN, NAN], [0.3, -INF, NAN], [NAN, 0.5, 0.6]],
    architecture={"depth": [1, 2, 3, 4, 5]},
    hyperparameters={"lr": [0.1] * 5},
    configs=tuple("abcde"),
)


def test_what_was_measured():
    assert CURVES.lengths.tolist() == [3, 3, 1, 2, 3]
    assert CURVES.finished.tolist() == [True, True, False, False, True]
    assert CURVES.diverged.tolist() == [False, False, False, True, False]
    np.testing.assert_array_equal(CURVES.final, [0.3, 0.2, NAN, NAN, 0.6])


def test_gaps_repeat_the_past():
    assert CURVES.observed(3).tolist() == [[0.1, 0.2, 0.3], [0.1, 0.1, 0.2], [0.4] * 3, [0.3] * 3, [0.5, 0.5, 0.6]]
    with pytest.raises(InvalidCurvesError, match="'e' has no finite value in its first 1 epochs"):
        CURVES.observed(1)
    with pytest.raises(InvalidCurvesError, match=r"tau must lie in \[1, 3\] but is 4"):
        CURVES.observed(4)


@given(
    st.lists(st.lists(st.floats(-5, 5) | st.just(NAN), min_size=6, max_size=6), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_nothing_later_is_seen(rows, tau):
    values = np.array(rows)
    values[:, 0] = 1.0
    curves = LearningCurves(values)
    np.testing.assert_array_equal(curves.observed(tau), curves.truncate(tau).observed(tau))
    np.testing.assert_array_equal(curves.observed(tau), LearningCurves(values[:, :tau]).observed(tau))
    assert (curves.truncate(tau).lengths <= tau).all()


def test_parts_keep_features_and_names():
    part = CURVES[[3, 1]]
    assert part.configs == ("d", "b")
    assert part.architecture["depth"].tolist() == [4, 2]
    assert CURVES[CURVES.finished].configs == ("a", "b", "e")
    assert CURVES[1:2].configs == ("b",)
    joined = LearningCurves.concat([CURVES[:2], CURVES[2:]])
    np.testing.assert_array_equal(joined.values, CURVES.values)
    assert joined.configs == CURVES.configs


def test_copies_are_dropped():
    twice = CURVES[[0, 1, 1, 2, 0]]
    assert twice.unique().configs == ("a", "b", "c")
    other = LearningCurves(twice.values, architecture={"depth": [1, 2, 3, 4, 5]})
    assert len(other.unique()) == 5


def test_shares_of_the_training():
    assert LearningCurves(np.zeros((1, 20))).prefix(0.25) == 5
    # Epoch 0, before training, comes on top.
    assert LearningCurves(np.zeros((1, 141)), epochs=range(141)).prefix(0.25) == 36
    assert LearningCurves(np.zeros((1, 4))).prefix(0.01) == 1
    with pytest.raises(InvalidCurvesError, match="fraction"):
        LearningCurves(np.zeros((1, 4))).prefix(0.0)


def test_a_wrong_direction_is_noticed():
    rising = np.linspace(0.1, 0.9, 5) * np.ones((12, 1))
    assert not LearningCurves(rising, "up").looks_reversed
    assert LearningCurves(rising, "down").looks_reversed
    assert not LearningCurves(rising[:9], "down").looks_reversed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [0.1]}, r"values must have shape \[configurations, epochs\]"),
        ({"values": [[]]}, "values must have shape"),
        ({"values": [[1, 2]], "direction": "max"}, "'up' or 'down' but is 'max'"),
        ({"values": [[1, 2]], "epochs": (2, 1)}, "1 follows 2"),
        ({"values": [[1, 2]], "epochs": (1, 1)}, "1 follows 1"),
        ({"values": [[1, 2]], "epochs": (1, 2, 3)}, "3 epochs for values of 2 columns"),
        ({"values": [[1, 2]], "configs": ("a", "b")}, "2 names for 1 configurations"),
        ({"values": [[1, 2]], "architecture": {"depth": [1, 2]}}, r"'depth' has shape \[2\]"),
        ({"values": [[1, 2]], "hyperparameters": {"lr": [NAN]}}, "'lr' of configuration '0' is not finite"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InvalidCurvesError, match=message):
        LearningCurves(**arguments)


def test_curves_that_differ_do_not_join():
    with pytest.raises(InvalidCurvesError, match="over 2 epochs"):
        LearningCurves.concat([CURVES, LearningCurves(CURVES.values[:, :2])])
    with pytest.raises(InvalidCurvesError, match="hyperparameters"):
        LearningCurves.concat([CURVES, LearningCurves(CURVES.values, architecture=CURVES.architecture)])
    with pytest.raises(InvalidCurvesError, match="nothing to join"):
        LearningCurves.concat([])


def test_it_does_not_change():
    with pytest.raises(ValueError, match="read-only"):
        CURVES.values[0, 0] = 1.0


def test_values_that_are_no_numbers():
    for values in ([["a", "b"]], [[1.0], [1.0, 2.0]], [[None]], [[{}]]):
        if values == [[None]]:
            # NumPy reads None as NaN: nothing was measured.
            assert not LearningCurves(values).mask.any()
            continue
        with pytest.raises(InvalidCurvesError, match="values must be numbers"):
            LearningCurves(values)
