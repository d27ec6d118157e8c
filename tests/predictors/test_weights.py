from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from pyg_nas_np.features import shared_features
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.predictors import weights
from pyg_nas_np.predictors.weights import read_weights, shipped_model, shipped_weights, write_weights
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, MissingWeightsError


@pytest.fixture(scope="module")
def model(toy_space):
    return ConvNP(len(shared_features(toy_space).feature_names))


def test_round_trip(tmp_path, toy_space, model):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {"seed": 0})
    again = read_weights(path, toy_space)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_weights_of_rescaled_features_are_refused(tmp_path, toy_space, model, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {})
    monkeypatch.setattr(weights, "_probe", lambda space: 2 * shared_features(space).table(torch.arange(8)))
    with pytest.raises(InvalidArchitectureError, match="other features of toy"):
        read_weights(path, toy_space)


def test_damaged_and_foreign_files(tmp_path, toy_space, model):
    path = tmp_path / "w.safetensors"
    write_weights(path, model, toy_space, {})
    with pytest.raises(InvalidArchitectureError, match="other features of toy"):
        read_weights(path, NASBench201Space())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFileError, match="corrupt"):
        read_weights(path, toy_space)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataFileError, match="format None"):
        read_weights(path, toy_space)


def test_shipped_weights(toy_space):
    assert "nasbench201" in shipped_weights()
    space = NASBench201Space()
    assert shipped_model(space) is shipped_model(space)
    with pytest.raises(MissingWeightsError, match=r"'toy' \(shipped: .*nasbench201.*pretrain"):
        shipped_model(toy_space)
