from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from pyg_nas_np import ConvNPPredictor, pretrain
from pyg_nas_np.features import shared_features
from pyg_nas_np.nn import ConvNP
from pyg_nas_np.predictors.convnp import base_moments
from pyg_nas_np.predictors.gp import feature_columns
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.tasks import SyntheticTasks, additive_gp_prior


def test_training_is_seeded_and_learns_its_tasks(tmp_path, toy_space):
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    models = [pretrain(toy_space, path, num_tasks=16, max_steps=40, seed=3, progress=False) for path in paths]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    with safe_open(paths[0], framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    assert (card["space"], card["seed"], card["steps"], card["tables"]) == ("toy", 3, 40, "none")

    table, columns = shared_features(toy_space).table(), feature_columns(toy_space)
    seen = SyntheticTasks(
        table,
        additive_gp_prior(columns),
        rank_gauss,
        base_moments(columns),
        num_context=(4, 64),
        num_target=64,
        batch_size=8,
        seed=3,
    ).batch(0)
    with torch.no_grad():
        losses = []
        for model in (ConvNP(table.size(1)), models[0]):
            mean, std = model(seen)
            losses.append(-float(torch.distributions.Normal(mean, std).log_prob(seen.z_target).mean()))
    assert losses[1] < losses[0]


def test_own_space_with_own_weights(tmp_path, toy_space):
    path = tmp_path / "toy.safetensors"
    pretrain(toy_space, path, num_tasks=4, max_steps=2, batch_size=2, progress=False)
    y = shared_features(toy_space).table()[:, 0]
    graphs = toy_space.batch_encode()
    predictor = ConvNPPredictor(toy_space, weights=path).fit(toy_space.batch_encode(torch.arange(0, 128, 4)), y[::4])
    assert predictor.score(graphs, y) > 0.5
    with pytest.raises(LookupError, match="toy"):
        ConvNPPredictor(toy_space).fit(graphs, y)
