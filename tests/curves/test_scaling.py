"""The scale on which networks see curves."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.scaling import CurveScale


@pytest.mark.parametrize("direction", ["up", "down"])
def test_there_and_back(direction):
    scale = CurveScale(LearningCurves([[5.0, 2.0], [6.0, 3.0], [9.0, 8.0]], direction))
    assert scale.log == (direction == "down")
    values = np.array([2.0, 3.0, 8.0])
    forward = scale.forward(values)
    assert forward.mean() == pytest.approx(0.0)
    assert forward.std() == pytest.approx(1.0)
    np.testing.assert_allclose(scale.back(forward, np.zeros(3))[0], values)
    assert np.isnan(scale.forward(np.array([np.inf, np.nan]))).all()
