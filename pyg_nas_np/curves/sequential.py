r"""Sequential regression models: one regressor per number of epochs seen (Baker et al., 2017)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.curves.features import FEATURES, curve_features, wide_columns
from pyg_nas_np.curves.regressors import RankAwareEnsemble, Regressor, make_regressor


class SequentialRegression(CurvePredictor):
    r"""Sequential regression models (SRM) of `Baker et al., 2017 <https://arxiv.org/abs/1705.10823>`_, section 3.

    For every number :math:`\tau` of epochs seen a regressor of its own maps features of the prefix to the final value.
    It is fitted when :math:`\tau` is first asked for, and kept. The standard deviation :math:`\sigma(\tau)` is the root
    mean square of leave-one-out residuals, the same for all configurations.

    Beyond the paper: curves and final values that are positive and to be minimised (losses, perplexities) enter as
    logarithms (:obj:`log`), because a single perplexity of 800 among values of 100 decides every squared error; and
    besides its regressors there are a Gaussian process, gradient boosting and a combination. A training whose values
    have all been equal so far (:obj:`stuck`) is taken to stay there, and is no example for the others: it has died, and
    to a regression it is an outlier that it has met once or never. As soon as one such training has recovered, all are
    left to the regression.

    Args:
        regressor: ``"svr-rbf"``, ``"svr-linear"``, ``"ols"`` and ``"forest"`` are the paper's; ``"gp"``,
            ``"boosting"`` and ``"ensemble"`` ours.
        features: Any of ``"TS"``, ``"AP"`` and ``"HP"``; groups that the curves lack are skipped.
        draws: Settings of each random search; the paper takes 1,000.
        log: Whether values enter as logarithms. (default: where all are positive and less is better)
        stuck: Measured values that must be equal, or :obj:`None` to leave such trainings to the regression too.
        random_state: Seed.

    Raises:
        ValueError: In :meth:`fit`, if the regressor is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> height, rate = rng.uniform(0.5, 0.9, (60, 1)), rng.uniform(0.2, 0.9, (60, 1))
        >>> curves = LearningCurves(height * (1 - np.exp(-rate * np.arange(1, 21))))
        >>> model = SequentialRegression("svr-linear", draws=20).fit(curves[:40])
        >>> from pyg_nas_np.curves import LastSeenValue
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
        stuck: int | None = 5,
        random_state: int = 0,
    ) -> None:
        self.regressor = regressor
        self.features = features
        self.draws = draws
        self.log = log
        self.stuck = stuck
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
            known = self._context(tau)
            curves = known[~self._is_stuck(known, tau)]
            x, names = self._inputs(curves, tau)
            y = self._forward(curves.final)
            described = {*self.curves_.architecture, *self.curves_.hyperparameters}
            groups = [2 if name in described else int(not name.startswith("y")) for name in names]
            model = make_regressor(self.regressor, self.draws, self.random_state, groups).fit(x, y)
            self.models_[tau] = model, float(np.sqrt(np.mean((model.left_out() - y) ** 2)))
        return self.models_[tau]

    def _is_stuck(self, curves: LearningCurves, tau: int) -> NDArray[np.bool_]:
        """Which trainings have not moved in :obj:`tau` epochs; none, where they cannot be told from those that will."""
        if self.stuck is None or "TS" not in self.groups_:
            return np.zeros(len(curves), dtype=bool)
        context = self._context(tau)
        still, known = (
            np.asarray((c.mask[:, :tau].sum(1) >= self.stuck) & (np.ptp(c.observed(tau), axis=1) == 0.0))
            for c in (curves, context)
        )
        recovered = known & (context.final != context.observed(tau)[:, -1])
        apart = not recovered.any() and (~known).sum() >= self.minimum
        return still if apart else np.zeros_like(still)

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
        mean = np.where(self._is_stuck(curves, tau), self._forward(curves.observed(tau)[:, -1]), mean)
        if not self.log_:
            return mean, std
        # The median of the log-normal; the spread to first order.
        return np.exp(mean), np.exp(mean) * sigma
