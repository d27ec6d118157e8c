"""Predictors that draw whole functions do so on both scales."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.convnp import FidelityPredictor
from pyg_nas_np.predictors import GPPredictor, JointSamples, RidgePredictor
from pyg_nas_np.spaces import Integer, ParameterSpace

SPACE = ParameterSpace(depth=Integer(1, 20), width=Integer(1, 20))
ARCHS = SPACE.sample(60, torch.Generator().manual_seed(0))
LABELS = [0.01 * arch["depth"] for arch in ARCHS]
MAKERS = [GPPredictor, ConvNPPredictor, FidelityPredictor]


def draw(seed):
    return torch.Generator().manual_seed(seed)


def test_only_some_predictors_have_them():
    assert all(issubclass(maker, JointSamples) for maker in MAKERS)
    assert not issubclass(RidgePredictor, JointSamples)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("maximize", [True, False])
def test_labels_are_the_scores_mapped_back(maker, maximize):
    predictor = maker(SPACE, maximize=maximize).fit(ARCHS[:30], LABELS[:30])
    scores, labels = predictor.sample_scores(ARCHS, 7, draw(1)), predictor.sample(ARCHS, 7, draw(1))
    assert scores.shape == labels.shape == (7, 60)
    torch.testing.assert_close(labels, predictor.transform_.inverse(scores)[0])
    assert not torch.equal(scores, predictor.sample_scores(ARCHS, 7, draw(2)))
    torch.testing.assert_close(predictor.sample_scores(ARCHS, 3), predictor.sample_scores(ARCHS, 3))


@pytest.mark.parametrize("maker", MAKERS)
def test_labels_without_scale(maker):
    predictor = maker(SPACE).fit(ARCHS[:3], [0.5, 0.5, 0.5])
    assert predictor.sample_scores(ARCHS, 2).unique().tolist() == [0.0]
    assert predictor.sample(ARCHS, 2).unique().tolist() == [0.5]
