from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.gaussian_process.kernels import RBF, Matern

from pyg_nas_np.predictors import kernels as module
from pyg_nas_np.predictors.kernels import (
    ARD,
    LENGTH,
    RADIAL,
    VARIANCE,
    Linear,
    LogPrior,
    Precomputed,
    Stationary,
    Tied,
    additive_kernels,
    ard_length,
    radial_,
)

ORACLES = {"rbf": RBF(), "matern32": Matern(nu=1.5), "matern52": Matern(nu=2.5)}
COLUMNS = [0, 2, 3]
kinds = pytest.mark.parametrize("kind", list(RADIAL))


def inner(a, b):
    return (a[:, :2] + 1) @ (b[:, :2] + 1).t()


KERNELS = {
    **{f"stationary-{kind}": Stationary(COLUMNS, kind) for kind in RADIAL},
    "stationary-fixed": Stationary(COLUMNS, length=0.8),
    "linear": Linear(COLUMNS),
    **{f"tied-{kind}": Tied(COLUMNS, kind) for kind in RADIAL},
    **{f"tied-blocks-{kind}": Tied([0, [2, 3], [3]], kind) for kind in RADIAL},
    **{f"ard-{kind}": ARD(COLUMNS, kind) for kind in RADIAL},
    "precomputed": Precomputed(inner, LogPrior(0.0, 1.0)),
    "precomputed-fixed": Precomputed(inner),
}
each = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


def points(n: int = 9, seed: int = 0):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hyperparameters(kernel):
    size = len(kernel.priors)
    return 0.4 * torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@kinds
@given(st.floats(0.01, 8.0))
@settings(max_examples=20)
def test_radial_slopes_equal_autograd(kind, distance):
    log_length = torch.zeros((), dtype=torch.float64, requires_grad=True)
    r = torch.tensor(distance, dtype=torch.float64) / log_length.exp()
    value, weight = RADIAL[kind](r)
    (expected,) = torch.autograd.grad(value, log_length)
    torch.testing.assert_close((weight * r * r).detach(), expected, rtol=1e-8, atol=1e-12)


@kinds
def test_radial_functions_equal_scikit_learn(kind):
    x = points(6)
    np.testing.assert_allclose(RADIAL[kind](torch.cdist(x, x))[0].numpy(), ORACLES[kind](x.numpy()), atol=1e-7)


@kinds
def test_the_value_alone_is_that_with_its_slope(kind):
    distances = torch.linspace(0.0, 9.0, 50, dtype=torch.float64)
    expected = RADIAL[kind](distances)[0]
    torch.testing.assert_close(radial_(kind, distances), expected)
    torch.testing.assert_close(distances, expected)  # in place


@kinds
def test_covariances_are_those_of_their_definitions(kind):
    x, y, oracle = points(), points(4, 2), ORACLES[kind]
    length, variance = 0.7, 1.9
    theta = torch.tensor([length, variance]).double().log()
    parts = [a[:, COLUMNS].numpy() for a in (x, y)]
    wide = oracle.__class__(**{**oracle.get_params(), "length_scale": length * math.sqrt(3)})
    np.testing.assert_allclose(Stationary(COLUMNS, kind)(x, y, theta), variance * wide(*parts), atol=1e-7)
    fixed = Stationary(COLUMNS, kind, length=length)
    torch.testing.assert_close(fixed(x, y, theta[1:]), Stationary(COLUMNS, kind)(x, y, theta))
    narrow = oracle.__class__(**{**oracle.get_params(), "length_scale": length})
    tied = np.mean([narrow(*(part[:, [d]] for part in parts)) for d in range(3)], axis=0)
    np.testing.assert_allclose(Tied(COLUMNS, kind)(x, y, theta), variance * tied, atol=1e-7)
    mixed = (Stationary([0], kind)(x, y, theta) + Stationary([2, 3], kind)(x, y, theta)) / 2
    np.testing.assert_allclose(Tied([0, [2, 3]], kind)(x, y, theta), mixed, atol=1e-7)
    lengths = np.array([0.3, 1.0, 4.0])
    anisotropic = oracle.__class__(**{**oracle.get_params(), "length_scale": lengths})
    theta = torch.from_numpy(np.log([*lengths, variance]))
    np.testing.assert_allclose(ARD(COLUMNS, kind)(x, y, theta), variance * anisotropic(*parts), atol=1e-7)


