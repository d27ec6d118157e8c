"""The Gaussian process of increments: three curves are enough, and stopped trainings are data."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves import EarlyStopping, IncrementGP, replay
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.readers import read_baker
from pyg_nas_np.utils import InvalidCurvesError

T = 20


def family(count, seed, noise=0.01, **kwargs):
    r"""Curves whose height depends on a feature that a training shows only slowly."""
    rng = np.random.default_rng(seed)
    depth, rate = rng.uniform(0, 1, (count, 1)), rng.uniform(0.1, 0.4, (count, 1))
    height = 0.5 + 0.3 * depth + 0.05 * rng.normal(size=(count, 1))
    values = height * (1 - np.exp(-rate * np.arange(1, T + 1))) + noise * rng.normal(size=(count, T))
    return LearningCurves(values, architecture={"depth": depth[:, 0]}, **kwargs)


@pytest.mark.parametrize("known", [3, 6, 20])
def test_its_uncertainty_holds_from_three_curves_on(known):
    below = []
    for seed in range(30):
        curves = family(known + 20, seed)
        model = IncrementGP().fit(curves[:known])
        for tau in (3, 10):
            part = curves[known:]
            chances = [model.probability_not_better(part[[i]], float(part.final[i]), tau)[0] for i in range(len(part))]
            below += chances
    below = np.array(below)
    outside = (below > 0.95) | (below < 0.05)
    # A tenth for a calibrated model; the twenty predictions from one fit share its errors.
    assert 0.02 < outside.mean() < 0.2


def test_stopped_trainings_sharpen_the_predictions():
    errors = []
    for seed in range(10):
        curves = family(60, seed, noise=0.002)
        test = curves[40:]
        for known in (curves[:4], LearningCurves.concat([curves[:4], curves[4:40].truncate(12)])):
            mean, std = IncrementGP().fit(known).predict(test, 5, return_std=True)
            errors.append([np.square(mean - test.final).mean(), np.square(std).mean()])
    alone, told = np.array(errors)[::2].mean(0), np.array(errors)[1::2].mean(0)
    assert (told < 0.6 * alone).all()
    # What the predictions of stopped trainings lack in certainty is not lost.
    assert 0.4 < told[0] / told[1] < 2.0


def test_stopped_trainings_say_nothing_of_longer_prefixes():
    curves = family(40, 0)
    alone, told = (
        IncrementGP().fit(known)
        for known in (curves[:5], LearningCurves.concat([curves[:5], curves[5:30].truncate(6)]))
    )
    np.testing.assert_allclose(alone.predict(curves[30:], 8), told.predict(curves[30:], 8))
    assert not np.allclose(alone.predict(curves[30:], 4), told.predict(curves[30:], 4))


def test_losses_are_seen_as_logarithms():
    up = family(40, 1)
    losses = LearningCurves(np.exp(-up.values), "down", architecture=up.architecture)
    a, b = IncrementGP().fit(up[:10]), IncrementGP().fit(losses[:10])
    np.testing.assert_allclose(b.predict(losses[10:], 6), np.exp(-a.predict(up[10:], 6)), rtol=1e-6)
    np.testing.assert_allclose(
        a.probability_not_better(up[10:], 0.7, 6), b.probability_not_better(losses[10:], np.exp(-0.7), 6), rtol=1e-6
    )


def test_a_stuck_training_is_predicted_to_stay_and_spoils_no_fit():
    curves = family(30, 2)
    dead = LearningCurves(np.zeros((1, T)), architecture={"depth": np.array([0.5])})
    with_dead, without = IncrementGP().fit(LearningCurves.concat([curves[:6], dead])), IncrementGP().fit(curves[:6])
    np.testing.assert_allclose(with_dead.predict(curves[6:], 8), without.predict(curves[6:], 8))
    assert with_dead.predict(dead, 8)[0] == 0.0


def test_rows_do_not_depend_on_each_other():
    curves = family(30, 3)
    model = IncrementGP().fit(LearningCurves.concat([curves[:5], curves[5:20].truncate(9)]))
    together = model.probability_not_better(curves[20:], 0.7, 6)
    alone = [model.probability_not_better(curves[[i]], 0.7, 6)[0] for i in range(20, 30)]
    np.testing.assert_allclose(together, alone, rtol=1e-8)


def test_many_stopped_trainings_are_cut_to_the_longest():
    curves = family(300, 4)
    known = [curves[:4], curves[4:204].truncate(3), curves[204:234].truncate(11), curves[234:244].truncate(1)]
    model = IncrementGP().fit(LearningCurves.concat(known))
    assert len(model.cut_) == 64
    assert sorted(set(model.cut_.tolist())) == [3, 11]
    assert (model.cut_ == 11).sum() == 30
    assert np.isfinite(model.predict(curves[250:], 2)).all()


def test_gaps_and_divergence():
    curves = family(20, 5)
    values = curves.values.copy()
    values[0, 3] = values[6, 1] = np.nan
    values[7, 2] = -np.inf
    values[6:9, 8:] = np.nan
    given = curves.with_values(values)
    model = IncrementGP().fit(given[:9])
    assert len(model.stopped_) == 2
    assert np.isfinite(model.predict(curves[9:], 4)).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="draws must be at least 1 but is 0"):
        IncrementGP(draws=0).fit(family(5, 0))
    with pytest.raises(InvalidCurvesError, match="needs 3 curves"):
        IncrementGP().fit(LearningCurves.concat([family(2, 0), family(9, 1).truncate(5)]))


def test_few_published_trainings(shared_data):
    curves = read_baker(shared_data / "curves" / "baker2017" / "metaqnn_cifar10.csv")
    results = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(curves))[:30]
        results.append(replay(curves, order, EarlyStopping(20, "up")))
    assert np.median([result.speedup for result in results]) > 2
    assert np.median([result.regret for result in results]) == 0.0
