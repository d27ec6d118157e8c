from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, Matern, WhiteKernel

from pyg_nas_np.predictors import gaussian_process as module
from pyg_nas_np.predictors.gaussian_process import JITTER, GaussianProcess, stable_cholesky
from pyg_nas_np.predictors.kernels import (
    ARD,
    NOISE,
    RADIAL,
    Linear,
    LogPrior,
    Precomputed,
    Stationary,
    Tied,
    additive_kernels,
)
from pyg_nas_np.utils import SingularCovarianceError

COLUMNS = {"first": [0], "rest": [1, 2]}
ORACLES = {"rbf": RBF(), "matern32": Matern(nu=1.5), "matern52": Matern(nu=2.5)}
KERNELS = {
    "radial": additive_kernels(COLUMNS),
    "mixed": additive_kernels(COLUMNS, "matern52", linear=("rest",)),
    "linear": additive_kernels(COLUMNS, linear=("first", "rest")),
    "tied": {"tied": Tied(range(3)), "slope": Linear([1])},
    "ard": {"ard": ARD(range(3)), "slope": Linear([1])},
}
kinds = pytest.mark.parametrize("kind", list(RADIAL))
linear_groups = pytest.mark.parametrize("linear", [(), ("rest",), ("first", "rest")])
each = pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS.keys())


def data(n: int = 12):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, x[:, 0].sin() + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)


def elsewhere(n: int = 9):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def trend(x):
    return 2.0 - 0.7 * x[:, 0]


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


# -- fitting ----------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("profiled", [False, True])
def test_gradient_of_the_posterior_equals_finite_differences(kernels, profiled):
    x, z = data()
    gp = GaussianProcess(kernels, profiled=profiled)
    generator = torch.Generator().manual_seed(1)
    theta = gp.prior_mean + 0.3 * torch.randn(gp.prior_mean.numel(), generator=generator, dtype=torch.float64)
    statistics = gp.statistics(x)

    def loss(values):
        return gp.negative_log_posterior(statistics, z, torch.from_numpy(values))

    numeric = approx_fprime(theta.numpy(), lambda values: loss(values)[0], 1e-7)
    np.testing.assert_allclose(loss(theta.numpy())[1].numpy(), numeric, rtol=1e-4, atol=1e-4)


@each
def test_the_posterior_of_hyperparameters_is_density_times_prior(kernels):
    x, z = data()
    gp = GaussianProcess(kernels)

    def expected(theta):
        gp.assume(theta)
        covariance = gp.covariance(x, x) + theta[-1].exp() * torch.eye(12, dtype=torch.float64)
        density = torch.distributions.MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance).log_prob(z)
        return density + torch.distributions.Normal(gp.prior_mean, gp.prior_std).log_prob(theta).sum()

    first, second = gp.prior_mean, gp.prior_mean + 0.4
    found = [gp.negative_log_posterior(gp.statistics(x), z, theta)[0] for theta in (first, second)]
    assert found[0] - found[1] == pytest.approx(float(expected(second) - expected(first)), rel=1e-6)


@each
def test_fitting_finds_a_mode(kernels):
    x, z = data(40)
    gp = GaussianProcess(kernels)
    theta, log_posterior = gp.maximize(x, z)
    loss, gradient = gp.negative_log_posterior(gp.statistics(x), z, theta)
    assert loss == pytest.approx(-log_posterior, rel=1e-6)
    assert float(gradient.abs().max()) < 0.05
    assert loss < gp.negative_log_posterior(gp.statistics(x), z, gp.prior_mean)[0]
    assert torch.equal(gp.fit(x, z).theta, theta)


def test_fitting_beats_the_prior_means():
    x, z = data(60)
    test, truth = x[40:], z[40:]
    fitted, _ = GaussianProcess(KERNELS["radial"]).fit(x[:40], z[:40]).predict(test)
    prior, _ = GaussianProcess(KERNELS["radial"]).condition(x[:40], z[:40]).predict(test)
    assert (fitted - truth).square().mean() < (prior - truth).square().mean()


