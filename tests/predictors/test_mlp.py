from __future__ import annotations

import torch

from pyg_nas_np.predictors import MLPEnsemblePredictor
from pyg_nas_np.predictors.inputs import live_cells
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space

FAST = {"members": 2, "steps": 40, "folds": 2}


def test_columns_of_the_benchmarks():
    """Four operations on live paths of up to three; BANANAS counts 364 paths of NAS-Bench-101."""
    space = NASBench201Space()
    model = MLPEnsemblePredictor(space)
    model.space_ = space
    assert model._sizes(*live_cells(space, torch.arange(100))) == {"max_length": 3, "num_columns": 1 + 4 + 16 + 64}
    space = NASBench101Space()
    model.space_ = space
    cells = space.dense()
    chain = torch.zeros(7, 7, dtype=torch.bool)
    chain[range(6), range(1, 7)] = True
    longest = (cells.adjacency == chain).flatten(1).all(dim=1).nonzero().flatten()[:2]
    assert model._sizes(*live_cells(space, longest)) == {"max_length": 5, "num_columns": 364}


def test_dead_paths_do_not_count(toy_space):
    index = torch.arange(0, 128, 3)
    model = MLPEnsemblePredictor(toy_space, **FAST)
    model.fit(toy_space.batch_encode(index), toy_space.batch_flops(index))
    (encoded,) = model._tensors(*live_cells(toy_space, torch.tensor([toy_space.index(("zero", "zero", 3)), 0])))
    assert encoded[0].sum() == 0
    assert encoded[1].sum() > 0


def test_cells_longer_than_all_labelled_ones():
    """A network fitted on cells of up to four nodes reads larger ones."""
    space = NASBench101Space()
    sizes = space.dense().num_nodes
    small, large = (sizes <= 4).nonzero().flatten()[:30], (sizes == 7).nonzero().flatten()[:30]
    model = MLPEnsemblePredictor(space, **FAST).fit(space.batch_encode(small), space.batch_flops(small))
    assert model.sizes_["max_length"] == 2
    assert model.predict(space.batch_encode(large)).isfinite().all()
