"""Extrapolation with parametric curves."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves import ParametricExtrapolation
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.parametric import FAMILIES

T = np.arange(1, 61)
PARAMETERS = {
    "vapor_pressure": (-0.5, -1.0, 0.02),
    "pow3": (0.8, 0.6, 0.6),
    "log_log_linear": (0.15, 1.3),
    "hill3": (0.8, 1.2, 3.0),
    "log_power": (0.8, 1.0, -1.2),
    "pow4": (0.9, 0.8, 1.2, 0.6),
    "mmf": (0.8, 0.1, 0.3, 1.1),
    "exp4": (0.8, 0.4, -0.4, 0.6),
    "janoschek": (0.8, 0.1, 0.2, 0.8),
    "weibull": (0.8, 0.1, 0.2, 0.8),
    "ilog2": (0.9, 0.4),
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_family_rises_and_is_recovered(name):
    curve = FAMILIES[name].function(T.astype(float), *PARAMETERS[name])
    assert (np.diff(curve) > 0).all()
    others = [curve, 0.2 + 0.6 * T / 60, np.linspace(0.1, 1.0, 60)]
    model = ParametricExtrapolation().fit(LearningCurves(others))
    mean, std = model.predict(LearningCurves(curve[None]), 30, return_std=True)
    assert mean[0] == pytest.approx(curve[-1], abs=0.03)
    assert std[0] < 0.1


def test_few_values_repeat_the_last():
    curves = LearningCurves(np.array([[0.9], [0.7], [0.8]]) * (1 - np.exp(-0.1 * T)))
    model = ParametricExtrapolation().fit(curves)
    mean, std = model.predict(curves, 3, return_std=True)
    np.testing.assert_allclose(mean, curves.values[:, 2])
    np.testing.assert_allclose(std, np.sqrt(np.mean((curves.final - curves.values[:, 2]) ** 2)))
