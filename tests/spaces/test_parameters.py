"""Single parameters: ranges, grids, scales, and declarations that contradict themselves."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyg_nas_np.spaces import Categorical, Float, Integer, Repeat
from pyg_nas_np.spaces.parameters import as_parameter, is_missing, plain
from pyg_nas_np.spaces.testing import seeded
from pyg_nas_np.utils import InvalidArchitectureError, InvalidSpaceError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Integer(3, 2), "low=3 of Integer is larger than high=2; exchange them"),
        (lambda: Integer(1.5, 2), "must be a whole number, got 1.5; take Float"),
        (lambda: Integer(1, 2, step=0), "step of Integer must be positive, got 0"),
        (lambda: Integer(0, 2, log=True), "needs low > 0, got low=0"),
        (lambda: Integer(True, 2), "must be a whole number, got True"),
        (lambda: Integer("1", 2), "must be a whole number, got '1'"),
        (lambda: Integer(1, float("inf")), "must be a whole number, got inf"),
        (lambda: Float(0.0, float("nan")), "high of Float must be a finite number, got nan"),
        (lambda: Float(-1.0, 1.0, log=True), "needs low > 0, got low=-1.0; raise low or drop log"),
        (lambda: Float(0, 1, step=-1), "step of Float must be positive"),
        (lambda: Categorical([]), "at least one value"),
        (lambda: Categorical("abc"), "must be a list"),
        (lambda: Categorical([1, True]), "choice True occurs twice"),
        (lambda: Categorical([float("nan")]), "a choice must be"),
        (lambda: Categorical([[1]]), "a choice must be"),
        (lambda: Repeat({}, 1, 2), "parameters by name"),
        (lambda: Repeat({"a": [1]}, 3, 2), "min_length=3, max_length=2"),
        (lambda: Repeat({"a": [1]}, 0, 0), "at least 1"),
        (lambda: Repeat({"a": [1]}, 1, 2.5), "max_length=2.5"),
        (lambda: Repeat({"a": Repeat({"b": [1]}, 1, 2)}, 1, 2), "'a' is a Repeat inside a Repeat"),
        (lambda: Integer(1, 2, when={"a": []}), "the condition on 'a' allows no value"),
        (lambda: Integer(1, 2, when="a"), "when must map"),
        (lambda: as_parameter("abc"), "is not a parameter"),
    ],
)
def test_contradictions_are_named(make, message):
    with pytest.raises(InvalidSpaceError, match=message):
        make()


def test_parameters_are_values():
    for parameter in (
        Integer(1, 8, log=True, when={"a": "b"}),
        Float(0, 1, optional=True),
        Categorical(["a", None, 3], ordered=True),
        Repeat({"a": Integer(1, 2)}, 1, 3),
    ):
        assert eval(repr(parameter)) == parameter
        assert pickle.loads(pickle.dumps(parameter)) == parameter
        assert hash(eval(repr(parameter))) == hash(parameter)


@settings(deadline=None)
@given(st.integers(1, 10**20), st.integers(0, 10**20), st.integers(1, 10**6), st.booleans(), st.integers(0, 99))
@example(281_574_401_846_943, 1, 1, True, 0)
@example(10**20, 1, 1, True, 0)
def test_whole_numbers_stay_on_their_grid_however_large(low, width, step, log, seed):
    parameter = Integer(low, low + width, step, log)
    values = [*parameter.draw(5, seeded(seed)), parameter.middle]
    values += [other for value in values for other in parameter.neighbors(value)]
    values += [parameter.mutate(value, seeded(seed)) for value in values[:5]]
    for value in values:
        assert low <= value <= low + width
        assert (value - low) % step == 0
        assert parameter.read(value) == value
    assert parameter.size == width // step + 1


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(1, 1000), st.integers(0, 99))
def test_numbers_stay_on_their_grid(low, width, count, seed):
    for step in (None, width / count):
        if step == 0 or (step is not None and step < 1e-9 * max(abs(low), 1)):
            continue
        parameter = Float(low, low + width, step)
        values = [*parameter.draw(5, seeded(seed)), parameter.middle]
        values += [other for value in values for other in parameter.neighbors(value)]
        for value in values:
            assert parameter.read(value) == value
            assert parameter.low <= value <= parameter.high


def test_decimal_steps_are_what_was_meant():
    assert Float(0.1, 0.9, step=0.1).values() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert Float(0, 1, step=0.3).values() == [0.0, 0.3, 0.6, 0.9]
    assert Float(0, 1, step=0.1).read(0.1 + 0.2) == 0.3
    with pytest.raises(InvalidArchitectureError, match=r"0.25 is not on the steps of 0.1 from 0.0"):
        Float(0, 1, step=0.1).read(0.25)
    with pytest.raises(InvalidSpaceError, match="continuous; give it a step"):
        Float(0, 1).values()


def test_neighbors_of_numbers_are_near_and_far():
    assert Integer(0, 100).neighbors(50) == [49, 51, 40, 60]
    assert Integer(0, 5).neighbors(0) == [1]
    assert Integer(1, 1000, log=True).neighbors(100) == [99, 101, 50, 200]
    assert Float(0, 1).neighbors(0.5) == [0.4, 0.6]
    assert Categorical(["a", "b", "c"]).neighbors("b") == ["a", "c"]


def test_plain_values_and_missing_ones():
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    assert type(plain(numpy.int32(3))) is type(plain(torch.tensor(3))) is int
    assert all(map(is_missing, (None, float("nan"), pandas.NA, pandas.NaT, numpy.float32("nan"))))
    assert not any(map(is_missing, (0, "", False, [], torch.zeros(3))))
