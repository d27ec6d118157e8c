from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, Matern, WhiteKernel

from pyg_nas_np.predictors import additive_gp
from pyg_nas_np.predictors.additive_gp import KERNELS, AdditiveGP, kernel_, negative_log_posterior

COLUMNS = {"first": [0], "rest": [1, 2]}
ORACLES = {"rbf": RBF(), "matern32": Matern(nu=1.5), "matern52": Matern(nu=2.5)}
kernels = pytest.mark.parametrize("kernel", list(KERNELS))
linear_groups = pytest.mark.parametrize("linear", [(), ("rest",), ("first", "rest")])


def data(n: int = 12):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, x[:, 0].sin() + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)


class Columns(Kernel):
    """A scikit-learn kernel that sees some columns only."""

    def __init__(self, kernel, columns):
        self.kernel, self.columns = kernel, columns

    def __call__(self, X, Y=None, eval_gradient=False):
        return self.kernel(X[:, self.columns], None if Y is None else Y[:, self.columns])

    def diag(self, X):
        return self.kernel.diag(X[:, self.columns])

    def is_stationary(self):
        return False


@kernels
@given(st.floats(0.01, 8.0))
@settings(max_examples=20)
def test_kernel_slopes_equal_autograd(kernel, distance):
    log_length = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value, slope = KERNELS[kernel](torch.tensor(distance, dtype=torch.float64) / log_length.exp())
    (expected,) = torch.autograd.grad(value, log_length)
    torch.testing.assert_close(slope.detach(), expected, rtol=1e-8, atol=1e-12)


@kernels
def test_kernels_equal_scikit_learn(kernel):
    x = data(6)[0]
    np.testing.assert_allclose(KERNELS[kernel](torch.cdist(x, x))[0].numpy(), ORACLES[kernel](x.numpy()), atol=1e-7)


@kernels
def test_the_kernel_alone_is_that_with_its_slope(kernel):
    distances = torch.linspace(0.0, 9.0, 50, dtype=torch.float64)
    expected = KERNELS[kernel](distances)[0]
    torch.testing.assert_close(kernel_(kernel, distances), expected)
    torch.testing.assert_close(distances, expected)  # in place


@kernels
@pytest.mark.parametrize(("radial", "linear"), [(2, 0), (2, 1), (1, 2), (0, 2)])
def test_gradient_of_the_posterior_equals_finite_differences(kernel, radial, linear):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(radial + linear, 12, 3, generator=generator, dtype=torch.float64)
    z = torch.randn(12, generator=generator, dtype=torch.float64)
    size = 2 * radial + linear + 1
    theta = 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)
    centre, scale = torch.zeros(size).double(), torch.full((size,), 1.3).double()
    distances, products = torch.cdist(x[:radial], x[:radial]), x[radial:] @ x[radial:].mT

    def loss(values):
        return negative_log_posterior(values, distances, products, z, KERNELS[kernel], centre, scale)

    numeric = approx_fprime(theta.numpy(), lambda values: loss(torch.from_numpy(values))[0], 1e-7)
    np.testing.assert_allclose(loss(theta)[1].numpy(), numeric, rtol=1e-4, atol=1e-4)


