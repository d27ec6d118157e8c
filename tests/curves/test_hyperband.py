"""Hyperband and its fast form, on recorded curves and live."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyg_nas_np.curves import FastHyperband, Hyperband, RacingHyperband, RecordedRun, SequentialRegression
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.readers import read_baker

OLS = SequentialRegression("ols")


def recorded(count=200, epochs=27, seed=0, direction="up"):
    rng = np.random.default_rng(seed)
    height, rate = rng.uniform(0.3, 0.9, (count, 1)), rng.uniform(0.05, 0.4, (count, 1))
    values = height * (1 - np.exp(-rate * np.arange(1, epochs + 1))) + 0.002 * rng.normal(size=(count, epochs))
    return LearningCurves(values if direction == "up" else 1.0 - values, direction)


def test_the_plan_of_the_paper():
    """Li et al. (2018), table 1: R = 81, eta = 3."""
    plan = [[tuple(rung) for rung in bracket] for bracket in Hyperband(81, "up").brackets()]
    assert plan == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert Hyperband(81, "up").num_configs == 143
    assert Hyperband(1, "up").brackets() == [[(1, 1)]]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_recorded(direction):
    curves = recorded(direction=direction)
    search = Hyperband(27, direction)
    started = []

    def start(number):
        started.append(number)
        return RecordedRun(curves, number)

    result = search.search(start)
    assert started == list(range(search.num_configs))
    assert result.epochs == sum(len(v) for v in result.curves.values())
    full = [c for c, v in result.curves.items() if len(v) == 27]
    assert result.value == curves.values[result.best, -1]
    assert result.value == (max if direction == "up" else min)(curves.values[full, -1])
    # A tenth of the best: above nine in ten of all.
    assert (curves.sign * curves.final[: search.num_configs] <= curves.sign * result.value).mean() > 0.8


class Live:
    """A training that cannot go back."""

    def __init__(self, height):
        self.height, self.values = height, []

    def train_to(self, epoch):
        assert epoch >= len(self.values), "a training was asked to go back"
        while len(self.values) < epoch:
            self.values.append(self.height * (1 - 0.8 ** (len(self.values) + 1)))
        return list(self.values)


@pytest.mark.parametrize(
    "search", [Hyperband(9, "up"), FastHyperband(9, "up", models=5), RacingHyperband(9, "up", models=5)]
)
def test_live(search):
    heights = np.random.default_rng(0).uniform(0.3, 0.9, search.num_configs)
    for _ in range(2):
        runs = {}

        def start(number, runs=runs):
            runs[number] = Live(heights[number])
            return runs[number]

        result = search.search(start)
        assert sum(len(run.values) for run in runs.values()) == result.epochs
        assert result.value == pytest.approx(heights[result.best] * (1 - 0.8**9))


@pytest.mark.parametrize("make", [Hyperband, lambda *a: RacingHyperband(*a, predictor=OLS, models=5)])
def test_diverged_trainings_do_not_go_on(make):
    curves = recorded()
    values = curves.values.copy()
    values[::2, 0] = np.nan
    broken = LearningCurves(np.where(np.isnan(values), -np.inf, values))
    search = make(27, "up")
    for _ in range(3):
        result = search.search(lambda number: RecordedRun(broken, number))
        assert result.best % 2 == 1
    assert np.isnan(search.search(lambda number: Nans()).value)


class Nans:
    def train_to(self, epoch):
        return [float("nan")] * epoch


def test_fast_saves_and_finds_as_much():
    curves = recorded(600)
    rng = np.random.default_rng(1)
    plain = Hyperband(27, "up")
    fast = FastHyperband(27, "up", predictor=SequentialRegression("ols"), models=30, kappa=0.1)
    spent, values = [], []
    for _ in range(6):
        order = rng.permutation(600)
        results = [s.search(lambda number, o=order: RecordedRun(curves, int(o[number]))) for s in (plain, fast)]
        spent.append([r.epochs for r in results])
        values.append([r.value for r in results])
    assert np.mean(values, 0)[1] > np.mean(values, 0)[0] - 0.02
    assert np.sum(spent, 0)[0] > 1.2 * np.sum(spent, 0)[1]
    # The predictors of earlier searches serve the later ones.
    assert spent[-1][1] < spent[0][1]


def test_the_best_predictions_are_continued_where_too_few_get_there():
    heights = np.r_[np.linspace(0.7, 0.9, 40), np.linspace(0.1, 0.3, 40)]
    curves = LearningCurves(heights[:, None] * (1 - 0.8 ** np.arange(1, 10)))
    fast = FastHyperband(9, "up", predictor=SequentialRegression("ols"), models=10, kappa=0.5)
    order = np.random.default_rng(0).permutation(40)
    for _ in range(3):
        fast.search(lambda number: RecordedRun(curves, int(order[number])))
    # Now all are far below what has been seen: half of each first rung is trained to its end, and it is the best half.
    result = fast.search(lambda number: RecordedRun(curves, 40 + number))
    start = 0
    for bracket in fast.brackets():
        rung = bracket[0]
        ends = [len(result.curves[c]) >= rung.epochs for c in range(start, start + rung.configs)]
        if rung.epochs > 1:
            count = math.ceil(rung.configs / 2)
            assert ends == [False] * (rung.configs - count) + [True] * count
        start += rung.configs


def test_kappa_one_stops_nothing():
    curves = recorded()
    fast = FastHyperband(27, "up", predictor=SequentialRegression("ols"), models=5, kappa=1.0)
    plain = Hyperband(27, "up").search(lambda number: RecordedRun(curves, number))
    assert fast.search(lambda number: RecordedRun(curves, number)).epochs == plain.epochs


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_race_saves_and_finds_as_much(direction):
    curves = recorded(600, direction=direction)
    rng = np.random.default_rng(1)
    plain, racing = Hyperband(27, direction), RacingHyperband(27, direction, predictor=OLS, models=10)
    spent, values = [], []
    for _ in range(6):
        order = rng.permutation(600)
        results = [s.search(lambda number, o=order: RecordedRun(curves, int(o[number]))) for s in (plain, racing)]
        spent.append([r.epochs for r in results])
        values.append([curves.sign * r.value for r in results])
    assert np.diff(values, axis=1).min() > -0.02
    assert spent[-1][0] > 2 * spent[-1][1]


def test_nothing_races_before_there_are_models():
    curves = recorded()
    searches = Hyperband(27, "up"), RacingHyperband(27, "up", predictor=OLS, models=10_000)
    results = [search.search(lambda number: RecordedRun(curves, number)) for search in searches]
    assert [len(v) for v in results[0].curves.values()] == [len(v) for v in results[1].curves.values()]
    assert (results[0].best, results[0].value) == (results[1].best, results[1].value)


def test_one_training_gets_to_the_end_of_every_search():
    """Ends that have nothing to do with the values before: the races at the end of a rung and of all disagree."""
    rng = np.random.default_rng(0)
    curves = LearningCurves(rng.uniform(size=(300, 27)))
    racing = RacingHyperband(27, "up", predictor=OLS, models=5, delta=0.5)
    for _ in range(10):
        order = rng.permutation(300)
        result = racing.search(lambda number, o=order: RecordedRun(curves, int(o[number])))
        assert result.value == max(v[-1] for v in result.curves.values() if len(v) == 27)


@pytest.mark.parametrize("make", [FastHyperband, RacingHyperband])
def test_descriptions_help(make):
    """Curves whose first half is noise, while a description tells where they end."""
    rng = np.random.default_rng(0)
    width = rng.uniform(size=300)
    values = rng.uniform(size=(300, 27))
    values[:, -1] = width
    epochs = []
    for described in ({"width": width}, {}):
        curves = LearningCurves(values, architecture=described)
        fast = make(27, "up", predictor=OLS, models=20)
        order = np.random.default_rng(1).permutation(300)
        for _ in range(6):
            result = fast.search(lambda number, o=order, c=curves: RecordedRun(c, int(o[number])))
        epochs.append(result.epochs)
    assert epochs[0] < epochs[1]


def test_published_curves(shared_data):
    curves = read_baker(shared_data / "curves" / "baker2017" / "metaqnn_cifar10.csv")
    order = np.random.default_rng(0).permutation(1000)
    result = Hyperband(20, "up").search(lambda number: RecordedRun(curves, int(order[number])))
    assert result.value > 0.75


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hyperband(0, "up"), "max_epochs"),
        (lambda: Hyperband(9, "up", eta=1.0), "eta"),
        (lambda: Hyperband(9, "max"), "'up' or 'down' but is 'max'"),
        (lambda: FastHyperband(9, "up", kappa=0.0), "kappa"),
        (lambda: FastHyperband(9, "up", models=1), "models"),
        (lambda: FastHyperband(9, "up", delta=0.2), "delta"),
        (lambda: RacingHyperband(9, "up", delta=0.2), "delta"),
        (lambda: RacingHyperband(9, "up", models=1), "models"),
        (lambda: RacingHyperband(9, "up", checks=0), "checks"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
