"""The stopper, fed as Ray Tune feeds it."""

from __future__ import annotations

import logging
import pickle

import pytest

from pyg_nas_np.predictors.curves import SequentialRegression
from pyg_nas_np.search import EarlyStopping
from pyg_nas_np.utils import InvalidCurvesError

pytest.importorskip("ray.tune")

from pyg_nas_np.search.ray import CurveStopper

EPOCHS = 8


def make_stopper(**kwargs):
    return CurveStopper(EarlyStopping(EPOCHS, "up", SequentialRegression("ols"), burn_in=5), "acc", **kwargs)


def report(stopper, trial, height, epochs=range(1, EPOCHS + 1), **extra):
    """Epochs until the trial stops or ends."""
    for epoch in epochs:
        result = {"acc": height * (1 - 0.6**epoch), "training_iteration": epoch, "config": {"lr": height}, **extra}
        if stopper(trial, result):
            return epoch
    return max(epochs)


def grown(**kwargs):
    stopper = make_stopper(**kwargs)
    for i in range(5):
        assert report(stopper, f"burn-in {i}", 0.5 + 0.07 * i) == EPOCHS
    return stopper


def test_it_stops_the_hopeless_only():
    stopper = grown(hyperparameters=("lr",))
    assert report(stopper, "bad", 0.4) < EPOCHS
    assert stopper.decisions["bad"].stop
    assert "p = " in stopper.decisions["bad"].reason
    assert report(stopper, "good", 0.9) == EPOCHS
    assert len(stopper.rule.finished) == 6
    assert not stopper.running
    assert not stopper.stop_all()


def test_it_can_be_saved_with_the_experiment():
    stopper = grown()
    assert report(stopper, "fits the predictor", 0.4) < EPOCHS
    report(stopper, "half", 0.85, range(1, 4))
    restored = pickle.loads(pickle.dumps(stopper))
    assert restored.running == stopper.running
    assert report(restored, "half", 0.85, range(4, EPOCHS + 1)) == EPOCHS
    assert report(restored, "bad", 0.4) < EPOCHS


def test_a_trial_that_starts_again_overwrites():
    stopper = grown()
    report(stopper, "again", 0.2, range(1, 2))
    assert report(stopper, "again", 0.9) == EPOCHS
    assert stopper.rule.finished.final[-1] == pytest.approx(0.9 * (1 - 0.6**EPOCHS))


def test_gaps_and_other_epochs_stop_nothing(caplog):
    stopper = grown()
    with caplog.at_level(logging.WARNING):
        assert report(stopper, "gap", 0.1, (2, 3, 4)) == 4
    assert len(caplog.records) == 1
    assert stopper.decisions["gap"].reason == "an epoch was left out"
    assert report(stopper, "longer", 0.1, range(EPOCHS + 1, EPOCHS + 4)) == EPOCHS + 3


def test_what_is_missing_is_named():
    with pytest.raises(InvalidCurvesError, match="did not report 'acc'; it reported loss"):
        make_stopper()("a", {"loss": 1.0})
    with pytest.raises(InvalidCurvesError, match="has not all of depth as numbers"):
        report(make_stopper(architecture=("depth",)), "a", 0.5)
