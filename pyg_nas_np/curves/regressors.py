r"""Regressors with a random search under cross-validation, and their held-out predictions."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.svm import NuSVR
from torch import Tensor

from pyg_nas_np.curves.data import Floats
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.kernels import ARD, Kernel, Linear, Stationary

FOLDS = 3


class Regressor(ABC):
    r"""Base of the regressors; it standardises features and target.

    Args:
        draws: Number of settings that the random search tries; 1 uses the first draw without cross-validation.
        seed: Seed of the draws, the folds and the model.
    """

    def __init__(self, draws: int, seed: int) -> None:
        self.draws, self.seed = draws, seed

    @abstractmethod
    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        """Chooses settings for standardised features and target."""

    @abstractmethod
    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        """Fits with the chosen settings and returns the fitted function."""

    def _held_out(self, x: Floats, y: Floats) -> Floats:
        """Prediction of each row by a fit without it."""
        rows = np.arange(len(y))
        return np.array([self._learn(x[rows != i], y[rows != i])(x[i : i + 1])[0] for i in rows])

    def fit(self, x: Floats, y: Floats) -> Regressor:
        r"""Chooses settings and fits ``[n, F]`` features to ``[n]`` targets."""
        self.scaler = StandardScaler().fit(x)
        self.center, self.scale = float(y.mean()), float(y.std()) or 1.0
        self.x, self.y = self.scaler.transform(x), (y - self.center) / self.scale
        self._search(self.x, self.y, np.random.default_rng(self.seed))
        self.function = self._learn(self.x, self.y)
        return self

    def predict(self, x: Floats) -> Floats:
        r"""Predicts targets ``[m]``."""
        return self.center + self.scale * self.function(self.scaler.transform(x))

    def held_out(self) -> Floats:
        r"""Returns the prediction of each training row by a fit without it, with the chosen settings, ``[n]``."""
        return self.center + self.scale * self._held_out(self.x, self.y)


def folds(count: int, rng: np.random.Generator, parts: int = FOLDS) -> list[tuple[Any, Any]]:
    r"""Returns random ``(train, test)`` positions of a cross-validation; each row is tested once."""
    parts = min(parts, count)
    groups = np.array_split(rng.permutation(count), parts)
    return [(np.concatenate([g for j, g in enumerate(groups) if j != i]), groups[i]) for i in range(parts)]


class LeastSquares(Regressor):
    r"""Ordinary least squares; the solution of smallest norm if there are several."""

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        pass

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        # Columns are standardised over all rows, so a fit without some rows needs an intercept.
        mean = x.mean(0)
        weights = np.linalg.lstsq(x - mean, y - y.mean(), rcond=1e-10)[0]
        offset = y.mean()
        return lambda new: offset + (new - mean) @ weights


class NuSVRegressor(Regressor):
    r"""ν-SVR with the paper's random search: C and γ log-uniform in (1e-5, 10), ν uniform in (0, 1).

    The distances are computed once for all draws.
    """

    def __init__(self, draws: int, seed: int, kernel: str = "rbf") -> None:
        super().__init__(draws, seed)
        self.kernel = kernel

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        low, high = np.log(1e-5), np.log(10.0)
        draws = [
            (float(np.exp(rng.uniform(low, high))), float(np.exp(rng.uniform(low, high))), float(rng.uniform(1e-3, 1)))
            for _ in range(self.draws)
        ]
        self.settings = draws[0]
        if self.draws == 1:
            return
        gram = cdist(x, x, "sqeuclidean") if self.kernel == "rbf" else x @ x.T
        splits = folds(len(y), rng)
        errors = []
        for c, gamma, nu in draws:
            kernel = np.exp(-gamma * gram) if self.kernel == "rbf" else gram
            error = 0.0
            for train, test in splits:
                model = _solve(NuSVR(kernel="precomputed", C=c, nu=nu), kernel[np.ix_(train, train)], y[train])
                error += float(np.square(model.predict(kernel[np.ix_(test, train)]) - y[test]).sum())
            errors.append(error)
        self.settings = draws[int(np.argmin(errors))]

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        c, gamma, nu = self.settings
        model = _solve(NuSVR(kernel=self.kernel, C=c, gamma=gamma, nu=nu), x, y)
        return lambda new: np.asarray(model.predict(new))


def _solve(model: NuSVR, x: Floats, y: Floats) -> NuSVR:
    # Differences are collinear with values: with a linear kernel and a large C the solver takes minutes to converge to
    # a solution that predicts no better.
    model.set_params(max_iter=20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


class GPRegressor(Regressor):
    r"""Gaussian process whose covariance is a sum: linear, Matérn-5/2 of everything, Matérn-5/2 of each group.

    A random search selects weights, length-scales and noise by their leave-one-out predictive density, which has a
    closed
    form: one factorisation per draw and no folds. The prediction is the mean over the :attr:`KEPT` best draws, because
    with a hundred curves the single best one is largely due to chance. The weight of the linear kernel may be up to
    :attr:`LINEAR` times that of the others, because only it extrapolates. Inputs are the means of up to :attr:`BLOCKS`
    consecutive parts of a curve, because single epochs and especially their differences are noisy.

    Args:
        draws: Number of settings to try.
        seed: Seed of the draws.
        groups: Group of each column: 0 for values of the curve in order, 1 for their differences, larger numbers for
            features of the configuration. (default: a single group without block means)
    """

    KEPT = 10
    BLOCKS = 8
    LINEAR = 10.0

    def __init__(self, draws: int, seed: int, groups: Sequence[int] | None = None) -> None:
        super().__init__(draws, seed)
        self.given = None if groups is None else np.asarray(groups)

    def fit(self, x: Floats, y: Floats) -> Regressor:
        r"""Chooses settings and fits ``[n, F]`` features to ``[n]`` targets."""
        return super().fit(self._summary(x), y)

    def predict(self, x: Floats) -> Floats:
        r"""Predicts targets ``[m]``."""
        return super().predict(self._summary(x))

    def _summary(self, x: Floats) -> Floats:
        if self.given is None or not (self.given == 0).any():
            self.groups = np.zeros(x.shape[1], dtype=int) if self.given is None else self.given
            return x
        values, described = x[:, self.given == 0], x[:, self.given > 1]
        parts = np.array_split(values, min(self.BLOCKS, values.shape[1]), axis=1)
        means = np.stack([part.mean(1) for part in parts], axis=1)
        self.groups = np.concatenate([np.zeros(len(parts), dtype=int), self.given[self.given > 1]])
        return np.concatenate([means, described], axis=1)

    def _kernels(self) -> dict[str, Kernel]:
        columns = [np.flatnonzero(self.groups == g).tolist() for g in np.unique(self.groups)]
        linear = {f"linear {i}": Linear(part) for i, part in enumerate(columns)}
        alone = {f"alone {i}": Stationary(part, "matern52") for i, part in enumerate(columns)}
        return {**linear, "joint": ARD(range(len(self.groups)), "matern52"), **alone}

    def _draw(self, rng: np.random.Generator) -> Tensor:
        """Log hyperparameters of the kernels and of the noise."""
        _, group, widths = np.unique(self.groups, return_inverse=True, return_counts=True)
        count = len(widths)
        linear = rng.dirichlet(np.ones(count))
        joint = np.exp(rng.normal(-1.5, 1.5, count))  # inverse squared length-scales, as are those below
        alone = rng.dirichlet(np.ones(count))
        lengths = np.exp(rng.normal(-1.5, 1.5, count))
        shares = rng.dirichlet(np.ones(3)) * np.array([self.LINEAR ** rng.uniform(), 1.0, 1.0])
        noise = np.exp(rng.uniform(np.log(1e-3), 0.0))
        parts = [shares[0] * linear / widths, (widths / joint)[group] ** 0.5, shares[1:2]]
        parts += [np.stack([lengths**-0.5, shares[2] * alone], axis=1).ravel(), [noise]]
        return torch.from_numpy(np.concatenate(parts)).log()

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        points, targets = torch.from_numpy(x), torch.from_numpy(y)
        gp = GaussianProcess(self._kernels())
        statistics, found = gp.statistics(points), []
        for _ in range(self.draws):
            theta = self._draw(rng)
            mean, std = gp.condition(points, targets, theta, statistics=statistics).leave_one_out()
            # The optimal scale of the whole covariance, in closed form.
            scale = ((targets - mean) / std).square().mean()
            found.append((float(-0.5 * (scale.log() + 2.0 * std.log()).mean()), theta))
        found.sort(key=lambda pair: -pair[0])
        self.settings = [theta for _, theta in found[: self.KEPT]]

    def _fitted(self, x: Floats, y: Floats) -> list[GaussianProcess]:
        points, targets, kernels = torch.from_numpy(x), torch.from_numpy(y), self._kernels()
        return [GaussianProcess(kernels).condition(points, targets, theta) for theta in self.settings]

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        gps = self._fitted(x, y)

        def function(new: Floats) -> Floats:
            means = [gp.predict(torch.from_numpy(new), return_std=False)[0] for gp in gps]
            return torch.stack(means).mean(dim=0).numpy()

        return function

    def _held_out(self, x: Floats, y: Floats) -> Floats:
        return torch.stack([gp.leave_one_out()[0] for gp in self._fitted(x, y)]).mean(dim=0).numpy()


class RandomForest(Regressor):
    r"""Random forest, 10 to 800 trees and 10 % to 50 % of the features per split.

    Held-out predictions are out-of-bag predictions.
    """

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        draws = [(int(rng.integers(10, 801)), float(rng.uniform(0.1, 0.5))) for _ in range(self.draws)]
        errors = [0.0] * len(draws)
        if self.draws > 1:
            splits = folds(len(y), rng)
            for i, (trees, share) in enumerate(draws):
                for train, test in splits:
                    model = RandomForestRegressor(trees, max_features=share, random_state=self.seed)
                    errors[i] += float(np.square(model.fit(x[train], y[train]).predict(x[test]) - y[test]).sum())
        self.settings = draws[int(np.argmin(errors))]

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        trees, share = self.settings
        # With fewer than a hundred trees a row may be in every bag.
        self.model = RandomForestRegressor(
            max(trees, 100), max_features=share, oob_score=True, random_state=self.seed
        ).fit(x, y)
        return lambda new: np.asarray(self.model.predict(new))

    def _held_out(self, x: Floats, y: Floats) -> Floats:
        return np.asarray(self.model.oob_prediction_)


class Boosting(Regressor):
    r"""Gradient-boosted trees; held-out predictions are those of folds of ten rows."""

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        draws = [
            {
                "n_estimators": int(rng.integers(50, 301)),
                "learning_rate": float(np.exp(rng.uniform(np.log(0.02), np.log(0.2)))),
                "max_depth": int(rng.integers(1, 5)),
                "subsample": float(rng.uniform(0.5, 1.0)),
                "max_features": float(rng.uniform(0.1, 1.0)),
            }
            for _ in range(self.draws)
        ]
        self.settings = draws[0]
        errors = [0.0] * len(draws)
        if self.draws > 1:
            splits = folds(len(y), rng)
            for i, settings in enumerate(draws):
                self.settings = settings
                for train, test in splits:
                    errors[i] += float(np.square(self._learn(x[train], y[train])(x[test]) - y[test]).sum())
        self.settings = draws[int(np.argmin(errors))]

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        model = GradientBoostingRegressor(random_state=self.seed, **self.settings).fit(x, y)
        return lambda new: np.asarray(model.predict(new))

    def _held_out(self, x: Floats, y: Floats) -> Floats:
        predicted = np.empty(len(y))
        for train, test in folds(len(y), np.random.default_rng(self.seed), 10):
            predicted[test] = self._learn(x[train], y[train])(x[test])
        return predicted


_LEAST_SHARE = 1 / 3
"""Members of an ensemble with less than this fraction of the largest weight are dropped."""


class RankAwareEnsemble:
    r"""A convex combination of regressors, weighted by the errors and the order of their held-out predictions.

    The weight of a member is proportional to :math:`\big((1 - \tau)\, e\big)^{-1}` with Kendall's :math:`\tau` and the
    mean squared error :math:`e` of its held-out predictions: a search needs the order, a stopping rule the values.
    Members with less than a third of the largest weight are dropped, because trees only harm where a linear function is
    nearly exact.

    Args:
        members: Constructor of each member, and its columns.
    """

    def __init__(self, members: Sequence[tuple[Callable[[], Regressor], Any]]) -> None:
        self.members = members

    def fit(self, x: Floats, y: Floats) -> RankAwareEnsemble:
        r"""Fits all members and computes their weights."""
        self.fitted = [make().fit(x[:, columns], y) for make, columns in self.members]
        table = np.column_stack([member.held_out() for member in self.fitted])
        errors = np.square(table - y[:, None]).mean(0)
        taus = np.nan_to_num([kendalltau(column, y).statistic for column in table.T])
        penalty = (1.0 - taus + 1e-3) * (errors + 1e-6 * y.var())
        weights = penalty.min() / penalty
        weights[weights < _LEAST_SHARE] = 0.0
        self.weights = weights / weights.sum()
        self.held_out_rows = np.asarray(table @ self.weights)
        return self

    def predict(self, x: Floats) -> Floats:
        r"""Predicts targets ``[m]``."""
        parts = zip(self.fitted, self.members, self.weights.tolist(), strict=True)
        return np.asarray(sum(weight * member.predict(x[:, columns]) for member, (_, columns), weight in parts))

    def held_out(self) -> Floats:
        r"""Returns the combined held-out predictions of the members, ``[n]``."""
        return self.held_out_rows


KINDS = ("svr-rbf", "svr-linear", "ols", "forest", "boosting", "gp", "ensemble")


def make_regressor(
    kind: str, draws: int, seed: int, groups: Sequence[int] | None = None
) -> Regressor | RankAwareEnsemble:
    r"""Returns an unfitted regressor.

    Args:
        kind: One of :data:`KINDS`.
        draws: Number of settings that the random search tries; the slow tree models try a fiftieth of it.
        seed: Seed.
        groups: Group of each column: 0 for values, 1 for differences, larger numbers for features of the configuration;
            the Gaussian process and the ensemble's ν-SVRs do not use differences. (default: one group)

    Raises:
        ValueError: If the kind is unknown or there is no draw.

    Example:
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> make_regressor("ols", 1, 0).fit(x, 3 * x[:, 0]).predict(np.array([[0.5]])).round(6)
        array([1.5])
    """
    if kind not in KINDS:
        raise ValueError(f"unknown regressor {kind!r}; known: {', '.join(KINDS)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1 but is {draws}")
    few = max(1, draws // 50)
    kinds: dict[str, Callable[[], Regressor]] = {
        "svr-rbf": lambda: NuSVRegressor(draws, seed, "rbf"),
        "svr-linear": lambda: NuSVRegressor(draws, seed, "linear"),
        "ols": lambda: LeastSquares(1, seed),
        "forest": lambda: RandomForest(few, seed),
        "boosting": lambda: Boosting(few, seed),
        "gp": lambda: GPRegressor(draws, seed, groups),
    }
    if kind != "ensemble":
        return kinds[kind]()
    every: Any = slice(None)
    # Standardised differences are mostly noise and would dominate the distances of a kernel.
    levels = every if groups is None else np.asarray(groups) != 1
    return RankAwareEnsemble(
        [(kinds["svr-rbf"], levels), (kinds["svr-linear"], levels), (kinds["gp"], every), (kinds["ols"], every)]
    )
