"""The neural process on curves."""

from __future__ import annotations

import numpy as np
import torch

from pyg_nas_np.curves import CurveConvNP, LastSeenValue
from pyg_nas_np.curves.convnp import CurveProcess, _synthetic


def test_it_beats_the_last_value(curves):
    model, last = CurveConvNP(steps=80).fit(curves[:60]), LastSeenValue().fit(curves[:60])
    assert model.score(curves[60:], 5) > max(0.6, last.score(curves[60:], 5))


def test_the_order_of_the_context_does_not_matter():
    torch.manual_seed(0)
    process = CurveProcess(2)
    places, residual, target = torch.randn(9, 4), torch.randn(9), torch.randn(5, 4)
    prior, order = torch.zeros(5), torch.randperm(9)
    with torch.no_grad():
        first = process(places, residual, target, prior, torch.tensor(0.5))
        second = process(places[order], residual[order], target, prior, torch.tensor(0.5))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


def test_synthetic_curves_are_standardised():
    curves = _synthetic(np.random.default_rng(0).normal(size=(50, 2)), 12, np.random.default_rng(1))
    assert curves.shape == (50, 12)
    np.testing.assert_allclose([curves[:, -1].mean(), curves[:, -1].std()], [0.0, 1.0], atol=1e-6)
