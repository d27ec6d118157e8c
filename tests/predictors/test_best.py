from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.predictors import GPPredictor, RidgePredictor
from pyg_nas_np.predictors.best import probability_best
from pyg_nas_np.spaces import Integer, ParameterSpace

SPACE = ParameterSpace(depth=Integer(1, 20), width=Integer(1, 20))
ARCHS = SPACE.sample(60, torch.Generator().manual_seed(0))
DEPTHS = [float(arch["depth"]) for arch in ARCHS]


@pytest.fixture(scope="module", params=[GPPredictor, RidgePredictor])
def predictor(request):
    return request.param(SPACE).fit(ARCHS[:40], DEPTHS[:40])


def test_probabilities_are_those_of_samples(predictor):
    chance = probability_best(predictor, ARCHS, num=500)
    assert chance.shape == (60,)
    assert float(chance.sum()) == pytest.approx(1.0)
    assert float(chance.min()) >= 0.0
    best = [i for i, depth in enumerate(DEPTHS) if depth >= max(DEPTHS) - 2]
    assert float(chance[best].sum()) > 0.9


def test_smallest_labels_win_where_they_are_best():
    gp = GPPredictor(SPACE, maximize=False).fit(ARCHS[:40], DEPTHS[:40])
    assert DEPTHS[int(probability_best(gp, ARCHS).argmax())] <= 2


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_order_of_the_rows_changes_nothing_much(order):
    gp = GPPredictor(SPACE).fit(ARCHS[:12], DEPTHS[:12])
    first = probability_best(gp, ARCHS[:12])
    second = probability_best(gp, [ARCHS[i] for i in order])
    # Two independent sets of samples.
    torch.testing.assert_close(second, first[list(order)], atol=0.06, rtol=0.0)


def test_rows_of_one_architecture_share_nothing(predictor):
    once, twice = probability_best(predictor, ARCHS), probability_best(predictor, [*ARCHS, *ARCHS[:5]])
    torch.testing.assert_close(twice[60:], twice[:5])
    torch.testing.assert_close(twice[:60], once)


def test_architectures_outside_the_shortlist_cannot_win(predictor, monkeypatch):
    monkeypatch.setattr("pyg_nas_np.predictors.best.SHORTLIST", 3)
    chance = probability_best(predictor, ARCHS)
    assert int((chance > 0).sum()) <= 3
    assert float(chance.sum()) == pytest.approx(1.0)


def test_labels_without_scale_leave_all_alike():
    gp = GPPredictor(SPACE).fit(ARCHS[:3], [1.0, 1.0, 1.0])
    assert probability_best(gp, ARCHS[:4]).tolist() == [0.25] * 4


def test_wrong_arguments(predictor):
    with pytest.raises(ValueError, match="num"):
        probability_best(predictor, ARCHS, num=0)
    with pytest.raises(ValueError, match="no architecture"):
        probability_best(predictor, [])
