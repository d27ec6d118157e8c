from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch

from pyg_nas_np.predictors import GCNPredictor, GNNPredictor, Predictor, as_architectures
from pyg_nas_np.spaces import NASBench201Space

SPACE = NASBench201Space()
INDEX = SPACE.sample_indices(40, torch.Generator().manual_seed(0))
BATCH, Y = SPACE.batch_encode(INDEX), SPACE.batch_flops(INDEX).double() / 1e6
FAST = {"members": 1, "steps": 25, "folds": 2, "channels": 16}
both = pytest.mark.parametrize("cls", [GNNPredictor, GCNPredictor])


@both
@pytest.mark.parametrize("labels", ["rank", "robust"])
def test_duplicates_with_two_labels(cls, labels):
    graphs = SPACE.batch_encode(torch.tensor([6111, 6111, 6111, 10, 10]))
    model = cls(SPACE, labels=labels, **{**FAST, "steps": 80}).fit(graphs, [94.0, 94.0, 94.0, 80.0, 80.0])
    best, worst = model.predict(SPACE.batch_encode(torch.tensor([6111, 10]))).tolist()
    assert best > worst
    assert 79.0 < worst < 87.0 < best < 95.0


@both
def test_two_labels(cls):
    model = cls(SPACE, **FAST).fit(BATCH[:2], [90.0, 91.0])
    mean, std = model.predict(BATCH, return_std=True)
    assert mean.isfinite().all()
    assert bool((std > 0).all())


def test_equal_live_parts_get_equal_predictions():
    """Edge 1 → 2 is dead where nothing enters node 1 and node 2 leads nowhere."""
    names = [
        "|none~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|none~2|",
        "|none~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|none~2|",
    ]
    graphs = Batch.from_data_list([SPACE.encode(SPACE.from_str(name)) for name in names])
    model = GNNPredictor(SPACE, **FAST).fit(BATCH, Y)
    inputs = model._inputs(as_architectures(graphs, SPACE))
    for part in inputs[:3]:
        torch.testing.assert_close(part[0], part[1])


def test_a_loaded_network_needs_no_space_until_it_predicts(tmp_path):
    model = GNNPredictor(SPACE, **FAST).fit(BATCH, Y)
    model.save(tmp_path / "gnn.pt")
    loaded = Predictor.load(tmp_path / "gnn.pt")
    assert [n.encoder.num_meta for n in loaded.networks_] == [len(model.feature_names_)]
    loaded.space_ = SPACE
    assert torch.equal(loaded.predict(BATCH), model.predict(BATCH))


def test_third_party_space(toy_space):
    index = torch.arange(0, 128, 3)
    for cls in (GNNPredictor, GCNPredictor):
        model = cls(toy_space, **{**FAST, "steps": 60}).fit(toy_space.batch_encode(index), toy_space.batch_flops(index))
        assert model.score(toy_space.batch_encode(), toy_space.batch_flops()) > 0.6
