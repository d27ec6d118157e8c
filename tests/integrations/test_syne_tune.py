"""Syne Tune's loop over the searches of this package."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("syne_tune")
from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler

from pyg_nas_np.integrations.syne_tune import ArchScheduler
from pyg_nas_np.predictors import RidgePredictor
from pyg_nas_np.search import PredictorSearch, RandomSearch
from pyg_nas_np.spaces import Integer, ParameterSpace
from pyg_nas_np.utils import InvalidLabelsError

SPACE = ParameterSpace(depth=Integer(1, 4), width=Integer(1, 5))


def label(arch):
    return float(arch["depth"] * 2 - abs(arch["width"] - 3))


@pytest.mark.parametrize("maximize", [True, False])
def test_the_loop_finds_the_best(maximize):
    search = PredictorSearch(SPACE, RidgePredictor(), initial=5, maximize=maximize)
    scheduler = ArchScheduler(search, "y", epochs=3)
    assert (scheduler.metric_names(), scheduler.metric_mode()) == (["y"], "max" if maximize else "min")
    trials = AskTellScheduler(scheduler)
    seen = set()
    for _ in range(15):
        trial = trials.ask()
        assert trial.config["epochs"] == 3
        seen.add(trial.config["arch"])
        trials.tell(trial, {"y": label(SPACE.from_str(trial.config["arch"]))})
    assert len(seen) == 15
    every = [float(2 * depth - abs(width - 3)) for depth in range(1, 5) for width in range(1, 6)]
    assert search.best[1] == (max if maximize else min)(every)


def test_it_ends_when_everything_was_tried():
    scheduler = ArchScheduler(RandomSearch(SPACE), "y")
    assert sum(scheduler.suggest() is not None for _ in range(20)) == 20
    assert scheduler.suggest() is None


def test_failed_and_diverged_trials_are_discarded():
    search = RandomSearch(SPACE)
    trials = AskTellScheduler(ArchScheduler(search, "y"))
    failed, diverged, silent = (trials.ask() for _ in range(3))
    trials.base_scheduler.on_trial_error(failed)
    trials.tell(diverged, {"y": math.inf})
    with pytest.raises(InvalidLabelsError, match="did not report 'y'; it reported loss"):
        trials.tell(silent, {"loss": 1.0})
    assert not search.pending
    assert len(search.y) == 0


def test_a_constant_may_not_hide_the_architecture():
    with pytest.raises(ValueError, match="would hide the architecture"):
        ArchScheduler(RandomSearch(SPACE), "y", arch=1)
