from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from pyg_nas_np.convnp.level_kernels import AlongLevels, LowerNoise, Shared
from pyg_nas_np.predictors.kernels import ARD, Kernel, Linear, LogPrior, Stationary, Tied
from pyg_nas_np.utils import seeded

UNIT = LogPrior(0.0, 1.0)
PLACE, NUMBER = 3, 4
KERNELS: dict[str, Kernel] = {
    **{
        f"along-{type(kernel).__name__}": AlongLevels(kernel, PLACE)
        for kernel in (Stationary([0, 2]), Linear([0, 2]), ARD([0, 1]), Tied([0, [1, 2]]), Shared(NUMBER, UNIT, -1.0))
    },
    "shared": Shared(NUMBER, UNIT, unknown=-1.0),
    "levels": Shared(PLACE, UNIT),
    "noise": LowerNoise(PLACE, UNIT),
}
each = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


def points() -> torch.Tensor:
    x = torch.randn(9, 3, generator=seeded(0), dtype=torch.float64)
    places = torch.tensor([-1.0, -1, -1, -0.4, -0.4, 0, 0, 0, 0], dtype=torch.float64)
    numbers = torch.tensor([0.0, 1, 2, 0, 1, 0, 3, -1, -1], dtype=torch.float64)
    return torch.cat([x, places.unsqueeze(1), numbers.unsqueeze(1)], dim=1)


def hyperparameters(kernel: Kernel) -> torch.Tensor:
    return 0.4 * torch.randn(len(kernel.priors), generator=seeded(1), dtype=torch.float64)


@each
def test_gradients_are_those_of_the_covariance(kernel: Kernel) -> None:
    x, theta = points(), hyperparameters(kernel)
    weights = torch.randn(9, 9, generator=seeded(2), dtype=torch.float64)
    weights = weights + weights.t()
    statistics = kernel.statistics(x)
    gradient = kernel.covariance(statistics, theta)[1](weights)

    def weighted(values: object) -> float:
        covariance = kernel.covariance(statistics, torch.as_tensor(values))[0]
        return float((weights * covariance).sum())

    torch.testing.assert_close(gradient, torch.from_numpy(approx_fprime(theta.numpy(), weighted)), rtol=1e-4, atol=1e-4)


@each
def test_rows_see_the_points_as_the_points_see_each_other(kernel: Kernel) -> None:
    x, theta = points(), hyperparameters(kernel)
    covariance = kernel.covariance(kernel.statistics(x), theta)[0]
    torch.testing.assert_close(covariance.diagonal(), kernel.diagonal(x, theta))
    others = ~torch.eye(9, dtype=torch.bool)
    torch.testing.assert_close(kernel(x, x, theta)[others], covariance[others])
    assert bool((torch.linalg.eigvalsh(covariance) > -1e-9).all())


@pytest.mark.parametrize("name", ["along-Linear", "along-Shared", "shared", "levels", "noise"])
def test_draws_have_the_covariance(name: str) -> None:
    kernel, x = KERNELS[name], points()
    theta = hyperparameters(kernel)
    draw = kernel.draw(theta, 5_000, seeded(3), 64)
    values = draw(x)
    sample = values @ values.t() / values.size(1)
    torch.testing.assert_close(sample, kernel.covariance(kernel.statistics(x), theta)[0], rtol=0.15, atol=0.15)
    if name == "shared":
        known = x[:, NUMBER] >= 0
        torch.testing.assert_close(draw(x)[known], values[known])


@settings(max_examples=25, deadline=None)
@given(st.floats(-1.0, 3.0), st.floats(-3.0, 1.0), st.floats(-1.0, -0.05))
def test_an_effect_may_change_its_sign(slope: float, own: float, place: float) -> None:
    kernel = AlongLevels(Linear([0]), 1)
    theta = torch.tensor([0.0, slope, own], dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0], [1.0, place]], dtype=torch.float64)
    covariance = kernel(x, x, theta)
    torch.testing.assert_close(covariance[0, 1], torch.tensor(1.0 + slope * place, dtype=torch.float64))
    torch.testing.assert_close(kernel.from_top(x[:1], place, theta), covariance[:1, 1])
    assert bool(covariance[1, 1] * covariance[0, 0] >= covariance[0, 1].square() - 1e-12)


def test_what_nobody_measured_shares_nothing() -> None:
    x = points()
    kernel = KERNELS["shared"]
    value = kernel(x[-2:], x, torch.zeros(1, dtype=torch.float64))
    assert not bool(value.any())
