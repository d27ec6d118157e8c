from __future__ import annotations

import pytest
import torch

from pyg_nas_np.predictors.additive_gp import AdditiveGP

COLUMNS = {"first": [0], "rest": [1, 2]}


def data(n: int = 12):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, x[:, 0].sin() + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)


def test_leave_one_out_equals_refitting_without_the_point():
    x, z = data()
    process = AdditiveGP(COLUMNS).fit(x, z)
    mean, std = process.leave_one_out()
    for i in range(len(z)):
        rest = torch.arange(len(z)) != i
        alone = AdditiveGP(COLUMNS).condition(x[rest], z[rest], process.theta).predict(x[i : i + 1])
        torch.testing.assert_close(mean[i : i + 1], alone[0])
        torch.testing.assert_close(std[i : i + 1], alone[1])


def test_fitting_beats_the_prior_means():
    x, z = data(60)
    test, truth = x[40:], z[40:]
    fitted, _ = AdditiveGP(COLUMNS).fit(x[:40], z[:40]).predict(test)
    prior, _ = AdditiveGP(COLUMNS).condition(x[:40], z[:40]).predict(test)
    assert (fitted - truth).square().mean() < (prior - truth).square().mean()


def test_unknown_kernel():
    with pytest.raises(ValueError, match="periodic"):
        AdditiveGP(COLUMNS, "periodic")