@each
def test_covariance_among_points_cross_and_diagonal_agree(kernel):
    x, theta = points(40), hyperparameters(kernel)
    value = kernel.covariance(kernel.statistics(x), theta)[0]
    torch.testing.assert_close(kernel(x, x, theta), value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(kernel.diagonal(x, theta), value.diagonal(), rtol=1e-6, atol=1e-6)
    assert float(torch.linalg.eigvalsh(value).min()) > -1e-8
    assert len(kernel.names) == len(kernel.priors) == theta.numel()


@each
def test_cross_covariance_adds_to_what_is_there_in_single_precision(kernel):
    x, y, theta = points(7).float(), points(5, 3).float(), hyperparameters(kernel)
    out = torch.ones(7, 5)
    kernel.cross(y, theta)(x, out)
    torch.testing.assert_close(out, 1 + kernel(x.double(), y.double(), theta).float(), rtol=1e-4, atol=1e-4)


@each
def test_pullback_equals_finite_differences(kernel):
    x, theta = points(), hyperparameters(kernel)
    sensitivity = torch.randn(9, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    sensitivity = sensitivity + sensitivity.t()
    statistics = kernel.statistics(x)
    pulled = kernel.covariance(statistics, theta)[1](sensitivity)
    assert pulled.shape == theta.shape

    def loss(values):
        return float((kernel.covariance(statistics, torch.from_numpy(values))[0] * sensitivity).sum())

    if theta.numel():
        np.testing.assert_allclose(pulled.numpy(), approx_fprime(theta.numpy(), loss, 1e-7), rtol=1e-5, atol=1e-5)


@kinds
@pytest.mark.parametrize("name", ["tied", "ard"])
def test_pullback_equals_autograd(name, kind):
    """Written out by columns, and differentiated by PyTorch."""
    kernel, x = (Tied if name == "tied" else ARD)(COLUMNS, kind), points()[:, COLUMNS]
    theta = hyperparameters(kernel).requires_grad_()
    squares = ((x.unsqueeze(1) - x) ** 2 + 1e-24) / theta[:-1].exp().square()
    values = RADIAL[kind](squares.sqrt())[0].mean(dim=2) if name == "tied" else RADIAL[kind](squares.sum(2).sqrt())[0]
    sensitivity = inner(points(9, 5), points(9, 5))
    (expected,) = torch.autograd.grad((theta[-1].exp() * values * sensitivity).sum(), theta)
    value, pullback = kernel.covariance(kernel.statistics(points()), theta.detach())
    torch.testing.assert_close(value, theta[-1].exp().detach() * values.detach(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(pullback(sensitivity), expected, rtol=1e-6, atol=1e-6)


def test_blocks_of_columns_do_not_change_anything(monkeypatch):
    kernel, x, theta = Tied(range(5)), points(), torch.tensor([0.1, 0.3]).double()
    value, pullback = kernel.covariance(kernel.statistics(x), theta)
    monkeypatch.setattr(module, "_BLOCK", 200)
    again, pullback_again = kernel.covariance(kernel.statistics(x), theta)
    torch.testing.assert_close((again, pullback_again(value)), (value, pullback(value)))


@each
def test_draws_have_the_covariance_of_the_kernel(kernel):
    x, theta = points(5), hyperparameters(kernel)
    if isinstance(kernel, Precomputed):
        with pytest.raises(NotImplementedError, match="Precomputed has no random features"):
            kernel.draw(theta, 1, torch.Generator(), 8)
        return
    parts = [kernel.draw(theta, 200, torch.Generator().manual_seed(seed), 256) for seed in range(25)]
    draws = torch.cat([part(x) for part in parts], dim=1)
    expected = kernel(x, x, theta)
    size = expected.diagonal().sqrt()
    deviation = (draws @ draws.t() / draws.size(1) - expected) / (size.unsqueeze(1) * size)
    assert float(deviation.abs().max()) < 0.1
    # One draw is a function: rows may come in any order and company.
    torch.testing.assert_close(parts[0](x[[3, 1]]), parts[0](x)[[3, 1]])


def test_priors():
    assert Stationary([0]).priors == [LENGTH, VARIANCE]
    assert Stationary([0], length=2.0).priors == [VARIANCE]
    assert ARD(range(4)).priors == [ard_length(4)] * 4 + [VARIANCE]
    assert ard_length(16).mean - ard_length(4).mean == pytest.approx(math.log(2))
    assert Tied(range(7)).priors == [LENGTH, VARIANCE]
    wide = LogPrior(0.0, 3.0)
    assert ARD([1, 2], length=wide, variance=wide).priors == [wide] * 3


def test_additive_kernels():
    made = additive_kernels({"a": [0], "b": [1, 2], "c": [3]}, "rbf", linear=("a",))
    assert {name: type(kernel) for name, kernel in made.items()} == {"b": Stationary, "c": Stationary, "a": Linear}
    for make in (Stationary, Tied, ARD):
        with pytest.raises(ValueError, match="kernel must be one of rbf, matern32, matern52, got 'periodic'"):
            make([0], "periodic")
    with pytest.raises(ValueError, match="periodic"):
        additive_kernels({"a": [0]}, "periodic")
    with pytest.raises(ValueError, match="linear names 'last'; groups: first, rest"):
        additive_kernels({"first": [0], "rest": [1]}, linear=("rest", "last"))
