"""What a regressor sees of a curve."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.features import curve_features, wide_columns
from pyg_nas_np.utils import InvalidCurvesError

CURVES = LearningCurves(
    [[1.0, 2.0, 4.0, 7.0], [2.0, 2.0, 3.0, 3.0]],
    architecture={"params": [10.0, 1000.0], "depth": [2.0, 3.0]},
    hyperparameters={"lr": [0.1, 0.0]},
)


def test_by_hand():
    x, names = curve_features(CURVES, 3, logarithms={"params"})
    assert names == ["y1", "y2", "y3", "d2", "d3", "e3", "params", "depth", "lr"]
    np.testing.assert_allclose(x[0], [1, 2, 4, 1, 2, 1, np.log(10), 2, 0.1])
    np.testing.assert_allclose(x[1], [2, 2, 3, 0, 1, 1, np.log(1000), 3, 0.0])
    assert curve_features(CURVES, 1, ("TS",))[1] == ["y1"]
    assert curve_features(CURVES, 2, ("TS",))[1] == ["y1", "y2", "d2"]


def test_wide_columns():
    assert wide_columns(CURVES) == {"params"}


def test_bad_groups():
    with pytest.raises(InvalidCurvesError, match="unknown feature group 'XX'"):
        curve_features(CURVES, 2, ("TS", "XX"))
    with pytest.raises(InvalidCurvesError, match="no features of the groups AP"):
        curve_features(LearningCurves([[1.0, 2.0]]), 1, ("AP",))
