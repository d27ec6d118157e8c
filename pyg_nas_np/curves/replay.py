r"""Replay of recorded curves with a stopping rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.early_stopping import EarlyStopping
from pyg_nas_np.utils import InvalidCurvesError, check_count

Stopper = Callable[[LearningCurves, LearningCurves], NDArray[np.bool_]]
r"""Maps finished curves and a running training to whether each prefix of 1 to ``T - 1`` columns is stopped."""


class Replay(NamedTuple):
    r"""Cost and result of a search with early stopping.

    Args:
        epochs: Number of columns trained, int64 ``[N]``, in the order of the replay.
        best: Position (in the given curves) of the best training that ran to the end.
        regret: Difference between its final value and the best of all, not negative.
        speedup: Number of columns of all trainings over those trained.
    """

    epochs: NDArray[np.int64]
    best: int
    regret: float
    speedup: float


def replay(curves: LearningCurves, order: NDArray[np.int64], stopping: EarlyStopping, checks: int = 20) -> Replay:
    r"""Replays trainings one after the other.

    The rule decides at up to :obj:`checks` evenly spaced prefixes of a training. Decisions depend only on earlier
    trainings, so all prefixes of one training are decided together.

    Args:
        curves: Finished trainings.
        order: Positions in the order of the search, each at most once.
        stopping: A rule with empty memory.
        checks: Number of prefixes at which the rule decides.

    Raises:
        InvalidCurvesError: If a curve is not finished.

    Example:
        >>> from pyg_nas_np.curves import SequentialRegression
        >>> heights = np.random.default_rng(0).uniform(0.5, 0.9, (200, 1))
        >>> curves = LearningCurves(heights * (1 - np.exp(-0.3 * np.arange(1, 21))))
        >>> rule = EarlyStopping(20, "up", SequentialRegression("ols"), burn_in=20)
        >>> result = replay(curves, np.arange(200), rule)
        >>> result.regret, result.speedup > 4
        (0.0, True)
    """
    check_count("checks", checks)
    order = np.asarray(order)
    outside = (order < 0) | (order >= len(curves))
    if outside.any():
        raise InvalidCurvesError(f"order names curve {order[outside][0]}, which is none of {len(curves)}")
    if not curves.finished[order].all():
        raise InvalidCurvesError("only finished trainings can be replayed")
    total = len(curves.epochs)
    prefixes = np.unique(np.linspace(1, total - 1, min(checks, total - 1)).round().astype(int))
    prefixes = prefixes[prefixes >= stopping.min_epochs]
    spent = np.full(len(order), total)
    if stopping.predictor.uses_stopped or stopping.patience:
        # Every training that ends, stopped or not, may change the predictions of the next.
        for position, i in enumerate(order.tolist()):
            one = curves[[i]]
            for tau in prefixes.tolist() if stopping.why_idle() is None else []:
                if stopping.decide_all(one.truncate(tau))[0].stop:
                    spent[position] = tau
                    break
            else:
                stopping.finish_all(one)
        return _result(curves, order, spent)
    # Predictions do not change between two fits, and predicting all trainings at once, prefix by prefix, is far cheaper
    # than one by one. The threshold changes and is looked up at every step.
    position = 0
    kept: list[int] = []
    while position < len(order) and len(kept) < stopping.burn_in:
        kept.append(int(order[position]))
        position += 1
    stopping.finish_all(curves[kept])
    while position < len(order):
        if stopping.why_idle() is not None:
            stopping.finish_all(curves[[int(order[position])]])
            position += 1
            continue
        predictor = stopping.fitted()
        rest = order[position:]
        tables = [predictor.predict(curves[rest], tau, return_std=True) for tau in prefixes.tolist()]
        moments = np.reshape(tables, (len(prefixes), 2, len(rest)))
        for step, i in enumerate(rest.tolist()):
            chances = stopping.rule.probability(stopping.finished, *moments[:, :, step].T)
            hopeless = prefixes[chances >= stopping.rule.delta]
            if len(hopeless):
                spent[position] = hopeless[0]
            else:
                stopping.finish_all(curves[[i]])
            position += 1
            if stopping.fitted() is not predictor:
                break
    return _result(curves, order, spent)


def _result(curves: LearningCurves, order: NDArray[np.int64], spent: NDArray[np.int64]) -> Replay:
    total, final = len(curves.epochs), curves.sign * curves.final
    whole = order[spent == total]
    best = int(whole[final[whole].argmax()])
    return Replay(spent, best, float(final[order].max() - final[best]), total * len(order) / float(spent.sum()))
