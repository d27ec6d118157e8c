"""The regressors: searches, left-out rows, the weights of the ensemble."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from pyg_nas_np.curves.regressors import (
    KINDS,
    GPRegressor,
    LeastSquares,
    NuSVRegressor,
    RankAwareEnsemble,
    folds,
    make_regressor,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)) * [1, 10, 0.1, 5] + 3
Y = X @ [1.0, 0.1, 2.0, 0.0] + 0.5 * np.sin(X[:, 0]) + 0.1 * RNG.normal(size=40)


def test_least_squares_is_least_squares():
    ours = LeastSquares(1, 0).fit(X, Y)
    np.testing.assert_allclose(ours.predict(X), LinearRegression().fit(X, Y).predict(X))
    np.testing.assert_allclose(ours.held_out(), cross_val_predict(LinearRegression(), X, Y, cv=LeaveOneOut()))


def test_the_gaussian_process_leaves_out_in_closed_form():
    model = GPRegressor(30, 0, [0, 0, 1, 2]).fit(X, Y)
    rows = np.arange(40)
    by_hand = [model._learn(model.x[rows != i], model.y[rows != i])(model.x[i : i + 1])[0] for i in rows]
    np.testing.assert_allclose(model.held_out(), model.center + model.scale * np.array(by_hand), rtol=1e-6)


def test_the_kernel_of_the_search_is_that_of_the_model():
    """A search over distances computed once chooses what a search over whole fits would."""
    from sklearn.svm import NuSVR

    model = NuSVRegressor(12, 3).fit(X, Y)
    rng = np.random.default_rng(3)
    low, high = np.log(1e-5), np.log(10.0)
    draws = [(np.exp(rng.uniform(low, high)), np.exp(rng.uniform(low, high)), rng.uniform(1e-3, 1)) for _ in range(12)]
    splits = folds(40, rng)
    errors = [
        sum(
            np.square(NuSVR(C=c, gamma=g, nu=nu).fit(model.x[a], model.y[a]).predict(model.x[b]) - model.y[b]).sum()
            for a, b in splits
        )
        for c, g, nu in draws
    ]
    assert model.settings == draws[int(np.argmin(errors))]


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_rows_are_harder(kind):
    model = make_regressor(kind, 1 if kind in ("forest", "boosting") else 15, 0, [0, 0, 1, 2]).fit(X, Y)
    inside, outside = model.predict(X), model.held_out()
    assert outside.shape == (40,)
    assert np.square(outside - Y).mean() >= np.square(inside - Y).mean()
    assert np.corrcoef(outside, Y)[0, 1] > 0.5
    np.testing.assert_allclose(inside, model.predict(X))


def test_the_ensemble_is_convex():
    model = make_regressor("ensemble", 15, 0, [0, 0, 1, 2]).fit(X, Y)
    assert model.weights.sum() == pytest.approx(1.0)
    assert (model.weights >= 0).all()
    parts = np.column_stack([m.predict(X[:, c]) for m, (_, c) in zip(model.fitted, model.members, strict=True)])
    combined = model.predict(X)
    assert (combined <= parts.max(1) + 1e-9).all()
    assert (combined >= parts.min(1) - 1e-9).all()


def test_members_far_worse_than_the_best_are_dropped():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.01 * rng.normal(size=60)
    every = slice(None)
    model = RankAwareEnsemble([(partial(make_regressor, kind, 1, 0), every) for kind in ("ols", "forest")])
    assert model.fit(x, y).weights.tolist() == [1.0, 0.0]
    np.testing.assert_allclose(model.predict(x), model.fitted[0].predict(x))


def test_folds_test_every_row_once():
    splits = folds(10, np.random.default_rng(0))
    assert sorted(np.concatenate([test for _, test in splits]).tolist()) == list(range(10))
    assert all(not set(train) & set(test) for train, test in splits)
    assert len(folds(2, np.random.default_rng(0))) == 2


def test_boosting_searches_too():
    """A hundred draws mean two settings, and the better one of them is kept."""
    first, both = (make_regressor("boosting", draws, 0).fit(X[:20], Y[:20]) for draws in (1, 100))
    again = make_regressor("boosting", 100, 0).fit(X[:20], Y[:20])
    assert both.settings == again.settings
    assert first.settings.keys() == both.settings.keys()
