"""The last value seen."""

from __future__ import annotations

import numpy as np

from pyg_nas_np.curves import LastSeenValue
from pyg_nas_np.curves.data import LearningCurves


def test_by_hand():
    curves = LearningCurves([[1.0, 2.0, 4.0], [2.0, 3.0, 3.0], [1.0, 1.0, 3.0]])
    mean, std = LastSeenValue().fit(curves).predict(curves, 2, return_std=True)
    assert mean.tolist() == [2.0, 3.0, 1.0]
    np.testing.assert_allclose(std, np.sqrt((4 + 0 + 4) / 3))
