r"""A pruner for Optuna that predicts where the learning curve of a trial ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyg_nas_np.curves import CurvePredictor, SequentialRegression
from pyg_nas_np.curves.data import Direction, Floats, LearningCurves
from pyg_nas_np.curves.early_stopping import Decision, EarlyStopping, StoppingRule
from pyg_nas_np.utils import require

require("optuna", "search")

from optuna.distributions import CategoricalDistribution  # noqa: E402
from optuna.pruners import BasePruner  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class CurvePruner(BasePruner):
    r"""Prunes a trial when its predicted final value will hardly beat the best finished trial.

    The rule is that of :class:`~pyg_nas_np.curves.EarlyStopping`. The curves are the values given to
    ``trial.report(value, step)``; the final step is the one at which most completed trials end, and trials that ended
    elsewhere teach nothing. Parameters of the trials become features where all completed trials have them: numbers as
    they are, choices one by one.

    **All state is the study's storage.** Every decision is computed from it, so that workers need share nothing but
    the study, and two workers that see the same storage decide alike. Fitted predictors are only cached.

    A pruned trial counts for Optuna's samplers with its last report. Return :meth:`predicted_value` from the objective
    in place of raising ``TrialPruned`` where the sampler should learn from the extrapolation; such a trial is complete
    for Optuna, but too short to teach this pruner.

    Args:
        wrapped_pruner: A trial is also pruned when this pruner says so. It is asked first. (default: none)
        predictor: Predicts final values.
            (default: the Gaussian process of :class:`~pyg_nas_np.curves.SequentialRegression`)
        delta: Probability of not beating the threshold from which on a trial is pruned.
        offset: Taken off the best value.
        nth_best: Compare with the n-th best trial in place of the best.
        burn_in: Trials that must be complete before any is pruned; the paper takes 100.
        min_steps: Reports that every trial may make.
        refit_every: Further complete trials after which the predictor is fitted again.
        use_params: Whether parameters are features.

    Raises:
        MissingExtraError: At import, if Optuna is not installed.
        ValueError: If an argument is out of range, or, when a trial asks, if the study has several objectives.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> def objective(trial):
        ...     height = trial.suggest_float("height", 0.5, 0.9)
        ...     for step in range(20):
        ...         value = height * (1 - 0.7 ** (step + 1))
        ...         trial.report(value, step)
        ...         if trial.should_prune():
        ...             raise optuna.TrialPruned
        ...     return value
        >>> sampler = optuna.samplers.RandomSampler(seed=0)
        >>> pruner = CurvePruner(predictor=SequentialRegression("ols"), burn_in=10)
        >>> study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        >>> study.optimize(objective, n_trials=40)
        >>> len(study.get_trials(states=(optuna.trial.TrialState.PRUNED,))) > 20
        True
    """

    def __init__(
        self,
        wrapped_pruner: BasePruner | None = None,
        *,
        predictor: CurvePredictor | None = None,
        delta: float = 0.95,
        offset: float = 0.0,
        nth_best: int = 1,
        burn_in: int = 20,
        min_steps: int = 1,
        refit_every: int = 20,
        use_params: bool = True,
    ) -> None:
        self._wrapped_pruner = wrapped_pruner
        self._predictor = SequentialRegression("gp", draws=100) if predictor is None else predictor
        self._rule = StoppingRule(delta, offset, nth_best)
        if burn_in < self._predictor.minimum or min_steps < 1 or refit_every < 1:
            raise ValueError(
                f"burn_in must be at least {self._predictor.minimum}, min_steps and refit_every at least 1, but they "
                f"are {burn_in}, {min_steps} and {refit_every}"
            )
        self._burn_in, self._min_steps, self._refit_every = burn_in, min_steps, refit_every
        self._use_params = use_params
        self._cache: tuple[Any, EarlyStopping] | None = None

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        r"""Says whether to prune the trial; Optuna calls it from ``trial.should_prune``."""
        if self._wrapped_pruner is not None and self._wrapped_pruner.prune(study, trial):
            return True
        return self.decide(study, trial).stop

    def decide(self, study: Study, trial: FrozenTrial) -> Decision:
        r"""Returns the decision of :meth:`prune`, the wrapped pruner aside, with its reason and prediction."""
        prepared = self._prepare(study, trial)
        if isinstance(prepared, str):
            return Decision(False, prepared)
        stopping, running = prepared
        return stopping.decide_all(running)[0]

    def predicted_value(self, study: Study, trial: FrozenTrial) -> float:
        r"""Returns the predicted final value of a trial; its last report while there is no predictor.

        Raises:
            ValueError: If the trial has reported nothing.
        """
        last = trial.last_step
        if last is None:
            raise ValueError(f"trial {trial.number} has reported nothing, so that nothing can be predicted")
        prepared = self._prepare(study, trial)
        if isinstance(prepared, str):
            return float(trial.intermediate_values[last])
        stopping, running = prepared
        predicted = stopping.decide_all(running)[0].predicted
        return float(trial.intermediate_values[last]) if math.isnan(predicted) else predicted

    def _prepare(self, study: Study, trial: FrozenTrial) -> tuple[EarlyStopping, LearningCurves] | str:
        """The rule with the memory that the storage gives and the running curve, or why there is no decision."""
        if len(study.directions) > 1:
            raise ValueError(
                f"CurvePruner needs a single objective, but the study has {len(study.directions)}; pruning of "
                f"multi-objective studies is not defined"
            )
        if trial.last_step is None:
            return "no value yet"
        complete = [
            t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.last_step is not None
        ]
        ends = [t.last_step for t in complete if t.last_step is not None]
        if len(ends) < self._burn_in:
            return f"{len(ends)} of {self._burn_in} trials of the burn-in are complete"
        # The most frequent end; the later one of equals.
        last = max(set(ends), key=lambda end: (ends.count(end), end))
        # By the end of the training, because that is the order in which the storage learned of them; a trial that is
        # numbered earlier but ends later must not change what the predictor was fitted on.
        done = sorted((t for t in complete if t.last_step == last), key=lambda t: (t.datetime_complete, t.number))
        steps = tuple(sorted({step for t in done for step in t.intermediate_values if step <= last}))
        values = {step: value for step, value in trial.intermediate_values.items() if step <= last}
        if trial.last_step >= last:
            return "already at the last step"
        if not set(values) <= set(steps):
            return "the trial reports at other steps than the complete trials"
        direction: Direction = "up" if study.direction.name == "MAXIMIZE" else "down"
        parameters = self._parameters([*done, trial])
        rows = LearningCurves(
            np.array([[_cell(t.intermediate_values, step, direction) for step in steps] for t in [*done, trial]]),
            direction,
            steps,
            hyperparameters=parameters,
            configs=tuple(str(t.number) for t in [*done, trial]),
        )
        # The running trial's parameters are part of the key: they decide which features there are.
        key = (study.study_name, direction, steps, tuple(t.number for t in done), tuple(parameters))
        if self._cache is None or self._cache[0] != key:
            previous = self._cache
            stopping = EarlyStopping(
                steps,
                direction,
                self._predictor,
                delta=self._rule.delta,
                offset=self._rule.offset,
                nth_best=self._rule.nth_best,
                burn_in=self._burn_in,
                min_epochs=self._min_steps,
                refit_every=self._refit_every,
            )
            stopping.finish_all(rows[: len(done)])
            if previous is not None and _extends(key, previous[0]):
                stopping.adopt(previous[1])
            self._cache = key, stopping
        return self._cache[1], rows[len(done) :]

    def _parameters(self, trials: list[FrozenTrial]) -> dict[str, Floats]:
        if not self._use_params:
            return {}
        columns: dict[str, Floats] = {}
        shared = [name for name in trials[0].params if all(name in t.params for t in trials)]
        for name in sorted(shared):
            distribution = trials[0].distributions[name]
            values = [t.params[name] for t in trials]
            if isinstance(distribution, CategoricalDistribution):
                for choice in distribution.choices:
                    columns[f"{name}={choice}"] = np.array([float(value == choice) for value in values])
            elif all(math.isfinite(value) for value in values):
                columns[name] = np.array(values, dtype=np.float64)
        return columns

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the settings only: what is cached follows from the storage.
        return {**self.__dict__, "_cache": None}


def _cell(values: dict[int, float], step: int, direction: Direction) -> float:
    if step not in values:
        return math.nan
    value = values[step]
    return value if math.isfinite(value) else -math.inf if direction == "up" else math.inf


def _extends(key: tuple[Any, ...], previous: tuple[Any, ...]) -> bool:
    same = key[:3] == previous[:3] and key[4:] == previous[4:]
    return same and key[3][: len(previous[3])] == previous[3]
