"""Predictors by name."""

from __future__ import annotations

import inspect

import pytest

from pyg_nas_np import convnp, predictors
from pyg_nas_np.convnp.registry import PREDICTORS
from pyg_nas_np.predictors import Predictor


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_name_makes_an_unfitted_predictor_of_a_space(name, toy_space):
    if name == "xgboost":
        pytest.importorskip("xgboost")
    predictor = PREDICTORS[name](toy_space)
    assert isinstance(predictor, Predictor)
    assert predictor.space is toy_space
    assert not hasattr(predictor, "transform_")


def test_every_public_predictor_has_a_name():
    public = {
        item
        for module in (predictors, convnp)
        for item in (getattr(module, name) for name in module.__all__)
        if inspect.isclass(item) and issubclass(item, Predictor) and not inspect.isabstract(item)
        # What predicts other labels, or must be told of them first, has no name on the command line.
        if "fidelity" not in inspect.signature(item).parameters and item is not convnp.LatencyPredictor
    }
    named = {getattr(make, "func", make) for make in PREDICTORS.values()}
    assert public <= named
