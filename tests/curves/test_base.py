"""What holds for every curve predictor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from pyg_nas_np.curves import (
    BayesianCurveNet,
    CurveConvNP,
    IncrementGP,
    LastSeenValue,
    ParametricExtrapolation,
    SequentialRegression,
)
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.utils import InvalidCurvesError

PREDICTORS = {
    "last": LastSeenValue(),
    "sequential": SequentialRegression("svr-rbf", draws=10),
    "gp": SequentialRegression("gp", draws=20),
    "parametric": ParametricExtrapolation(),
    "bayesian": BayesianCurveNet(members=2, steps=60),
    "convnp": CurveConvNP(steps=40),
    "increments": IncrementGP(),
}
every = pytest.mark.parametrize("name", list(PREDICTORS))


def fitted(name, curves):
    return clone(PREDICTORS[name]).fit(curves[:60])


@every
@pytest.mark.parametrize("direction", ["up", "down"])
def test_predictions(name, direction, curves, losses):
    given = curves if direction == "up" else losses
    model = fitted(name, given)
    test = given[60:70]
    mean, std = model.predict(test, 8, return_std=True)
    assert mean.shape == std.shape == (10,)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert (std > 0).all()
    np.testing.assert_allclose(mean, model.predict(test, 8))
    assert (np.abs(mean - test.final) <= 6 * std + 1e-3).mean() > 0.6


@every
def test_only_the_prefix_is_seen(name, curves):
    model = fitted(name, curves)
    for a, b in zip(
        model.predict(curves[60:65], 6, return_std=True),
        model.predict(curves[60:65].truncate(6), return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(a, b)


@every
def test_fitting_is_deterministic(name, curves):
    first, second = (fitted(name, curves).predict(curves[60:65], 6, return_std=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@every
def test_each_curve_by_its_own_length(name, curves):
    model = fitted(name, curves)
    mixed = LearningCurves.concat([curves[60:62].truncate(5), curves[62:64].truncate(9), curves[64:65]])
    mean, std = model.predict(mixed, return_std=True)
    if name not in ("bayesian", "convnp"):  # The networks look at all running trainings together, in one precision.
        np.testing.assert_allclose(mean[2:4], model.predict(curves[62:64], 9), rtol=1e-6)
    assert (mean[4], std[4]) == (pytest.approx(curves.final[64]), 0.0)
    with pytest.raises(InvalidCurvesError, match="has 5 epochs, fewer than tau = 6"):
        model.predict(mixed, 6)


@every
def test_equal_ends(name, curves):
    values = curves.values.copy()
    values[:, -1] = 0.5
    flat = LearningCurves(values, "up", curves.epochs, curves.architecture, curves.hyperparameters)
    mean, std = clone(PREDICTORS[name]).fit(flat[:60]).predict(flat[60:], 5, return_std=True)
    np.testing.assert_allclose(mean, 0.5)
    np.testing.assert_allclose(std, 0.0, atol=1e-12)


@every
def test_too_few_and_diverged(name, curves):
    model = clone(PREDICTORS[name])
    with pytest.raises(InvalidCurvesError, match="only 0 of 80 do: train more"):
        model.fit(curves.truncate(10))
    values = curves.values.copy()
    values[:, 5] = -np.inf
    gone = LearningCurves(values, "up", curves.epochs, curves.architecture, curves.hyperparameters)
    with pytest.raises(InvalidCurvesError, match="all of them diverged"):
        model.fit(gone)


@every
def test_constant_features_and_curves(name):
    rng = np.random.default_rng(1)
    values = np.repeat(rng.uniform(0.2, 0.8, (30, 1)), 10, axis=1)
    flat = LearningCurves(values, architecture={"same": np.ones(30)})
    mean, std = clone(PREDICTORS[name]).fit(flat[:20]).predict(flat[20:], 5, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()


def test_strangers_are_refused(curves, losses):
    model = fitted("last", curves)
    with pytest.raises(InvalidCurvesError, match="direction"):
        model.predict(losses, 5)
    with pytest.raises(InvalidCurvesError, match="epochs"):
        model.predict(LearningCurves(curves.values[:, :10]), 5)
    with pytest.raises(InvalidCurvesError, match="architecture features"):
        model.predict(LearningCurves(curves.values, hyperparameters=curves.hyperparameters), 5)
    with pytest.raises(NotFittedError):
        LastSeenValue().predict(curves, 5)
    with pytest.raises(InvalidCurvesError, match="all finished"):
        model.score(curves.truncate(5), 5)


SMALL = LearningCurves(
    np.random.default_rng(0).uniform(0.5, 0.9, (12, 1)) * (1 - np.exp(-0.3 * np.arange(1, 9))),
    hyperparameters={"lr": np.linspace(0.1, 1.0, 12)},
)
networks = pytest.mark.parametrize(
    "network", [BayesianCurveNet(members=1, steps=15), CurveConvNP(steps=15)], ids=["bayesian", "convnp"]
)


def small(network):
    return clone(network).fit(SMALL[:8]).predict(SMALL[8:].truncate(3))


@networks
def test_nothing_global_is_moved_and_threads_agree(network):
    before, expected = torch.get_rng_state(), small(network)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: small(network), range(6)))
    assert all(prediction == pytest.approx(expected, rel=1e-6) for prediction in found)
    assert torch.equal(torch.get_rng_state(), before)


@networks
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_global_defaults_do_not_matter(network, dtype, device):
    expected, old = small(network), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        found = small(network)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(old)
    assert found == pytest.approx(expected, rel=1e-6)
