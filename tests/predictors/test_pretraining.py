from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from pyg_nas_np import ConvNPPredictor, pretrain
from pyg_nas_np.features import shared_features
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.predictors.pretraining import MetaTraining
from pyg_nas_np.tasks import SyntheticTasks, additive_gp_prior


def test_training_is_seeded_and_improves(tmp_path, toy_space):
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    models = [pretrain(toy_space, path, max_steps=25, batch_size=4, seed=3, progress=False) for path in paths]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    with safe_open(paths[0], framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    assert (card["space"], card["seed"], card["steps"], card["tables"]) == ("toy", 3, 25, "none")

    features = shared_features(toy_space)
    table = features.table()
    batch = SyntheticTasks(
        table, additive_gp_prior(features.feature_groups), rank_gauss, num_context=(4, 64), num_target=64, seed=99
    ).batch(0)
    fresh = ConvNP(table.size(1), list(features.feature_groups.values()))
    with torch.no_grad():
        before, after = (float(MetaTraining(m).training_step(batch, 0)) for m in (fresh, models[0]))
    assert after < before


def test_own_space_with_own_weights(tmp_path, toy_space):
    path = tmp_path / "toy.safetensors"
    pretrain(toy_space, path, max_steps=2, batch_size=2, progress=False)
    y = shared_features(toy_space).table()[:, 0]
    graphs = toy_space.batch_encode()
    predictor = ConvNPPredictor(toy_space, weights=path).fit(toy_space.batch_encode(torch.arange(0, 128, 4)), y[::4])
    assert predictor.score(graphs, y) > 0.5
    with pytest.raises(LookupError, match="toy"):
        ConvNPPredictor(toy_space).fit(graphs, y)
