r"""Sequential regression models: one regressor for each number of observed epochs (Baker et al., 2017)."""

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

    For every number :math:`\tau` of observed epochs, a separate regressor maps features of the prefix to the final
    value. It is fitted when :math:`\tau` is first needed, and cached. The standard deviation :math:`\sigma(\tau)` is
    the root mean square of held-out residuals, the same for all configurations.

    Extensions of the paper:

    - Curves and final values that are positive and to be minimised (losses, perplexities) are transformed to logarithms
      (:obj:`log`), because a single perplexity of 800 among values of 100 dominates every squared error.
    - There are three further regressors: a Gaussian process, gradient boosting and an ensemble.
    - A training whose values so far are all equal (:obj:`stuck`) is predicted to stay constant and is not used for the
      other fits, where it would be an outlier. Once such a training has recovered, all are left to the regression.

    Args:
        regressor: ``"svr-rbf"``, ``"svr-linear"``, ``"ols"`` and ``"forest"`` as in the paper, or ``"gp"``,
            ``"boosting"`` or ``"ensemble"``.
        features: Any of ``"TS"``, ``"AP"`` and ``"HP"``; groups that the curves lack are skipped.
        draws: Number of settings of each random search; 1,000 in the paper.
        log: Whether to transform values to logarithms. (default: if all are positive and less is better)
        stuck: Number of equal values from which a training is stuck, or :obj:`None` for no such rule.
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
        if unknown := set(self.features) - set(FEATURES):
            raise ValueError(f"features must be of {', '.join(FEATURES)}, got {min(unknown)!r}")
        make_regressor(self.regressor, self.draws, self.random_state)  # An unknown name fails here, not at first use.
        positive = bool((curves.values[curves.mask] > 0).all())
        self.log_ = (positive and curves.direction == "down") if self.log is None else self.log
        self.wide_ = wide_columns(curves)
        present = {"TS": True, "AP": bool(curves.architecture), "HP": bool(curves.hyperparameters)}
        self.groups_ = [group for group in self.features if present.get(group, True)]
        self.models_: dict[int, tuple[Regressor | RankAwareEnsemble, float]] = {}

    def sigma(self, tau: int) -> float:
        r"""Returns :math:`\sigma(\tau)` on the scale of the fit (logarithms, if used)."""
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
            self.models_[tau] = model, float(np.sqrt(np.mean((model.held_out() - y) ** 2)))
        return self.models_[tau]

    def _is_stuck(self, curves: LearningCurves, tau: int) -> NDArray[np.bool_]:
        """Which trainings are stuck after :obj:`tau` epochs; none if a finished one has recovered from that."""
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
        # The median of the log-normal, and its standard deviation to first order.
        return np.exp(mean), np.exp(mean) * sigma
