"""The network over configurations and epochs."""

from __future__ import annotations

import numpy as np
import torch

from pyg_nas_np.curves import BayesianCurveNet
from pyg_nas_np.curves.bayesian import CurveBasisNet


def test_the_curve_of_a_configuration():
    net = CurveBasisNet(3).eval()
    mean, std = net(torch.randn(5, 3), torch.linspace(0.1, 1.0, 7))
    assert mean.shape == std.shape == (5, 7)
    assert bool((std > 0).all())


def test_it_learns_from_configurations_alone(curves):
    """One epoch seen says little; the features say the rest."""
    model = BayesianCurveNet(members=2, steps=120).fit(curves[:60])
    mean = model.predict(curves[60:], 1)
    assert np.corrcoef(mean, curves.final[60:])[0, 1] > 0.7
    state = torch.get_rng_state()
    model.predict(curves[60:62], 1)
    assert torch.equal(state, torch.get_rng_state())
