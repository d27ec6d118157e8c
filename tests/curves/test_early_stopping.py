"""The stopping rule and its memory."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_nas_np.curves import EarlyStopping, IncrementGP, LastSeenValue, SequentialRegression, StoppingRule, replay
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.readers import read_baker
from pyg_nas_np.utils import DataFileError, InvalidCurvesError

T = np.arange(1, 21)


def curve(height):
    return height * (1 - np.exp(-0.3 * T))


def trained(direction="up", count=30, **kwargs):
    rule = EarlyStopping(20, direction, SequentialRegression("gp", draws=20), burn_in=30, **kwargs)
    for height in np.random.default_rng(0).uniform(0.5, 0.9, count):
        rule.finish(curve(height) if direction == "up" else 10.0 - curve(height))
    return rule


def test_the_probability_by_hand():
    finished = LearningCurves([[0.7], [0.9], [0.8]])
    rule = StoppingRule(offset=0.05, nth_best=2)
    assert rule.threshold(finished) == pytest.approx(0.75)
    # Phi((0.75 - 0.7) / 0.05) = Phi(1)
    assert rule.probability(finished, np.array([0.7]), np.array([0.05]))[0] == pytest.approx(0.841345, abs=1e-6)
    losses = LearningCurves([[0.3], [0.1], [0.2]], "down")
    assert rule.threshold(losses) == pytest.approx(0.25)
    assert rule.probability(losses, np.array([0.3]), np.array([0.05]))[0] == pytest.approx(0.841345, abs=1e-6)
    assert StoppingRule(nth_best=4).probability(finished, np.array([0.0]), np.array([1.0]))[0] == 0.0


@given(st.floats(-1, 1), st.floats(0, 1), st.integers(1, 3), st.floats(0, 1))
def test_direction_is_a_sign(mean, std, nth, offset):
    rule = StoppingRule(offset=offset, nth_best=nth)
    values = np.array([[0.1], [0.5], [0.3]])
    up = rule.probability(LearningCurves(values), np.array([mean]), np.array([std]))
    down = rule.probability(LearningCurves(-values, "down"), np.array([-mean]), np.array([std]))
    np.testing.assert_allclose(up, down)


def test_no_spread():
    finished = LearningCurves([[0.5]])
    chances = StoppingRule().probability(finished, np.array([0.4, 0.5, 0.6]), np.zeros(3))
    assert chances.tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_it_stops_the_hopeless(direction):
    rule = trained(direction)
    turn = (lambda v: v) if direction == "up" else (lambda v: 10.0 - v)
    bad, good = rule.decide(turn(curve(0.2))[:4]), rule.decide(turn(curve(0.95))[:4])
    assert bad.stop
    assert bad.probability >= 0.95
    assert "≥ 0.95" in bad.reason
    assert not good.stop
    assert good.predicted == pytest.approx(turn(curve(0.95))[-1], abs=0.05)
    assert rule.predicted_value(turn(curve(0.7))[:6]) == pytest.approx(turn(curve(0.7))[-1], abs=0.05)


def test_it_waits():
    rule = trained(count=29)
    assert rule.decide(curve(0.1)[:4]).reason == "29 of 30 trainings of the burn-in have finished"
    assert rule.predicted_value(curve(0.1)[:4]) == pytest.approx(curve(0.1)[3])
    rule.finish(curve(0.3)[:7])  # Ended early.
    assert not rule.decide(curve(0.1)[:4]).stop
    rule.finish(curve(0.6))
    assert rule.decide(curve(0.1)[:4]).stop
    assert rule.decide([]).reason == "no value yet"
    assert rule.decide(curve(0.1)).reason == "already at the last epoch"
    assert trained(min_epochs=5).decide(curve(0.1)[:4]).reason == "fewer than 5 epochs"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_training_is_stopped_only_on_demand(value):
    values = [*curve(0.6)[:3], value]
    assert not trained().decide(values).stop
    assert trained(stop_diverged=True).decide(values).stop
    # A finite value after it is judged again.
    assert np.isfinite(trained().decide([*values, 0.1]).predicted)


def test_all_alike_or_against_the_direction(caplog):
    rule = EarlyStopping(20, "up", burn_in=10)
    for rate in np.linspace(0.1, 0.5, 12):
        rule.finish([*(0.5 - rate * 0.5 ** T[:-1]), 0.5])
    assert rule.decide(curve(0.1)[:4]).reason == "all finished trainings end at the same value"
    wrong = EarlyStopping(20, "down", burn_in=10)
    for height in np.linspace(0.5, 0.9, 12):
        wrong.finish(curve(height))
    with caplog.at_level(logging.WARNING):
        assert not wrong.decide(curve(0.9)[:4]).stop
        assert "the direction is likely wrong" in wrong.decide(curve(0.9)[:5]).reason
    assert [record.message for record in caplog.records] == [
        "nine in ten finished trainings end worse than they began: the direction is likely wrong ('down'); "
        "nothing is stopped"
    ]


def test_all_diverged():
    rule = EarlyStopping(20, "up", burn_in=10)
    for _ in range(30):
        rule.finish([0.1, float("nan")])
    assert rule.decide(curve(0.1)[:4]).reason == "0 of 10 trainings of the burn-in have finished"


def test_the_state_can_be_saved():
    rule = trained(refit_every=5, count=37)
    other = EarlyStopping(20, "up", SequentialRegression("gp", draws=20), burn_in=30, refit_every=5)
    other.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    for height in (0.3, 0.7, 0.9):
        assert other.decide(curve(height)[:5]) == rule.decide(curve(height)[:5])
    with pytest.raises(DataFileError, match="has format None"):
        other.load_state_dict({})
    with pytest.raises(DataFileError, match=r"of 20 epochs \(up\), the rule of 10 \(up\)"):
        EarlyStopping(10, "up").load_state_dict(rule.state_dict())


def test_threads_share_a_rule():
    rule = EarlyStopping(20, "up", SequentialRegression("gp", draws=20), burn_in=30)
    heights = np.random.default_rng(0).uniform(0.5, 0.9, 200)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda height: rule.finish(curve(height)), heights.tolist()))
        assert sorted(rule.finished.final) == pytest.approx(sorted(curve(h)[-1] for h in heights.tolist()))
        fitted = list(pool.map(lambda _: rule.fitted(), range(16)))
    assert len({id(predictor) for predictor in fitted}) == 1


def test_a_fit_is_adopted_only_where_it_belongs():
    rule, same, other = trained(), trained(), trained(count=29)
    other.finish(curve(0.123))
    for taker in (same, other):
        taker.adopt(rule)
    rule.fitted()
    same.adopt(rule)
    other.adopt(rule)
    assert same.fitted() is rule.fitted()
    assert other.fitted() is not rule.fitted()


def test_predictions_without_a_number_stop_nothing():
    class Nothing(LastSeenValue):
        def _predict(self, curves, tau):
            return np.full(len(curves), np.nan), np.full(len(curves), np.inf)

    rule = EarlyStopping(20, "up", Nothing(), burn_in=3)
    for height in (0.5, 0.6, 0.7):
        rule.finish(curve(height))
    assert rule.decide(curve(0.1)[:3]) == (
        False,
        "the prediction is not finite",
        *[pytest.approx(np.nan, nan_ok=True)] * 3,
    )


def test_when_it_fits_again():
    once, often = trained(count=60), trained(count=60, refit_every=20)
    assert len(once.fitted().curves_) == 30
    assert len(often.fitted().curves_) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": 0.4}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"offset": -1.0}, "offset"),
        ({"nth_best": 0}, "nth_best"),
        ({"burn_in": 2}, "burn_in must be at least 3"),
        ({"min_epochs": 0}, "min_epochs"),
        ({"refit_every": 0}, "refit_every"),
        ({"patience": -1}, "patience must not be negative but is -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(20, "up", LastSeenValue(), **arguments)


# -- from the third training on ---------------------------------------------------------------------------------------


def early(**kwargs):
    rule = EarlyStopping(20, "up", **kwargs)
    for height in (0.7, 0.8, 0.9):
        rule.finish(curve(height))
    return rule


def test_what_follows_from_what():
    settings = {
        "default": EarlyStopping(20, "up"),
        "burn-in": EarlyStopping(20, "up", burn_in=30),
        "predictor": EarlyStopping(20, "up", LastSeenValue()),
        "both": EarlyStopping(20, "up", IncrementGP(), burn_in=10, patience=3),
    }
    found = {
        name: (type(rule.predictor), rule.burn_in, rule.refit_every, rule.patience) for name, rule in settings.items()
    }
    assert found == {
        "default": (IncrementGP, 3, 1, 1),
        "burn-in": (SequentialRegression, 30, None, 0),
        "predictor": (LastSeenValue, 40, None, 0),
        "both": (IncrementGP, 10, 1, 3),
    }
    assert EarlyStopping(100, "up").patience == 5


def test_it_starts_with_the_third_training_and_remembers_what_it_stopped():
    rule = EarlyStopping(20, "up")
    for height in (0.8, 0.9):
        rule.finish(curve(height))
    assert rule.decide(curve(0.1)[:9]).reason == "2 of 3 trainings of the burn-in have finished"
    rule = early()
    assert rule.decide(curve(0.3)[:1]).reason == "fewer than 2 epochs"
    assert not rule.decide(curve(0.95)[:9]).stop
    assert len(rule.stopped) == 0
    decisions = [rule.decide(curve(0.3)[:9]) for _ in range(2)]
    assert decisions[0].stop
    assert decisions[1].stop
    assert decisions[0].predicted == decisions[1].predicted
    assert rule.stopped.lengths.tolist() == [9]
    # The same training goes on nevertheless: it is stopped later, and then ends.
    assert rule.decide(curve(0.3)[:12]).stop
    assert rule.stopped.lengths.tolist() == [12]
    rule.finish(curve(0.3))
    assert len(rule.stopped) == 0
    assert len(rule.finished) == 4


def test_the_rule_of_the_paper_remembers_only_what_finished():
    rule = trained()
    assert rule.decide(curve(0.2)[:4]).stop
    rule.note_stopped(LearningCurves(curve(0.3)[None]).truncate(4))
    assert len(rule.stopped) == 0


def test_a_stop_is_confirmed_by_the_prefix_before():
    values = curve(0.95)[:10].copy()
    values[-1] = 0.1  # One bad validation.
    assert early(patience=0).decide(values).stop
    assert not early(patience=1).decide(values).stop
    gaps = [float("nan"), 0.1]
    assert early().decide(gaps).reason == "no finite value before the latest"


def test_stopped_trainings_are_saved():
    rule = early()
    for height in (0.2, 0.3, 0.4):
        assert rule.decide(curve(height)[:9]).stop
    other = EarlyStopping(20, "up")
    state = json.loads(json.dumps(rule.state_dict()))
    other.load_state_dict(state)
    assert other.stopped.equals(rule.stopped)
    assert other.decide(curve(0.75)[:5]) == rule.decide(curve(0.75)[:5])
    del state["stopped"]  # As earlier versions wrote it.
    other.load_state_dict(state)
    assert len(other.stopped) == 0


def test_a_fit_follows_the_stopped_trainings():
    rule = early()
    before = rule.fitted()
    assert rule.fitted() is before
    assert rule.decide(curve(0.3)[:9]).stop
    after = rule.fitted()
    assert after is not before
    other = early()
    other.adopt(rule)
    assert other.fitted() is not after
    other.note_stopped(rule.stopped)
    other.adopt(rule)
    assert other.fitted() is after


def test_curves_that_do_not_fit():
    with pytest.raises(InvalidCurvesError, match=r"20 epochs cannot have values of shape \[21\]"):
        trained().decide(np.zeros(21))
    with pytest.raises(InvalidCurvesError, match="hyperparameters"):
        trained().finish(curve(0.5), hyperparameters={"lr": 0.1})


def test_replay_agrees_with_one_by_one():
    heights = np.random.default_rng(3).uniform(0.4, 0.9, 60)
    curves = LearningCurves(
        heights[:, None] * (1 - np.exp(-0.3 * T)) + 0.01 * np.random.default_rng(4).normal(size=(60, 20))
    )
    order = np.random.default_rng(5).permutation(60)

    def rule():
        return EarlyStopping(20, "up", SequentialRegression("gp", draws=10), burn_in=20, refit_every=4, delta=0.9)

    result = replay(curves, order, rule(), checks=19)
    plain, spent = rule(), []
    for i in order.tolist():
        for tau in range(1, 20):
            if plain.decide(curves.values[i, :tau]).stop:
                spent.append(tau)
                break
        else:
            plain.finish(curves.values[i])
            spent.append(20)
    assert result.epochs.tolist() == spent
    assert result.speedup == pytest.approx(1200 / sum(spent))
    assert result.speedup > 1.5
    assert result.regret == pytest.approx(curves.final.max() - curves.final[result.best])
    with pytest.raises(InvalidCurvesError, match="only finished"):
        replay(curves.truncate(5), order, rule())


def test_published_curves(shared_data):
    curves = read_baker(shared_data / "curves" / "baker2017" / "metaqnn_cifar10.csv")
    order = np.random.default_rng(0).permutation(1000)
    result = replay(curves, order, EarlyStopping(20, "up", SequentialRegression("ols"), delta=0.99), checks=10)
    # The paper: 3 to 6 times.
    assert result.speedup > 3
    assert result.regret < 0.01
