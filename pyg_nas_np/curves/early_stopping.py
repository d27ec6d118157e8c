r"""Early stopping of trainings that are unlikely to beat the best one (Baker et al., 2017, section 4)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from pyg_nas_np.curves.base import CurvePredictor, gaussian_below
from pyg_nas_np.curves.data import Direction, Floats, LearningCurves
from pyg_nas_np.curves.increments import IncrementGP
from pyg_nas_np.curves.sequential import SequentialRegression
from pyg_nas_np.utils import DataFileError, InvalidCurvesError

logger = logging.getLogger(__name__)

FORMAT = "pyg_nas_np.early_stopping/1"

REVERSED = "nine in ten finished trainings end worse than they began: the direction is likely wrong"
ALIKE = "all finished trainings end at the same value"


class Decision(NamedTuple):
    r"""The decision of a rule about one running training.

    Args:
        stop: Whether to stop it.
        reason: Why, or why not.
        probability: Probability that it does not beat the threshold; NaN if nothing was predicted.
        predicted: Its predicted final value; NaN if nothing was predicted.
        std: Standard deviation of the prediction.
    """

    stop: bool
    reason: str
    probability: float = float("nan")
    predicted: float = float("nan")
    std: float = float("nan")


@dataclass(frozen=True)
class StoppingRule:
    r"""The stateless criterion: stops a training if :math:`p(\hat y_T \le y_\mathrm{best}) \ge \Delta`.

    :math:`\hat y_T` is Gaussian with the predicted final value as mean and the predictor's standard deviation. If less
    is better, the inequality in :math:`p` is reversed.

    Args:
        delta: :math:`\Delta`; larger values stop fewer trainings.
        offset: Subtracted from :math:`y_\mathrm{best}`, so that trainings that end within it continue.
        nth_best: Compare with the n-th best finished training in place of the best; keeps about n.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> rule = StoppingRule(delta=0.95)
        >>> finished = LearningCurves([[0.5, 0.7], [0.6, 0.9]])
        >>> rule.probability(finished, np.array([0.85]), np.array([0.05])).round(3)
        array([0.841])
    """

    delta: float = 0.95
    offset: float = 0.0
    nth_best: int = 1

    def __post_init__(self) -> None:
        if not 0.5 <= self.delta < 1.0:
            raise ValueError(f"delta must lie in [0.5, 1) but is {self.delta}")
        if not self.offset >= 0.0:
            raise ValueError(f"offset must not be negative but is {self.offset}")
        if self.nth_best < 1:
            raise ValueError(f"nth_best must be at least 1 but is {self.nth_best}")

    def threshold(self, finished: LearningCurves) -> float:
        r"""Returns the value to beat; infinitely bad while fewer than :obj:`nth_best` are finished."""
        final = np.sort(finished.sign * finished.final[finished.finished])
        if len(final) < self.nth_best:
            return -finished.sign * float("inf")
        return finished.sign * (float(final[-self.nth_best]) - self.offset)

    def probability(self, finished: LearningCurves, mean: Floats, std: Floats) -> Floats:
        r"""Returns the probability that a training will not beat the threshold, ``[n]``."""
        return gaussian_below(finished.sign * (self.threshold(finished) - mean), std)


BURN_IN = 40
"""Trainings that run to the end first, unless the predictor knows how uncertain it is with fewer."""

PATIENCE = 0.05
"""Share of a training by which a stop has to be confirmed, likewise."""


def settle(
    predictor: CurvePredictor | None, burn_in: int | None, refit_every: int | None, usual: tuple[int, int | None]
) -> tuple[CurvePredictor, int, int | None]:
    r"""Returns predictor, burn-in and interval of refits; what is :obj:`None` follows from the others.

    Without predictor and burn-in, it is the rule that starts from the third training on; with one of them, the rule of
    the paper, with its :obj:`usual` burn-in and interval.
    """
    if predictor is None:
        predictor = IncrementGP() if burn_in is None else SequentialRegression("gp", draws=100)
    first, then = (predictor.minimum, 1) if predictor.uses_stopped else usual
    return predictor, first if burn_in is None else burn_in, then if refit_every is None else refit_every


class EarlyStopping:
    r"""A stopping rule with its memory of finished and stopped trainings; it decides about running ones.

    A training is stopped if it is unlikely to beat the best one (:class:`StoppingRule`). **By default the rule starts
    from the third training on**: :class:`~pyg_nas_np.curves.IncrementGP` knows how uncertain it is with few curves and
    learns from stopped trainings too. A stop has to be confirmed: the curve without its last :obj:`patience` values
    would have been stopped as well. Such a rule remembers every training that :meth:`decide` stops.

    With an explicit :obj:`burn_in` or another predictor it is **the rule of Baker et al.** Nothing is stopped before
    :obj:`burn_in` trainings have finished. Then the predictor is fitted to them, and again whenever :obj:`refit_every`
    more have finished.

    The threshold is always up to date. Decisions depend only on the reported and stopped curves, in their order.

    :attr:`Decision.reason` always says why a training is stopped or continues. It continues if too few trainings have
    finished, if all of them end at the same value, or if their curves contradict :obj:`direction`; the last case is
    logged as a warning, once.

    A rule may be shared between threads.

    Args:
        epochs: Epoch numbers of a full training, or their count.
        direction: Whether more (``"up"``) or less (``"down"``) is better.
        predictor: Predicts final values. (default: :class:`~pyg_nas_np.curves.IncrementGP`; with a :obj:`burn_in` the
            Gaussian process of :class:`~pyg_nas_np.curves.SequentialRegression`)
        delta: :math:`\Delta`, see :class:`StoppingRule`; use 0.99 if final values are hard to predict.
        offset: See :class:`StoppingRule`.
        nth_best: See :class:`StoppingRule`.
        burn_in: Number of trainings that run to the end first; 100 in the paper, which limits the speed-up of a search
            of 600 to less than six. (default: 3, or 40 with a predictor that does not use stopped trainings)
        min_epochs: Smallest number of epochs of every training.
        refit_every: Number of further finished trainings after which the predictor is refitted. (default: 1 with a
            predictor that uses stopped trainings, otherwise never, as in the paper)
        patience: Number of values by which a stop has to be confirmed. (default: a twentieth of a training with a
            predictor that uses stopped trainings, otherwise 0, as in the paper)
        stop_diverged: Whether to stop a training whose latest value is not finite.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> rule = EarlyStopping(20, "up")
        >>> curve = lambda height: height * (1 - np.exp(-0.3 * np.arange(1, 21)))
        >>> for height in (0.7, 0.8, 0.9):
        ...     rule.finish(curve(height))
        >>> rule.decide(curve(0.3)[:8]).stop, rule.decide(curve(0.95)[:8]).stop, len(rule.stopped)
        (True, False, 1)
    """

    def __init__(
        self,
        epochs: int | Sequence[int],
        direction: Direction,
        predictor: CurvePredictor | None = None,
        *,
        delta: float = 0.95,
        offset: float = 0.0,
        nth_best: int = 1,
        burn_in: int | None = None,
        min_epochs: int = 1,
        refit_every: int | None = None,
        patience: int | None = None,
        stop_diverged: bool = False,
    ) -> None:
        self.predictor, burn_in, refit_every = settle(predictor, burn_in, refit_every, (BURN_IN, None))
        self.rule = StoppingRule(delta, offset, nth_best)
        if burn_in < self.predictor.minimum:
            raise ValueError(f"burn_in must be at least {self.predictor.minimum} but is {burn_in}")
        if min_epochs < 1 or (refit_every is not None and refit_every < 1):
            raise ValueError(f"min_epochs and refit_every must be at least 1 but are {min_epochs} and {refit_every}")
        if patience is not None and patience < 0:
            raise ValueError(f"patience must not be negative but is {patience}")
        numbers = tuple(range(1, epochs + 1)) if isinstance(epochs, int) else tuple(epochs)
        self.finished = LearningCurves(np.empty((0, len(numbers))), direction, numbers)
        self.stopped = self.finished
        usual = max(1, round(PATIENCE * len(numbers))) if self.predictor.uses_stopped else 0
        self.patience = usual if patience is None else patience
        self.burn_in, self.min_epochs, self.refit_every = burn_in, min_epochs, refit_every
        self.stop_diverged = stop_diverged
        self._fitted: CurvePredictor | None = None
        self._fitted_to = self.stopped
        self._warned = False
        self._lock = threading.RLock()

    def finish(
        self,
        values: Sequence[float] | Floats,
        architecture: Mapping[str, float] | None = None,
        hyperparameters: Mapping[str, float] | None = None,
    ) -> None:
        r"""Reports a training that was not stopped by the rule.

        One that diverged or ended early is stored, but is neither used for the predictor nor counted for the burn-in.

        Raises:
            InvalidCurvesError: If there are more values than epochs, or other features than before.
        """
        self.finish_all(self._row(values, architecture, hyperparameters))

    def finish_all(self, curves: LearningCurves) -> None:
        r"""Reports several trainings at once, in their order."""
        with self._lock:
            self.finished = LearningCurves.concat([self.finished, curves]) if len(self.finished) else curves
            self.stopped = self._others(self.stopped, curves)

    def note_stopped(self, curves: LearningCurves) -> None:
        r"""Remembers trainings that were stopped, with their values so far.

        :meth:`decide` does so for those that it stops; a predictor that does not use them ignores them. A longer report
        of the same training replaces the shorter one.
        """
        if not self.predictor.uses_stopped or not len(curves):
            return
        with self._lock:
            kept = self._others(self.stopped, curves)
            self.stopped = LearningCurves.concat([kept, curves]) if len(kept) else curves

    @staticmethod
    def _others(stopped: LearningCurves, curves: LearningCurves) -> LearningCurves:
        """The stopped trainings that none of the curves continues or repeats."""
        if not len(stopped) or not len(curves):
            return stopped
        unknown = np.isnan(stopped.values)[:, None]
        same = ((stopped.values[:, None] == curves.values) | unknown).all(2).any(1)
        return stopped[~same] if same.any() else stopped

    def decide(
        self,
        values: Sequence[float] | Floats,
        architecture: Mapping[str, float] | None = None,
        hyperparameters: Mapping[str, float] | None = None,
    ) -> Decision:
        r"""Decides about a running training from its values so far.

        Raises:
            InvalidCurvesError: If there are more values than epochs, or other features than before.
        """
        return self.decide_all(self._row(values, architecture, hyperparameters))[0]

    def decide_all(self, running: LearningCurves) -> list[Decision]:
        r"""Decides about several running trainings, and remembers those that it stops."""
        verdicts = self._judge(running)
        self.note_stopped(running[np.array([verdict.stop for verdict in verdicts], dtype=bool)])
        return verdicts

    def _judge(self, running: LearningCurves) -> list[Decision]:
        total = len(running.epochs)
        verdicts: list[Decision | None] = [None] * len(running)
        for i, length in enumerate(running.lengths.tolist()):
            if length == 0:
                verdicts[i] = Decision(False, "no value yet")
            elif not running.mask[i, length - 1]:
                verdicts[i] = Decision(self.stop_diverged, "the latest value is not finite")
            elif length >= total:
                verdicts[i] = Decision(False, "already at the last epoch")
            elif length < max(self.min_epochs, self.patience + 1):
                verdicts[i] = Decision(False, f"fewer than {max(self.min_epochs, self.patience + 1)} epochs")
            elif not running.mask[i, : length - self.patience].any():
                verdicts[i] = Decision(False, "no finite value before the latest")
        general = self.why_idle()
        if general == REVERSED and not self._warned:
            self._warned = True
            logger.warning("%s ('%s'); nothing is stopped", REVERSED, running.direction)
        if general is not None:
            return [verdict or Decision(False, general) for verdict in verdicts]
        rows = [i for i, verdict in enumerate(verdicts) if verdict is None]
        if rows:
            part, predictor, best = running[rows], self.fitted(), self.rule.threshold(self.finished)
            mean, std = predictor.predict(part, return_std=True)
            chances = predictor.probability_not_better(part, best)
            if self.patience:
                earlier = part.values.copy()
                earlier[np.arange(total) >= part.lengths[:, None] - self.patience] = np.nan
                before = predictor.probability_not_better(part.with_values(earlier), best)
                chances = np.minimum(chances, before)
            for i, p, m, s in zip(rows, chances.tolist(), mean.tolist(), std.tolist(), strict=True):
                stop = p >= self.rule.delta
                reason = f"p = {p:.3f} {'≥' if stop else '<'} {self.rule.delta}"
                verdicts[i] = Decision(stop, reason, p, m, s)
                if not np.isfinite([p, m, s]).all():
                    verdicts[i] = Decision(False, "the prediction is not finite")
        return [verdict for verdict in verdicts if verdict is not None]

    def predicted_value(
        self,
        values: Sequence[float] | Floats,
        architecture: Mapping[str, float] | None = None,
        hyperparameters: Mapping[str, float] | None = None,
    ) -> float:
        r"""Returns the predicted final value of a training, or its last value if there is no predictor yet.

        A search should learn from this prediction for stopped trainings (the paper's section 4.2), because the last
        value is biased against slow starters.
        """
        row = self._row(values, architecture, hyperparameters)
        if int(self.finished.finished.sum()) < self.burn_in:
            return float(row.observed(max(int(row.lengths[0]), 1))[0, -1])
        return float(self.fitted().predict(row)[0])

    def __getstate__(self) -> dict[str, Any]:
        # Fitted predictors contain functions, which cannot be pickled; they are refitted from the memory.
        return {name: value for name, value in self.__dict__.items() if name not in ("_fitted", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _fitted=None, _lock=threading.RLock())

    def adopt(self, other: EarlyStopping) -> None:
        r"""Takes over the fitted predictor of a rule with the same settings; it is used if it matches the memory."""
        self._fitted, self._fitted_to = other._fitted, other._fitted_to

    def why_idle(self) -> str | None:
        r"""Returns why no training can be stopped now, whatever its curve; :obj:`None` if one can."""
        done = self.finished[self.finished.finished]
        if len(done) < self.burn_in:
            return f"{len(done)} of {self.burn_in} trainings of the burn-in have finished"
        if np.ptp(done.final) == 0.0:
            return ALIKE
        if done.looks_reversed:
            return REVERSED
        return None

    def fitted(self) -> CurvePredictor:
        r"""Returns the predictor fitted to the finished trainings; the same object until it is refitted.

        Raises:
            InvalidCurvesError: If fewer than the burn-in have finished.
        """
        with self._lock:
            done = self.finished[self.finished.finished]
            if len(done) < self.burn_in:
                raise InvalidCurvesError(
                    f"{len(done)} of {self.burn_in} trainings of the burn-in have finished: there is no predictor yet"
                )
            count = self.burn_in
            if self.refit_every is not None:
                count += (len(done) - self.burn_in) // self.refit_every * self.refit_every
            known, stopped = done[:count], self.stopped
            current = self._fitted is not None and self._fitted.curves_.equals(known)
            if self.predictor.uses_stopped:
                current = current and self._fitted_to.equals(stopped)
                known = LearningCurves.concat([known, stopped]) if len(stopped) else known
            if self._fitted is None or not current:
                self._fitted, self._fitted_to = clone(self.predictor).fit(known), stopped
            return self._fitted

    def _row(
        self,
        values: Sequence[float] | Floats,
        architecture: Mapping[str, float] | None,
        hyperparameters: Mapping[str, float] | None,
    ) -> LearningCurves:
        total = len(self.finished.epochs)
        given = np.asarray(values, dtype=np.float64)
        if given.ndim != 1 or len(given) > total:
            raise InvalidCurvesError(f"a curve of {total} epochs cannot have values of shape {list(given.shape)}")
        # Within a curve, NaN was reported as a value; it is not a gap.
        padded = np.full(total, np.nan)
        padded[: len(given)] = np.where(np.isnan(given), -self.finished.sign * np.inf, given)
        return LearningCurves(
            padded[None],
            self.finished.direction,
            self.finished.epochs,
            {name: np.array([value]) for name, value in (architecture or {}).items()},
            {name: np.array([value]) for name, value in (hyperparameters or {}).items()},
        )

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the memory as plain types; regressors are refitted from it."""
        done, stopped = self.finished, self.stopped
        return {
            "format": FORMAT,
            "values": done.values.tolist(),
            "direction": done.direction,
            "epochs": list(done.epochs),
            "architecture": {name: column.tolist() for name, column in done.architecture.items()},
            "hyperparameters": {name: column.tolist() for name, column in done.hyperparameters.items()},
            "stopped": {
                "values": stopped.values.tolist(),
                "architecture": {name: column.tolist() for name, column in stopped.architecture.items()},
                "hyperparameters": {name: column.tolist() for name, column in stopped.hyperparameters.items()},
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Restores the memory.

        Raises:
            DataFileError: If it is not such a state, or one of other epochs or direction.
        """
        if state.get("format") != FORMAT:
            raise DataFileError(f"the state has format {state.get('format')!r}, expected {FORMAT!r}")
        epochs = tuple(state["epochs"])
        if (epochs, state["direction"]) != (self.finished.epochs, self.finished.direction):
            raise DataFileError(
                f"the state is of {len(epochs)} epochs ({state['direction']}), the rule of "
                f"{len(self.finished.epochs)} ({self.finished.direction})"
            )
        # States of earlier versions have no stopped trainings.
        parts = [state, state.get("stopped") or {"values": [], "architecture": {}, "hyperparameters": {}}]
        self.finished, self.stopped = (
            LearningCurves(
                np.array(part["values"], dtype=np.float64).reshape(-1, len(epochs)),
                state["direction"],
                epochs,
                part["architecture"],
                part["hyperparameters"],
            )
            for part in parts
        )
