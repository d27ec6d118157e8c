"""Sequential regression, on made curves and on the published ones."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.curves import LastSeenValue, SequentialRegression
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.readers import read_baker, read_naap440
from pyg_nas_np.curves.regressors import KINDS

DRAWS = {"forest": 1, "boosting": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_it_beats_the_last_value(kind, curves):
    model = SequentialRegression(kind, draws=DRAWS.get(kind, 20)).fit(curves[:60])
    last = LastSeenValue().fit(curves[:60])
    assert model.score(curves[60:], 5) > max(0.6, last.score(curves[60:], 5))
    mean, std = model.predict(curves[60:], 5, return_std=True)
    assert np.ptp(std) < 1e-12
    assert np.mean(np.abs(mean - curves.final[60:]) <= 2.5 * std) >= 0.7


def test_features_by_group(curves):
    scores = {}
    for groups in (("TS",), ("AP",), ("HP",), ("TS", "AP", "HP")):
        model = SequentialRegression("ols", features=groups).fit(curves[:60])
        scores[groups] = model.score(curves[60:], 4)
    # Width sets the height and the learning rate the speed, so that neither alone says all.
    assert scores["TS", "AP", "HP"] > max(scores["TS",], scores["AP",], scores["HP",])
    assert scores["TS", "AP", "HP"] > 0.9


def test_missing_groups_are_skipped(curves):
    plain = LearningCurves(curves.values)
    np.testing.assert_allclose(
        SequentialRegression("ols").fit(plain[:60]).predict(plain[60:], 5),
        SequentialRegression("ols", features=("TS",)).fit(plain[:60]).predict(plain[60:], 5),
    )


def test_logarithms_for_losses(losses):
    logs, raw = (SequentialRegression("ols", log=log).fit(losses[:60]) for log in (None, False))
    assert min(logs.score(losses[60:], 5), raw.score(losses[60:], 5)) > 0.9
    assert (logs.log_, raw.log_) == (True, False)
    mean, std = logs.predict(losses[60:], 5, return_std=True)
    np.testing.assert_allclose(std / mean, logs.sigma(5))
    assert not SequentialRegression("ols").fit(LearningCurves(-losses.values, "down")).log_


def test_sigma_shrinks_with_what_is_seen(curves):
    model = SequentialRegression("ols").fit(curves)
    sigmas = [model.sigma(tau) for tau in (1, 4, 12)]
    assert sigmas == sorted(sigmas, reverse=True)


def dead(curves, rows, until):
    """The given curves, some of which stay at their first value (and recover after a number of epochs)."""
    values = curves.values.copy()
    values[rows, :until] = values[rows, :1]
    return LearningCurves(values, curves.direction, curves.epochs, curves.architecture, curves.hyperparameters)


@pytest.mark.parametrize("kind", ["ols", "gp"])
def test_what_has_not_moved_stays(kind, curves):
    """The training curves hold none that is dead, or one."""
    total = len(curves.epochs)
    running = dead(curves, [70, 75], total)
    for known in (curves[:60], dead(curves, [3], total)[:60]):
        model = SequentialRegression(kind, draws=20).fit(known)
        np.testing.assert_allclose(model.predict(running[[70, 75]], 6), running.values[[70, 75], 0])
        # Four equal values may be chance; the others are predicted as ever, and the dead are no examples for them.
        assert (np.abs(model.predict(running[[70, 75]], 4) - running.values[[70, 75], 0]) > 1e-6).all()
    one_less = SequentialRegression(kind, draws=20).fit(curves[np.delete(np.arange(60), 3)])
    np.testing.assert_allclose(model.predict(curves[60:70], 6), one_less.predict(curves[60:70], 6))
    left = SequentialRegression(kind, draws=20, stuck=None).fit(curves[:60])
    assert (np.abs(left.predict(running[[70, 75]], 6) - running.values[[70, 75], 0]) > 1e-6).all()


def test_where_one_has_recovered_none_is_taken_for_dead(curves):
    running, known = dead(curves, [70], 6), dead(curves, [3, 4], 6)[:60]
    models = [SequentialRegression("ols", stuck=stuck).fit(known) for stuck in (5, None)]
    np.testing.assert_allclose(*(model.predict(running[60:], 6) for model in models))


def test_one_value_before_gaps_is_not_dead(curves):
    values = curves.values[70:71].copy()
    values[:, 1:6] = np.nan
    gaps = LearningCurves(
        values, curves.direction, curves.epochs,
        *({n: c[70:71] for n, c in group.items()} for group in (curves.architecture, curves.hyperparameters)),
    )  # fmt: skip
    models = [SequentialRegression("ols", stuck=stuck).fit(curves[:60]) for stuck in (5, None)]
    np.testing.assert_allclose(*(model.predict(gaps, 6) for model in models))


def test_an_unknown_regressor(curves):
    with pytest.raises(ValueError, match="unknown regressor 'magic'"):
        SequentialRegression("magic").fit(curves)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        SequentialRegression(draws=0).fit(curves)


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("metaqnn_cifar10", "svr-linear", 0.92),
        ("metaqnn_cifar10", "ols", 0.92),
        ("deep_resnets_tinyimagenet", "svr-rbf", 0.75),
        ("deep_resnets_tinyimagenet", "gp", 0.97),
        ("lstm_ptb", "ols", 0.98),
        ("naap440", "ols", 0.96),
    ],
)
def test_published_curves(shared_data, name, kind, least):
    """R² after a quarter of the training, from a hundred curves; the least of what several seeds give."""
    folder = shared_data / "curves"
    if name == "naap440":
        curves = read_naap440(folder / "naap440" / "naap440.csv")
    else:
        curves = read_baker(folder / "baker2017" / f"{name}.csv")
    order = np.random.default_rng(0).permutation(len(curves))
    model = SequentialRegression(kind, draws=30).fit(curves[order[:100]])
    assert model.score(curves[order[100:]], curves.prefix(0.25)) > least


def test_unknown_features_are_named():
    curves = LearningCurves(np.linspace(0, 1, 60).reshape(6, 10), "up")
    with pytest.raises(ValueError, match=r"features must be of TS, .*, got 'x'"):
        SequentialRegression("ols", features=["TS", "x"]).fit(curves)
    with pytest.raises(ValueError, match="fit takes LearningCurves, got ndarray"):
        SequentialRegression("ols").fit(curves.values)
