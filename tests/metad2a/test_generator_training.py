from __future__ import annotations

import pytest
import torch

from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.generator_training import explain, train_generator
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import InvalidLabelsError

SPACE = NASBench201Space()


def database(count=300, noise=0.5):
    """Accuracies are a difficulty of the classes plus a merit: 3x3 convolutions."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(30, 16, generator=draw)
    classes = torch.stack([torch.randperm(30, generator=draw)[:5] for _ in range(60)])
    dataset = torch.randint(60, (count,), generator=draw)
    arch = torch.randint(len(SPACE), (count,), generator=draw)
    merit = (SPACE.dense(arch).ops == 5).sum(dim=1).double()
    difficulty = 20 * features[classes].mean(dim=1)[:, 0].double()
    accuracy = 50 + difficulty[dataset] + 3 * merit + noise * torch.randn(count, generator=draw)
    pool = FeatureSets(features, torch.arange(31), torch.tensor([0, 30]))
    held_out = torch.zeros(count, dtype=torch.bool)
    data = MetaD2ADatabase(
        SPACE, pool, classes.flatten(), torch.arange(61) * 5, dataset, arch, accuracy.clamp(0, 100).double(), held_out
    )
    return data, difficulty[dataset], merit


def test_explains_accuracies_by_data_set_and_architecture():
    data, difficulty, merit = database()
    dataset, cell = explain(data)
    assert float(torch.corrcoef(torch.stack([cell, merit]))[0, 1]) > 0.9
    assert float(torch.corrcoef(torch.stack([dataset, difficulty]))[0, 1]) > 0.9
    raw = float(torch.corrcoef(torch.stack([data.accuracy, merit]))[0, 1])
    assert raw < 0.8


def test_explain_needs_tuples():
    with pytest.raises(InvalidLabelsError, match="at least two tuples"):
        explain(database()[0][:1])


def test_training_prefers_what_did_well():
    data, _, _ = database()
    model, card = train_generator(data, steps=120, batch_size=64, lr=5e-3, hidden_channels=16, sharpness=2.0)
    draw = torch.Generator().manual_seed(0)
    cells = model.generate(data.sets([0]), 100, generator=draw)
    share = sum(op == "nor_conv_3x3" for cell in cells for op in cell.ops) / 600
    assert share > 0.3  # a fifth by chance
    assert card["tuples"] == 300
    assert card["steps"] == 120


def test_defaults_of_the_process_do_not_matter(other_defaults):
    def train():
        model, _ = train_generator(database(60)[0], steps=2, batch_size=16, hidden_channels=8)
        return model, model.generate(database(60)[0].sets([0]), 20, generator=torch.Generator().manual_seed(0))

    expected, cells = train()
    data = database(60)[0]
    with other_defaults():
        found, _ = train_generator(data, steps=2, batch_size=16, hidden_channels=8)
        again = found.generate(data.sets([0]), 20, generator=torch.Generator().manual_seed(0))
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    assert len(set(again)) == len(cells) == 20
