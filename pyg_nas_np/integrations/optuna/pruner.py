r"""An Optuna pruner that predicts the final value of a trial from its learning curve."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pyg_nas_np.curves import CurvePredictor
from pyg_nas_np.curves.data import Direction, Floats, LearningCurves
from pyg_nas_np.curves.early_stopping import ALIKE, REVERSED, Decision, EarlyStopping, StoppingRule, settle
from pyg_nas_np.utils import require

require("optuna", "search")

from optuna.distributions import CategoricalDistribution  # noqa: E402
from optuna.pruners import BasePruner  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)


class CurvePruner(BasePruner):
    r"""Prunes a trial that is unlikely to beat the best finished one, according to its predicted final value.

    The rule is that of :class:`~pyg_nas_np.curves.EarlyStopping`. The curves are the values given to
    ``trial.report(value, step)``. The final step is the one at which most completed trials end; trials with another
    last step are ignored, and so are steps that fewer than half of the other trials reported. Gaps repeat the previous
    value. A resumed trial is not used for steps before its first report. By default pruning starts with the third
    complete trial, and pruned trials are data too; an explicit :obj:`burn_in` or another predictor gives the rule of
    Baker et al. Parameters that all completed trials have
    become features: numbers unchanged, categories one-hot.

    **The only state is the study's storage.** Every decision is computed from it: workers need to share only the study,
    and two workers with the same view of the storage decide alike. Fitted predictors are cached by their training data.

    **Malformed trials do not end a study.** If the trials cannot be used, nothing is pruned, and
    :attr:`Decision.reason` says why; it is logged as a warning, once for each reason and study.

    Optuna's samplers use the last report of a pruned trial. If the sampler should learn from the extrapolation, return
    :meth:`predicted_value` from the objective in place of raising ``TrialPruned``; such a trial is complete for Optuna,
    but too short to be used by this pruner.

    Args:
        wrapped_pruner: A pruner that is asked first; a trial is pruned if either prunes it. (default: none)
        predictor: Predicts final values. (default: :class:`~pyg_nas_np.curves.IncrementGP`; with a :obj:`burn_in` the
            Gaussian process of :class:`~pyg_nas_np.curves.SequentialRegression`)
        delta: Probability of not beating the threshold from which a trial is pruned.
        offset: Subtracted from the best value.
        nth_best: Compare with the n-th best trial in place of the best.
        burn_in: Number of complete trials before any is pruned; 100 in the paper. (default: 3, or 20 with a predictor
            that does not use pruned trials)
        min_steps: Smallest number of reports of every trial.
        refit_every: Number of further complete trials after which the predictor is refitted. (default: 1, or 20)
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
        >>> study = optuna.create_study(direction="maximize", sampler=sampler, pruner=CurvePruner())
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
        burn_in: int | None = None,
        min_steps: int = 1,
        refit_every: int | None = None,
        use_params: bool = True,
    ) -> None:
        self._wrapped_pruner = wrapped_pruner
        self._predictor, burn_in, refit_every = settle(predictor, burn_in, refit_every, (20, 20))
        self._rule = StoppingRule(delta, offset, nth_best)
        if burn_in < self._predictor.minimum or min_steps < 1 or (refit_every is not None and refit_every < 1):
            raise ValueError(
                f"burn_in must be at least {self._predictor.minimum}, min_steps and refit_every at least 1, but they "
                f"are {burn_in}, {min_steps} and {refit_every}"
            )
        self._burn_in, self._min_steps, self._refit_every = burn_in, min_steps, refit_every
        self._use_params = use_params
        self._latest: EarlyStopping | None = None
        self._logged: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        r"""Returns whether to prune the trial; called by ``trial.should_prune``."""
        if self._wrapped_pruner is not None and self._wrapped_pruner.prune(study, trial):
            return True
        return self.decide(study, trial).stop

    def decide(self, study: Study, trial: FrozenTrial) -> Decision:
        r"""Returns the decision of :meth:`prune` without the wrapped pruner, with its reason and prediction."""
        if len(study.directions) > 1:
            raise ValueError(
                f"CurvePruner needs a single objective, but the study has {len(study.directions)}; pruning of "
                f"multi-objective studies is not defined"
            )
        complete = [(t, _history(t)) for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
        ends = Counter(max(history) for _, history in complete if history)
        history = _history(trial)
        if not history:
            return Decision(False, "no value yet")
        if ends.total() < self._burn_in:
            return Decision(False, f"{ends.total()} of {self._burn_in} trials of the burn-in are complete")
        # The most frequent last step; the later one for ties.
        last = max(ends, key=lambda end: (ends[end], end))
        if max(history) >= last:
            return Decision(False, "already at the last step")
        # Ordered by completion: a trial with a smaller number that ends later must not change the training data of the
        # predictor.
        done = sorted(((t, h) for t, h in complete if h and max(h) == last), key=lambda pair: _order(pair[0]))
        reports = Counter(step for _, h in done for step in h)
        steps = tuple(sorted(step for step, count in reports.items() if 2 * count >= len(done)))
        if not history.keys() & set(steps):
            reason = "the trial reports at other steps than the complete trials"
            self._log(study, reason)
            return Decision(False, reason)
        direction: Direction = "up" if study.direction.name == "MAXIMIZE" else "down"
        pruned = self._pruned(study, [*(t for t, _ in done), trial], steps)
        trials = [*(t for t, _ in done), trial, *(t for t, _ in pruned)]
        histories = [*(h for _, h in done), history, *(h for _, h in pruned)]
        rows = LearningCurves(
            np.array([[_cell(h, step, direction) for step in steps] for h in histories]),
            direction,
            steps,
            hyperparameters=self._parameters(trials),
            configs=tuple(str(t.number) for t in trials),
        )
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
        running = len(done)
        stopping.finish_all(rows[:running])
        stopping.note_stopped(rows[running + 1 :])
        idle = stopping.why_idle()
        if idle is not None:
            if idle in (ALIKE, REVERSED):
                self._log(study, idle)
            return Decision(False, idle)
        # One thread fits; the others wait for its predictor.
        with self._lock:
            if self._latest is not None:
                stopping.adopt(self._latest)
            self._latest = stopping
            try:
                return stopping.decide_all(rows[running : running + 1])[0]
            except (ValueError, ArithmeticError) as error:
                # Of the predictor and of its libraries, to which trials may have given numbers that they cannot use.
                reason = f"the trials cannot be judged: {error}"
                self._log(study, reason)
                return Decision(False, reason)

    def _pruned(
        self, study: Study, others: list[FrozenTrial], steps: tuple[int, ...]
    ) -> list[tuple[FrozenTrial, dict[int, float]]]:
        """Pruned trials with their histories, where the predictor uses them, in the order of their ends."""
        if not self._predictor.uses_stopped:
            return []
        shared = {name for name in others[0].params if all(name in t.params for t in others)} if others else set()
        trials = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        known = [(t, _history(t)) for t in sorted(trials, key=_order)]
        # One without the parameters of the others would cost them these features.
        return [(t, h) for t, h in known if h.keys() & set(steps) and shared <= t.params.keys()]

    def predicted_value(self, study: Study, trial: FrozenTrial) -> float:
        r"""Returns the predicted final value of a trial; its last report while there is no predictor.

        Raises:
            ValueError: If the trial has reported nothing.
        """
        last = trial.last_step
        if last is None:
            raise ValueError(f"trial {trial.number} has reported nothing, so that nothing can be predicted")
        predicted = self.decide(study, trial).predicted
        return float(trial.intermediate_values[last]) if math.isnan(predicted) else predicted

    def _log(self, study: Study, reason: str) -> None:
        key = study.study_name, re.sub(r"\d+", "", reason)
        with self._lock:
            new = key not in self._logged
            self._logged.add(key)
        if new:
            logger.warning("study '%s': %s; nothing is pruned", study.study_name, reason)

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
            elif all(isinstance(value, int | float) and math.isfinite(value) for value in values):
                columns[name] = np.array(values, dtype=np.float64)
        return columns

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the settings only, because the cache follows from the storage.
        return {**self.__dict__, "_latest": None, "_logged": set(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())


def _history(trial: FrozenTrial) -> dict[int, float]:
    """Values by whole step, in the order of the steps; what was reported elsewhere belongs to no epoch."""
    return {int(step): value for step, value in sorted(trial.intermediate_values.items()) if step % 1 == 0}


def _order(trial: FrozenTrial) -> tuple[float, int]:
    # A trial that was added manually may have a date with a time zone, or none.
    return (trial.datetime_complete.timestamp() if trial.datetime_complete else 0.0), trial.number


def _cell(history: dict[int, float], step: int, direction: Direction) -> float:
    if step not in history:
        return math.nan
    value = history[step]
    return value if math.isfinite(value) else -math.inf if direction == "up" else math.inf
