"""Curves that are made, so that tests need no files."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves.data import LearningCurves


def make_curves(count=80, epochs=20, seed=0, direction="up"):
    """Saturating curves whose height and rate follow from two features, with noise."""
    rng = np.random.default_rng(seed)
    width, lr = rng.uniform(8, 512, count), rng.uniform(0.2, 1.0, count)
    height = 0.5 + 0.06 * np.log(width) + 0.02 * rng.normal(size=count)
    t = np.arange(1, epochs + 1)
    values = height[:, None] * (1 - 0.8 * np.exp(-0.3 * lr[:, None] * t)) + 0.003 * rng.normal(size=(count, epochs))
    if direction == "down":
        values = np.exp(3.0 - 3.0 * values)
    return LearningCurves(values, direction, architecture={"width": width}, hyperparameters={"lr": lr})


@pytest.fixture(scope="session")
def curves():
    """Eighty of them, rising."""
    return make_curves()


@pytest.fixture(scope="session")
def losses():
    """Eighty of them, falling."""
    return make_curves(direction="down")
