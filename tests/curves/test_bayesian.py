"""The network over configurations and epochs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pyg_nas_np.curves import BayesianCurveNet, LearningCurves
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


SMALL = LearningCurves(
    np.random.default_rng(0).uniform(0.5, 0.9, (12, 1)) * (1 - np.exp(-0.3 * np.arange(1, 9))),
    hyperparameters={"lr": np.linspace(0.1, 1.0, 12)},
)


def small():
    return BayesianCurveNet(members=1, steps=15).fit(SMALL[:8]).predict(SMALL[8:].truncate(3))


def test_nothing_global_is_moved_and_threads_agree():
    before, expected = torch.get_rng_state(), small()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: small(), range(6)))
    assert all(prediction == pytest.approx(expected, rel=1e-6) for prediction in found)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_global_defaults_do_not_matter(dtype, device):
    expected, old = small(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        found = small()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(old)
    assert found == pytest.approx(expected, rel=1e-6)
