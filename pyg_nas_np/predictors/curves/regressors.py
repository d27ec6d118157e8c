r"""Regressors with a random search under cross-validation and leave-one-out residuals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls
from scipy.spatial.distance import cdist
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import NuSVR

from pyg_nas_np.datasets.curves import Floats

FOLDS = 3


class Regressor(ABC):
    r"""Fits one function; features and target are standardised around it.

    Args:
        draws: Settings that the random search tries; 1 takes the first draw without cross-validation.
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

    def _left_out(self, x: Floats, y: Floats) -> Floats:
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

    def left_out(self) -> Floats:
        r"""Returns the prediction of each training row by a fit without it, with the chosen settings, ``[n]``."""
        return self.center + self.scale * self._left_out(self.x, self.y)


def folds(count: int, rng: np.random.Generator, parts: int = FOLDS) -> list[tuple[Any, Any]]:
    r"""Returns random ``(train, test)`` positions of a cross-validation; each row is tested once."""
    parts = min(parts, count)
    groups = np.array_split(rng.permutation(count), parts)
    return [(np.concatenate([g for j, g in enumerate(groups) if j != i]), groups[i]) for i in range(parts)]


class LeastSquares(Regressor):
    r"""Ordinary least squares; of several solutions the one of smallest norm."""

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        pass

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        # Standardised columns of all rows need an intercept again once a row is left out.
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
                model = NuSVR(kernel="precomputed", C=c, nu=nu, cache_size=20).fit(kernel[np.ix_(train, train)], y[train])
                error += float(np.square(model.predict(kernel[np.ix_(test, train)]) - y[test]).sum())
            errors.append(error)
        self.settings = draws[int(np.argmin(errors))]

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        c, gamma, nu = self.settings
        model = NuSVR(kernel=self.kernel, C=c, gamma=gamma, nu=nu).fit(x, y)
        return lambda new: np.asarray(model.predict(new))


class GaussianProcess(Regressor):
    r"""Gaussian process with a linear and a Matérn-5/2 part, leave-one-out residuals in closed form.

    The settings (weights of both parts, length scale, noise) are those of the draws with the highest leave-one-out
    predictive density, which needs one factorisation a draw and no folds.
    """

    def _kernel(self, a: Floats, b: Floats, settings: tuple[float, ...]) -> Floats:
        linear, length, _ = settings
        width = a.shape[1]
        r = np.sqrt(5.0 / width) * cdist(a, b) / length
        return linear * (a @ b.T) / width + (1 - linear) * (1 + r + r * r / 3) * np.exp(-r)

    def _search(self, x: Floats, y: Floats, rng: np.random.Generator) -> None:
        self.settings: tuple[float, ...] = (0.5, 2.0, 0.05)
        best = -np.inf
        for _ in range(self.draws):
            settings = (
                float(rng.uniform(0.0, 1.0)), float(np.exp(rng.uniform(-1.0, 3.0))), float(np.exp(rng.uniform(-8, 1)))
            )  # fmt: skip
            residual, variance = self._leave_one_out(x, y, settings)
            # The scale of the whole covariance that fits best, in closed form.
            scale = float(np.mean(residual**2 / variance))
            density = -0.5 * np.mean(np.log(scale * variance)) - 0.5
            if density > best:
                best, self.settings = density, settings

    def _leave_one_out(self, x: Floats, y: Floats, settings: tuple[float, ...]) -> tuple[Floats, Floats]:
        covariance = self._kernel(x, x, settings) + settings[2] * np.eye(len(y))
        inverse = np.linalg.inv(covariance)
        return inverse @ y / np.diag(inverse), 1.0 / np.diag(inverse)

    def _learn(self, x: Floats, y: Floats) -> Callable[[Floats], Floats]:
        settings = self.settings
        factor = np.linalg.cholesky(self._kernel(x, x, settings) + settings[2] * np.eye(len(y)))
        weights = solve_triangular(factor.T, solve_triangular(factor, y, lower=True))
        return lambda new: self._kernel(new, x, settings) @ weights

    def _left_out(self, x: Floats, y: Floats) -> Floats:
        return np.asarray(y - self._leave_one_out(x, y, self.settings)[0])