@pytest.mark.parametrize("name", ["radial", "mixed", "ard"])
def test_a_start_near_the_mode_leads_to_it_in_fewer_steps(name, monkeypatch):
    x, z = data(60)
    calls = []
    original = GaussianProcess.negative_log_posterior
    monkeypatch.setattr(
        GaussianProcess, "negative_log_posterior", lambda self, *args: calls.append(1) or original(self, *args)
    )
    near = GaussianProcess(KERNELS[name]).fit(x[:58], z[:58]).theta
    calls.clear()
    cold = GaussianProcess(KERNELS[name]).fit(x, z)
    steps = len(calls)
    warm = GaussianProcess(KERNELS[name]).fit(x, z, start=near)
    assert len(calls) - steps < steps
    torch.testing.assert_close(warm.predict(elsewhere()), cold.predict(elsewhere()), rtol=0.0, atol=5e-3)


def test_a_profiled_scale_is_the_most_likely_one():
    """Kernels of variance 1, scaled as a whole: no other scale has a higher density."""
    x, z = data(20)
    gp = GaussianProcess({"only": Stationary([0, 1, 2], length=1.0)}, profiled=True).condition(x, 5 * z)
    covariance = gp.covariance(x) + gp.theta[-1].exp() * torch.eye(20, dtype=torch.float64)

    def density(scale):
        zero = torch.zeros(20, dtype=torch.float64)
        return float(torch.distributions.MultivariateNormal(zero, scale * covariance).log_prob(5 * z))

    assert density(gp.scale) > max(density(0.95 * gp.scale), density(1.05 * gp.scale))
    small = GaussianProcess(gp.kernels, profiled=True).condition(x, z)
    for ours, theirs in zip(gp.predict(elsewhere()), small.predict(elsewhere()), strict=True):
        torch.testing.assert_close(ours, 5 * theirs)
    torch.testing.assert_close(gp.leave_one_out()[1], 5 * small.leave_one_out()[1])
    # Targets without a size do not make it zero.
    assert GaussianProcess(gp.kernels, profiled=True).fit(x, 0 * z).predict(x)[1].isfinite().all()


@pytest.mark.parametrize("profiled", [False, True])
@pytest.mark.parametrize("noise", [NOISE, LogPrior(-2.0, 1.5)])
@pytest.mark.parametrize("rank", [1, 12])
def test_noise_alone_is_at_its_global_optimum(profiled, noise, rank):
    """Kernels without hyperparameters; of a rank of one, most eigenvalues are zero up to rounding."""
    x, z = data()
    features = x[:, :1] if rank == 1 else torch.cat([x, x.square(), x.sin(), (2 * x).cos()], dim=1)
    known = Precomputed(lambda a, b: features[a] @ features[b].t())
    gp, rows = GaussianProcess({"known": known}, noise=noise, profiled=profiled), torch.arange(12)
    theta, log_posterior = gp.maximize(rows, z)

    def loss(value):
        return gp.negative_log_posterior(gp.statistics(rows), z, value)

    found, slope = loss(theta)
    assert found == pytest.approx(-log_posterior)
    others = gp.prior_mean + gp.prior_std * torch.linspace(-5, 5, 301, dtype=torch.float64)
    assert found <= min(loss(value.view(1))[0] for value in others) + 1e-9
    assert float(slope.abs()) < 1e-3


@each
def test_fitted_ones_reach_other_processes(kernels):
    gp = GaussianProcess(kernels, mean=trend).fit(*data())
    torch.testing.assert_close(pickle.loads(pickle.dumps(gp)).predict(elsewhere()), gp.predict(elsewhere()))


def test_what_was_fitted_before_leaves_no_trace():
    x, z = data(30)
    fresh, used = (GaussianProcess(additive_kernels(COLUMNS, linear=("rest",))) for _ in range(2))
    used.fit(x[:10], z[:10]).predict(x)
    for ours, theirs in zip(used.fit(x, z).predict(x), fresh.fit(x, z).predict(x), strict=True):
        assert torch.equal(ours, theirs)  # the same code on the same points


