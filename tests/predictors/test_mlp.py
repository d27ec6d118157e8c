from __future__ import annotations

import torch

from pyg_nas_np.predictors import MLPEnsemblePredictor
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space

FAST = {"members": 2, "steps": 40, "folds": 2}


def test_columns_of_the_benchmarks():
    # NAS-Bench-201 has four operations on live paths of one to three; BANANAS counts 364 paths of NAS-Bench-101.
    for space, columns in ((NASBench201Space(), 1 + 4 + 16 + 64), (NASBench101Space(), 364)):
        index = torch.arange(len(space))[:: len(space) // 20]
        longest = space.dense(index).num_nodes.max() - 2
        model = MLPEnsemblePredictor(space, **FAST)
        model.space_ = space
        sizes = model._sizes(index)
        assert sizes["max_length"] == longest
        if columns == 364:
            assert sizes["num_columns"] == columns
        else:
            # Six inner nodes, no path of more than three: longer blocks stay empty.
            encoded = model._encoding(int(longest))(space.dense(index))
            assert encoded[:, columns:].sum() == 0


def test_dead_paths_do_not_count(toy_space):
    index = torch.arange(0, 128, 3)
    model = MLPEnsemblePredictor(toy_space, **FAST)
    model.fit(toy_space.batch_encode(index), toy_space.batch_flops(index))
    (encoded,) = model._tensors(torch.tensor([toy_space.index(("zero", "zero", 3)), 0]))
    assert encoded[0].sum() == 0
    assert encoded[1].sum() > 0


def test_cells_longer_than_all_labelled_ones(toy_space):
    """A network fitted on cells of two nodes reads larger ones."""
    space = NASBench101Space()
    sizes = space.dense().num_nodes
    small, large = (sizes <= 4).nonzero().flatten()[:30], (sizes == 7).nonzero().flatten()[:30]
    model = MLPEnsemblePredictor(space, **FAST).fit(space.batch_encode(small), space.batch_flops(small))
    assert model.sizes_["max_length"] == 2
    assert model.predict(space.batch_encode(large)).isfinite().all()