class RandomForest(Regressor):
    r"""Random forest, 10 to 800 trees and 10 % to 50 % of the features a split.

    Rows are left out by their own bags: each is predicted by the trees that did not see it.
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
        # Below a hundred trees a row may be in every bag.
        self.model = RandomForestRegressor(
            max(trees, 100), max_features=share, oob_score=True, random_state=self.seed
        ).fit(x, y)
        return lambda new: np.asarray(self.model.predict(new))

    def _left_out(self, x: Floats, y: Floats) -> Floats:
        return np.asarray(self.model.oob_prediction_)


class Boosting(Regressor):
    r"""Gradient-boosted trees with Huber loss; rows are left out ten at a time."""

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
        model = GradientBoostingRegressor(loss="huber", random_state=self.seed, **self.settings).fit(x, y)
        return lambda new: np.asarray(model.predict(new))

    def _left_out(self, x: Floats, y: Floats) -> Floats:
        predicted = np.empty(len(y))
        for train, test in folds(len(y), np.random.default_rng(self.seed), 10):
            predicted[test] = self._learn(x[train], y[train])(x[test])
        return predicted


class RankAwareEnsemble:
    r"""A convex combination of regressors on the values and on their ranks.

    Every member is fitted twice: to the target and to its normal scores, whose predictions are mapped back through the
    quantiles of the target; the second form keeps the order where a heavy tail rules the squares. The weights are the
    non-negative least-squares weights of the predictions for rows left out.
    """

    def __init__(self, members: Sequence[Callable[[], Regressor]]) -> None:
        self.members = members

    def fit(self, x: Floats, y: Floats) -> RankAwareEnsemble:
        r"""Fits all members and weighs them."""
        from scipy.special import ndtri
        from scipy.stats import rankdata

        self.quantiles = np.sort(y)
        self.scores = ndtri((np.arange(len(y)) + 0.5) / len(y))
        normal = ndtri((rankdata(y) - 0.5) / len(y))
        self.by_value = [make().fit(x, y) for make in self.members]
        self.by_rank = [make().fit(x, normal) for make in self.members]
        columns = [m.left_out() for m in self.by_value] + [self._back(m.left_out()) for m in self.by_rank]
        table = np.column_stack(columns)
        center = float(y.mean())
        # The last row makes the weights sum to about one.
        heavy = 10.0 * float(np.abs(y - center).sum() or 1.0)
        system = np.vstack([table - center, np.full(table.shape[1], heavy)])
        weights = nnls(system, np.append(y - center, heavy))[0]
        self.weights = weights / weights.sum()
        self.rows_left_out = table @ self.weights
        return self

    def predict(self, x: Floats) -> Floats:
        r"""Predicts targets ``[m]``."""
        columns = [m.predict(x) for m in self.by_value] + [self._back(m.predict(x)) for m in self.by_rank]
        return np.asarray(np.column_stack(columns) @ self.weights)

    def left_out(self) -> Floats:
        r"""Returns the combined predictions of rows left out by the members, ``[n]``."""
        return np.asarray(self.rows_left_out)

    def _back(self, scores: Floats) -> Floats:
        return np.asarray(np.interp(scores, self.scores, self.quantiles))


KINDS = ("svr-rbf", "svr-linear", "ols", "forest", "boosting", "gp", "ensemble")


def make_regressor(kind: str, draws: int, seed: int) -> Regressor | RankAwareEnsemble:
    r"""Returns an unfitted regressor.

    Args:
        kind: One of :data:`KINDS`.
        draws: Settings that the random search tries; the slow tree models try a fiftieth of it.
        seed: Seed.

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
        "gp": lambda: GaussianProcess(draws, seed),
    }
    if kind != "ensemble":
        return kinds[kind]()
    return RankAwareEnsemble([kinds["svr-rbf"], kinds["svr-linear"], kinds["gp"], kinds["boosting"]])