@kernels
@linear_groups
def test_posterior_equals_scikit_learn(kernel, linear):
    x, z = data()
    theta = torch.tensor([0.3, -0.2, 0.4, -0.7, -2.0][len(linear) :], dtype=torch.float64)
    process = AdditiveGP(COLUMNS, kernel, linear=linear).condition(x, z, theta)
    values = process.hyperparameters
    total = WhiteKernel(values["noise"])
    for name, columns in COLUMNS.items():
        part = DotProduct(0.0)
        if name not in linear:
            part = type(ORACLES[kernel])(**ORACLES[kernel].get_params())
            # Distances do not grow with the number of features.
            part = part.set_params(length_scale=values["length_scale"][name] * len(columns) ** 0.5)
        total = total + ConstantKernel(values["variance"][name]) * Columns(part, columns)
    oracle = GaussianProcessRegressor(total, optimizer=None, alpha=0).fit(x.numpy(), z.numpy())
    test = torch.randn(9, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean, std = oracle.predict(test.numpy(), return_std=True)
    own_mean, own_std = process.predict(test)
    np.testing.assert_allclose(own_mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(own_std.numpy(), std, atol=1e-6)
    # Without noise: of the function, not of a measurement.
    torch.testing.assert_close(process.variance(test), own_std.square() - values["noise"])
    assert process.predict(test, return_std=False)[1] is None


@linear_groups
def test_single_precision_tells_the_same(linear):
    x, z = data(40)
    process = AdditiveGP(COLUMNS, linear=linear).fit(x, z)
    test = torch.randn(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean, std = process.predict(test.float())
    assert mean.dtype == std.dtype == torch.float64
    torch.testing.assert_close((mean, std), process.predict(test.float().double()), rtol=1e-4, atol=1e-4)


def test_columns_need_not_lie_side_by_side():
    x, z = data()
    expected = AdditiveGP({"first": [0, 1], "rest": [2]}, linear=("rest",)).fit(x, z).predict(x)
    apart = (
        AdditiveGP({"first": [0, 2], "rest": [1]}, linear=("rest",)).fit(x[:, [0, 2, 1]], z).predict(x[:, [0, 2, 1]])
    )
    torch.testing.assert_close(apart, expected)


@linear_groups
def test_leave_one_out_equals_refitting_without_the_point(linear):
    x, z = data()
    process = AdditiveGP(COLUMNS, linear=linear).fit(x, z)
    mean, std = process.leave_one_out()
    for i in range(len(z)):
        rest = torch.arange(len(z)) != i
        alone = AdditiveGP(COLUMNS, linear=linear).condition(x[rest], z[rest], process.theta).predict(x[i : i + 1])
        torch.testing.assert_close(mean[i : i + 1], alone[0])
        torch.testing.assert_close(std[i : i + 1], alone[1])


@kernels
@linear_groups
def test_samples_have_the_moments_of_the_posterior(kernel, linear):
    x, z = data(6)
    process = AdditiveGP(COLUMNS, kernel, linear=linear).condition(x, z)
    test = torch.cat([x[:2], torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)])
    # Random features are drawn once a call: the moments are those over calls.
    draws = torch.cat([process.sample(test, 250, torch.Generator().manual_seed(seed)) for seed in range(12)])
    assert draws.shape == (3000, 6)
    mean, std = process.predict(test)
    cross = process._cross(test)
    prior = AdditiveGP(COLUMNS, kernel, linear=linear).condition(test, torch.zeros(6).double(), process.theta)
    covariance = prior._cross(test) - cross @ torch.cholesky_solve(cross.t(), process._factor)
    torch.testing.assert_close(covariance.diagonal(), process.variance(test))
    assert float(((draws.mean(dim=0) - mean) / std).abs().max()) < 0.1
    size = covariance.diagonal().sqrt()
    deviation = (torch.cov(draws.t()) - covariance) / (size.unsqueeze(1) * size)
    assert float(deviation.abs().max()) < 0.15


def test_samples_are_functions():
    x, z = data()
    process = AdditiveGP(COLUMNS, linear=("rest",)).fit(x, z)
    twice = torch.cat([x, x])
    draws = process.sample(twice, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws[:, :12], draws[:, 12:])
    assert torch.equal(draws, process.sample(twice, 3, torch.Generator().manual_seed(0)))
    assert float(draws.std(dim=0).min()) > 0


@linear_groups
def test_fitting_finds_a_mode(linear):
    fitted = AdditiveGP(COLUMNS, linear=linear).fit(*data(40))
    centre, scale = fitted._prior()
    parts = fitted._split(fitted.x)
    distances = torch.stack([torch.cdist(p, p) for p in parts]) if parts else fitted.x.new_empty(0, 40, 40)
    parts = fitted._linear(fitted.x)
    products = torch.stack([p @ p.t() for p in parts]) if parts else fitted.x.new_empty(0, 40, 40)
    loss, gradient = negative_log_posterior(
        fitted.theta, distances, products, fitted.z, KERNELS["matern32"], centre, scale
    )
    assert float(gradient.abs().max()) < 0.05
    assert loss < negative_log_posterior(centre, distances, products, fitted.z, KERNELS["matern32"], centre, scale)[0]


def test_fitting_beats_the_prior_means():
    x, z = data(60)
    test, truth = x[40:], z[40:]
    fitted, _ = AdditiveGP(COLUMNS).fit(x[:40], z[:40]).predict(test)
    prior, _ = AdditiveGP(COLUMNS).condition(x[:40], z[:40]).predict(test)
    assert (fitted - truth).square().mean() < (prior - truth).square().mean()


def test_a_linear_function_needs_a_linear_kernel():
    x, _ = data(30)
    z = x @ torch.tensor([0.0, 2.0, -1.0]).double()
    far = 10 * torch.randn(20, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    process = AdditiveGP(COLUMNS, linear=("rest",)).fit(x, z)
    truth = far @ torch.tensor([0.0, 2.0, -1.0]).double()
    assert float(torch.corrcoef(torch.stack([process.predict(far)[0], truth]))[0, 1]) > 0.99
    assert list(process.hyperparameters["variance"]) == ["first", "rest"]
    assert list(process.hyperparameters["length_scale"]) == ["first"]


def test_chunks_do_not_change_anything(monkeypatch):
    x, z = data(30)
    process = AdditiveGP(COLUMNS, linear=("rest",)).fit(x, z)

    def everything():
        return (*process.predict(x), process.sample(x, 2, torch.Generator().manual_seed(0)))

    whole = everything()
    monkeypatch.setattr(additive_gp, "CHUNK", 7)
    torch.testing.assert_close(everything(), whole)


def test_equal_points_and_two_points():
    x, z = data()
    process = AdditiveGP(COLUMNS, linear=("rest",)).fit(torch.cat([x, x]), torch.cat([z, z + 0.1]))
    assert process.predict(x)[0].isfinite().all()
    assert process.leave_one_out()[1].isfinite().all()
    mean, std = AdditiveGP(COLUMNS, linear=("rest",)).fit(x[:2], z[:2]).predict(x)
    assert mean.isfinite().all()
    assert bool((std > 0).all())


def test_invalid_arguments():
    with pytest.raises(ValueError, match="periodic"):
        AdditiveGP(COLUMNS, "periodic")
    with pytest.raises(ValueError, match="linear names 'last'; groups: first, rest"):
        AdditiveGP(COLUMNS, linear=("rest", "last"))