def test_a_limit_on_the_points_that_hyperparameters_come_from():
    x, z = data(40)
    few = GaussianProcess(KERNELS["radial"], max_fit=15)
    some = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:15]
    expected = GaussianProcess(KERNELS["radial"]).fit(x[some], z[some]).theta
    torch.testing.assert_close(few.fit(x, z).theta, expected, rtol=1e-3, atol=1e-3)
    assert few.x.size(0) == 40


# -- the posterior ----------------------------------------------------------------------------------------------------


@kinds
@linear_groups
def test_posterior_equals_scikit_learn(kind, linear):
    x, z = data()
    gp = GaussianProcess(additive_kernels(COLUMNS, kind, linear=linear))
    theta = torch.tensor([0.3, -0.2, 0.4, -0.7, -2.0][len(linear) :], dtype=torch.float64)
    values = gp.condition(x, z, theta).hyperparameters
    total = WhiteKernel(values["noise"])
    for name, columns in COLUMNS.items():
        part = DotProduct(0.0)
        if name not in linear:
            part = type(ORACLES[kind])(**ORACLES[kind].get_params())
            # Distances do not grow with the number of features.
            part = part.set_params(length_scale=values["length_scale"][name] * len(columns) ** 0.5)
        total = total + ConstantKernel(values["variance"][name]) * Columns(part, columns)
    oracle = GaussianProcessRegressor(total, optimizer=None, alpha=0).fit(x.numpy(), z.numpy())
    mean, std = oracle.predict(elsewhere().numpy(), return_std=True)
    own_mean, own_std = gp.predict(elsewhere())
    np.testing.assert_allclose(own_mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(own_std.numpy(), std, atol=1e-6)
    # Without noise: of the function, not of a measurement.
    torch.testing.assert_close(gp.variance(elsewhere()), own_std.square() - values["noise"])
    assert gp.predict(elsewhere(), return_std=False)[1] is None


@each
def test_single_precision_tells_the_same(kernels):
    gp, test = GaussianProcess(kernels).fit(*data(40)), elsewhere(50)
    mean, std = gp.predict(test.float())
    assert mean.dtype == std.dtype == torch.float64
    torch.testing.assert_close((mean, std), gp.predict(test.float().double()), rtol=1e-4, atol=1e-4)


def test_columns_need_not_lie_side_by_side():
    x, z = data()
    kernels = [additive_kernels({"a": a, "b": b}, linear=("b",)) for a, b in (([0, 1], [2]), ([0, 2], [1]))]
    expected = GaussianProcess(kernels[0]).fit(x, z).predict(x)
    torch.testing.assert_close(GaussianProcess(kernels[1]).fit(x[:, [0, 2, 1]], z).predict(x[:, [0, 2, 1]]), expected)


@each
@pytest.mark.parametrize("mean", [None, trend])
def test_leave_one_out_equals_refitting_without_the_point(kernels, mean):
    x, z = data()
    gp = GaussianProcess(kernels, mean=mean).fit(x, z)
    held_out = gp.leave_one_out()
    for i in range(len(z)):
        rest = torch.arange(len(z)) != i
        alone = GaussianProcess(kernels, mean=mean).condition(x[rest], z[rest], gp.theta).predict(x[i : i + 1])
        for ours, theirs in zip(held_out, alone, strict=True):
            torch.testing.assert_close(ours[i : i + 1], theirs, rtol=1e-6, atol=1e-6)


@each
def test_targets_differ_from_the_prior_mean_as_the_kernels_say(kernels):
    x, z = data()
    plain, raised = GaussianProcess(kernels), GaussianProcess(kernels, mean=trend)
    plain.fit(x, z)
    raised.fit(x, z + trend(x))
    torch.testing.assert_close(raised.theta, plain.theta, rtol=1e-5, atol=1e-5)
    (mean, std), (expected, expected_std) = raised.predict(elsewhere()), plain.predict(elsewhere())
    torch.testing.assert_close(mean, expected + trend(elsewhere()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(std, expected_std, rtol=1e-5, atol=1e-5)
    draws = [gp.sample(elsewhere(), 2, torch.Generator().manual_seed(0)) for gp in (raised, plain)]
    torch.testing.assert_close(draws[0], draws[1] + trend(elsewhere()), rtol=1e-4, atol=1e-4)
    parts = raised.parts(elsewhere())
    assert list(parts) == list(kernels)
    torch.testing.assert_close(trend(elsewhere()) + sum(parts.values()), mean)


def test_repeated_measurements_are_their_mean():
    x, z = data(6)
    again = torch.cat([x, x[:2], x[:1]]), torch.cat([z, z[:2] + 0.3, z[:1] - 0.6])
    count = torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    mean = z + torch.tensor([-0.1, 0.15, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    gp = GaussianProcess(KERNELS["mixed"])
    expected = gp.condition(*again).predict(elsewhere())
    torch.testing.assert_close(gp.condition(x, mean, repeats=count).predict(elsewhere()), expected)


def test_statistics_may_be_known_already():
    x, z = data()
    gp = GaussianProcess(KERNELS["ard"])
    expected = gp.condition(x, z).leave_one_out()
    torch.testing.assert_close(gp.condition(x, z, statistics=gp.statistics(x)).leave_one_out(), expected)


def test_inputs_may_be_rows_of_anything():
    x, z = data()
    index = torch.arange(12)
    table = Linear([0, 1, 2])(x, x, torch.zeros(1)) + 0.1
    by_index = GaussianProcess({"table": Precomputed(lambda a, b: table[a][:, b])}).condition(index, z)
    weights = (table + NOISE_VARIANCE * torch.eye(12, dtype=torch.float64)).inverse() @ z
    mean, std = by_index.predict(index[:5])
    torch.testing.assert_close(mean, table[:5] @ weights)
    assert bool((std > 0).all())


NOISE_VARIANCE = float(np.exp(NOISE.mean))


@each
def test_samples_have_the_moments_of_the_posterior(kernels):
    x, z = data(6)
    gp = GaussianProcess(kernels).condition(x, z)
    test = torch.cat([x[:2], elsewhere(4)])
    # Random features are drawn once a call: the moments are those over calls.
    draws = torch.cat([gp.sample(test, 250, torch.Generator().manual_seed(seed)) for seed in range(12)])
    assert draws.shape == (3000, 6)
    mean, std = gp.predict(test)
    cross = gp.covariance(test)
    covariance = gp.covariance(test, test) - cross @ torch.cholesky_solve(cross.t(), gp.factor)
    torch.testing.assert_close(covariance.diagonal(), gp.variance(test), rtol=1e-6, atol=1e-6)
    assert float(((draws.mean(dim=0) - mean) / std).abs().max()) < 0.1
    size = covariance.diagonal().sqrt()
    deviation = (torch.cov(draws.t()) - covariance) / (size.unsqueeze(1) * size)
    assert float(deviation.abs().max()) < 0.15


def test_samples_are_functions():
    x, z = data()
    gp = GaussianProcess(KERNELS["mixed"]).fit(x, z)
    twice = torch.cat([x, x])
    draws = gp.sample(twice, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws[:, :12], draws[:, 12:])
    assert torch.equal(draws, gp.sample(twice, 3, torch.Generator().manual_seed(0)))
    assert float(draws.std(dim=0).min()) > 0


def test_a_linear_function_needs_a_linear_kernel():
    x, _ = data(30)
    slope = torch.tensor([0.0, 2.0, -1.0]).double()
    far = 10 * elsewhere(20)
    gp = GaussianProcess(additive_kernels(COLUMNS, linear=("rest",))).fit(x, x @ slope)
    assert float(torch.corrcoef(torch.stack([gp.predict(far)[0], far @ slope]))[0, 1]) > 0.99


def test_hyperparameters_have_names():
    values = GaussianProcess(KERNELS["mixed"]).fit(*data()).hyperparameters
    assert list(values["variance"]) == ["first", "rest"]
    assert list(values["length_scale"]) == ["first"]
    values = GaussianProcess(KERNELS["ard"]).fit(*data()).hyperparameters
    assert len(values["length_scale"]["ard"]) == 3
    assert set(values) == {"length_scale", "variance", "noise"}


@each
def test_chunks_do_not_change_anything(kernels, monkeypatch):
    x, z = data(30)
    gp = GaussianProcess(kernels).fit(x, z)

    def everything():
        return (*gp.predict(x), gp.sample(x, 2, torch.Generator().manual_seed(0)))

    whole = everything()
    monkeypatch.setitem(module.CHUNK, "cpu", 7)
    torch.testing.assert_close(everything(), whole, rtol=1e-6, atol=1e-6)


@each
def test_equal_points_and_two_points(kernels):
    x, z = data()
    gp = GaussianProcess(kernels).fit(torch.cat([x, x]), torch.cat([z, z + 0.1]))
    assert gp.predict(x)[0].isfinite().all()
    assert gp.leave_one_out()[1].isfinite().all()
    mean, std = GaussianProcess(kernels).fit(x[:2], z[:2]).predict(x)
    assert mean.isfinite().all()
    assert bool((std > 0).all())


# -- covariances that have no factor ----------------------------------------------------------------------------------


def test_what_rounding_has_spoilt_gets_jitter():
    root = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    singular = root @ root.t()
    factor = stable_cholesky(singular)
    limit = JITTER[-1] * float(singular.diagonal().mean())
    assert float((factor @ factor.t() - singular).abs().max()) <= 1.01 * limit
    noiseless = torch.tensor([0.0, 0.0, -60.0], dtype=torch.float64)
    x, z = data()
    gp = GaussianProcess({"only": Stationary([0])}).condition(torch.cat([x, x]), torch.cat([z, z]), noiseless)
    assert gp.predict(x)[0].isfinite().all()


def test_a_good_covariance_is_left_alone():
    matrix = torch.eye(4, dtype=torch.float64) + 0.5
    assert torch.equal(stable_cholesky(matrix), torch.linalg.cholesky_ex(matrix)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_inputs_without_a_covariance_are_an_error(value):
    x, z = data()
    x[3, 1] = value
    with pytest.raises(SingularCovarianceError, match="covariance of 12 points is not finite; check the inputs"):
        GaussianProcess(KERNELS["mixed"]).fit(x, z)


def test_what_is_no_kernel_is_an_error():
    index, z = torch.arange(5), torch.randn(5, dtype=torch.float64)
    gp = GaussianProcess({"no": Precomputed(lambda a, b: -10.0 * (a.unsqueeze(1) == b).double())})
    with pytest.raises(SingularCovarianceError, match="covariance of 5 points is not positive definite"):
        gp.fit(index, z)


def test_known_variances_are_noise_of_single_points() -> None:
    x = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(1)
    z = torch.sin(6 * x[:, 0])
    z[3] += 2.0
    variances = torch.zeros(8, dtype=torch.float64)
    variances[3] = 1e6
    gp = GaussianProcess({"x": Stationary([0])}, max_iter=0)
    others = [0, 1, 2, 4, 5, 6, 7]
    ignored = gp.condition(x, z, variances=variances).predict(x)[0]
    without = gp.condition(x[others], z[others]).predict(x)[0]
    torch.testing.assert_close(ignored, without, rtol=1e-4, atol=1e-4)
    fitted = GaussianProcess({"x": Stationary([0])}).fit(x, z, variances)
    unaware = GaussianProcess({"x": Stationary([0])}).fit(x, z)
    assert fitted.hyperparameters["noise"] < unaware.hyperparameters["noise"]


def test_the_gradient_with_known_variances() -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gp = GaussianProcess({"x": Stationary([0, 1])})
    statistics, z, variances = gp.statistics(x), x[:, 0].sin(), x[:, 1].square()
    theta = gp.prior_mean + 0.3
    _, gradient = gp.negative_log_posterior(statistics, z, theta, variances)
    for i in range(len(theta)):
        step = torch.zeros_like(theta)
        step[i] = 1e-5
        high, low = (gp.negative_log_posterior(statistics, z, theta + s * step, variances)[0] for s in (1, -1))
        assert float(gradient[i]) == pytest.approx((high - low) / 2e-5, rel=1e-4)
