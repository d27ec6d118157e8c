from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyg_nas_np.predictors import Architectures, GCNPredictor, GNNPredictor, MLPEnsemblePredictor, neural
from pyg_nas_np.predictors.neural import NeuralPredictor, ranking_loss, train
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import DeviceUnavailableError

SPACE = NASBench201Space()
INDEX = SPACE.sample_indices(30, torch.Generator().manual_seed(0))
BATCH, Y = SPACE.batch_encode(INDEX), SPACE.batch_flops(INDEX).double() / 1e6
TEST = SPACE.batch_encode(torch.arange(50))
FAST = {"members": 2, "steps": 8, "folds": 2}


def test_ranking_loss_by_hand():
    predicted, z = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    pairs = [math.log1p(math.exp(-3 * 1.5)), math.log1p(math.exp(-3 * 0.5))]
    expected = sum(pairs) / 2 + 0.3 * (0.25 + 1.0 + 0.0) / 3
    assert float(ranking_loss(predicted, z)) == pytest.approx(expected, rel=1e-5)


def test_ranking_loss_without_pairs():
    predicted = torch.tensor([0.5, 0.5], requires_grad=True)
    loss = ranking_loss(predicted, torch.zeros(2))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.3 * 0.25)
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("count", [10, 700])
def test_training_fits_a_line(count):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, generator=generator)
    z = x[:, 0] - 2 * x[:, 1]
    line = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    train(line, (x,), z, nn.functional.mse_loss, steps=300, lr=0.1, weight_decay=0.0, generator=torch.Generator())
    assert not line.training
    torch.testing.assert_close(line[0].weight.detach(), torch.tensor([[1.0, -2.0]]), atol=0.02, rtol=0)


def test_batches_cover_all_before_any_again():
    batches = neural._batches(2 * neural.BATCH + 5, torch.Generator())
    seen = torch.cat([next(batches), next(batches)])
    assert seen.unique().numel() == seen.numel() == 2 * neural.BATCH
    assert next(neural._batches(neural.BATCH, torch.Generator())) == slice(None)


def test_a_seed_decides_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    first, same = (MLPEnsemblePredictor(SPACE, **FAST).fit(BATCH, Y).predict(TEST) for _ in range(2))
    other = MLPEnsemblePredictor(SPACE, random_state=1, **FAST).fit(BATCH, Y).predict(TEST)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", [MLPEnsemblePredictor, GNNPredictor, GCNPredictor])
def test_a_fitted_predictor_is_saved_on_the_cpu(kind, device, tmp_path):
    model = kind(SPACE, channels=8, device=device, **FAST).fit(BATCH, Y)
    expected = model.predict(TEST, return_std=True)
    assert not any(value.is_cuda for network in model.networks_ for value in network.state_dict().values())
    model.save(tmp_path / "p.pt")
    loaded = kind.load(tmp_path / "p.pt", SPACE)
    assert loaded.device == "auto"
    torch.testing.assert_close(loaded.predict(TEST, return_std=True), expected, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="'cuda' or one like 'cuda:1', got 'gpu'"):
        loaded.set_params(device="gpu").predict(TEST)
    with pytest.raises(DeviceUnavailableError, match="'cuda:9999' was asked for"):
        kind(SPACE, device="cuda:9999", **FAST).fit(BATCH, Y)


def test_chunks_do_not_change_predictions(monkeypatch):
    model = GNNPredictor(SPACE, channels=8, **FAST).fit(BATCH, Y)
    whole = model.predict(TEST, return_std=True)
    monkeypatch.setattr(neural, "CHUNK", 7)
    torch.testing.assert_close(model.predict(TEST, return_std=True), whole, rtol=1e-4, atol=1e-3)


class Constant(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.level = nn.Parameter(torch.full((), float(size)))

    def forward(self, x):
        return self.level + 0.0 * x


class ConstantPredictor(NeuralPredictor):
    """Networks that predict the mean of the scores."""

    def _sizes(self, *inputs):
        return {"size": 3}

    def _network(self, **sizes):
        return Constant(**sizes)

    def _tensors(self, *inputs):
        return (inputs[2].float(),)


def test_noise_is_the_error_of_cross_validation():
    model = ConstantPredictor(SPACE, members=2, steps=150, lr=0.3, weight_decay=0.0, folds=10).fit(BATCH, Y)
    # The mean of 27 scores misses the other three; the 30 scores have mean 0 and variance 1.
    assert 1.0 < model.noise_ < 1.2
    single = ConstantPredictor(SPACE, members=1, steps=150, lr=0.3, weight_decay=0.0, folds=30)
    # Leave-one-out, one label at a time: (n / (n - 1))² times the variance.
    assert single.fit(BATCH[:6], Y[:6]).noise_ == pytest.approx((6 / 5) ** 2, rel=1e-2)
    mean, std = model._predict(model._inputs(Architectures(SPACE, torch.arange(4))), True)
    torch.testing.assert_close(mean, torch.zeros(4).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(std, torch.full((4,), model.noise_).double().sqrt(), atol=1e-2, rtol=0)


def test_without_folds_the_variance_is_that_between_the_members():
    model = ConstantPredictor(SPACE, members=2, steps=20, lr=0.01, folds=0).fit(BATCH, Y)
    assert model.noise_ == 0.0


def test_impossible_ensembles_are_refused():
    with pytest.raises(ValueError, match="members must be at least 1 and folds 0 or at least 2, got 0 and 4"):
        MLPEnsemblePredictor(SPACE, members=0).fit(BATCH, Y)
    with pytest.raises(ValueError, match="got 2 and 1"):
        MLPEnsemblePredictor(SPACE, members=2, folds=1).fit(BATCH, Y)


def test_sizes_that_make_no_network_are_refused():
    space = NASBench201Space()
    index = torch.arange(0, 15625, 1000)
    y = space.batch_flops(index).double()
    for kind in (MLPEnsemblePredictor, GNNPredictor):
        for options in ({"steps": -1}, {"channels": 0}, {"members": 0}, {"random_state": 2**64}):
            with pytest.raises(ValueError, match="must be"):
                kind(space, **({"members": 1, "steps": 1, "channels": 4, "folds": 0} | options)).fit(index, y)
