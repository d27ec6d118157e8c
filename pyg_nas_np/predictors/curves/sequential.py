r"""Sequential regression models: one regressor per number of epochs seen (Baker et al., 2017)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from pyg_nas_np.datasets.curves import Floats, LearningCurves
from pyg_nas_np.predictors.curves.base import CurvePredictor
from pyg_nas_np.predictors.curves.features import FEATURES, curve_features, wide_columns
from pyg_nas_np.predictors.curves.regressors import RankAwareEnsemble, Regressor, make_regressor


class SequentialRegression(CurvePredictor):
    r"""Sequential regression models (SRM) of `Baker et al., 2017 <https://arxiv.org/abs/1705.10823>`_, section 3.

    For every number :math:`\tau` of epochs seen a regressor of its own maps features of the prefix to the final value.
    It is fitted when :math:`\tau` is first asked for, and kept. The standard deviation :math:`\sigma(\tau)` is the root
    mean square of leave-one-out residuals, the same for all configurations.

    Beyond the paper: curves and final values that are positive and to be minimised (losses, perplexities) enter as
    logarithms (:obj:`log`), because a single perplexity of 800 among values of 100 decides every squared error; and
    besides its regressors there are a Gaussian process, gradient boosting and a combination.

    Args:
        regressor: ``"svr-rbf"``, ``"svr-linear"``, ``"ols"`` and ``"forest"`` are the paper's; ``"gp"``,
            ``"boosting"`` and ``"ensemble"`` ours.
        features: Any of ``"TS"``, ``"AP"`` and ``"HP"``; groups that the curves lack are skipped.
        draws: Settings of each random search; the paper takes 1,000.
        log: Whether values enter as logarithms. (default: where all are positive and less is better)
        random_state: Seed.

    Raises:
        ValueError: In :meth:`fit`, if the regressor is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> height, rate = rng.uniform(0.5, 0.9, (60, 1)), rng.uniform(0.2, 0.9, (60, 1))
        >>> curves = LearningCurves(height * (1 - np.exp(-rate * np.arange(1, 21))))
        >>> model = SequentialRegression("svr-linear", draws=20).fit(curves[:40])
        >>> from pyg_nas_np.predictors.curves import LastSeenValue
        >>> model.score(curves[40:], tau=5) > LastSeenValue().fit(curves[:40]).score(curves[40:], tau=5)
        True
        >>> mean, std = model.predict(curves[40:].truncate(5), return_std=True)
        >>> bool(std.min() == std.max() == model.sigma(5))
        True
    """

    def __init__(
        self,
        regressor: str = "svr-rbf",
        *,
        features: Collection[str] = FEATURES,
        draws: int = 200,
        log: bool | None = None,
        random_state: int = 0,
    ) -> None:
        self.regressor = regressor
        self.features = features
        self.draws = draws
        self.log = log
        self.random_state = random_state

    def _fit(self, curves: LearningCurves) -> None:
        make_regressor(self.regressor, self.draws, self.random_state)  # A wrong name fails here, not when first used.
        positive = bool((curves.values[curves.mask] > 0).all())
        self.log_ = (positive and curves.direction == "down") if self.log is None else self.log
        self.wide_ = wide_columns(curves)
        present = {"TS": True, "AP": bool(curves.architecture), "HP": bool(curves.hyperparameters)}
        self.groups_ = [group for group in self.features if present.get(group, True)]
        self.models_: dict[int, tuple[Regressor | RankAwareEnsemble, float]] = {}

    def sigma(self, tau: int) -> float:
        r"""Returns :math:`\sigma(\tau)` on the scale on which the model is fitted (logarithms, where it uses them)."""
        return self._model(tau)[1]

    def _model(self, tau: int) -> tuple[Regressor | RankAwareEnsemble, float]:
        if tau not in self.models_:
            x, names = self._inputs(self.curves_, tau)
            y = self._forward(self.curves_.final)
            described = {*self.curves_.architecture, *self.curves_.hyperparameters}
            groups = [2 if name in described else int(not name.startswith("y")) for name in names]
            model = make_regressor(self.regressor, self.draws, self.random_state, groups).fit(x, y)
            self.models_[tau] = model, float(np.sqrt(np.mean((model.left_out() - y) ** 2)))
        return self.models_[tau]

    def _inputs(self, curves: LearningCurves, tau: int) -> tuple[Floats, list[str]]:
        seen = curves.truncate(tau)
        if self.log_:
            seen = LearningCurves(
                self._forward(seen.values), seen.direction, seen.epochs, seen.architecture, seen.hyperparameters
            )
        return curve_features(seen, tau, self.groups_, self.wide_)

    def _forward(self, values: Floats) -> Floats:
        return np.log(np.maximum(values, 1e-12)) if self.log_ else values

    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        model, sigma = self._model(tau)
        mean, std = model.predict(self._inputs(curves, tau)[0]), np.full(len(curves), sigma)
        if not self.log_:
            return mean, std
        # The median of the log-normal; the spread to first order.
        return np.exp(mean), np.exp(mean) * sigma
