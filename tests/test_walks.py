"""The walks through the rooms, as CONTRIBUTING lists them: nothing is computed twice, no graph is built in vain."""

from __future__ import annotations

from collections import Counter
from weakref import WeakValueDictionary

import pytest
import torch

from pyg_nas_np import ConvNPPredictor, NASBench201
from pyg_nas_np.features import MetaFeatures, RandomNetworks
from pyg_nas_np.predictors import GPPredictor
from pyg_nas_np.search import PredictorSearch
from pyg_nas_np.spaces import NASBench201Space, registry, space_by_name

CONTEXT = torch.arange(0, 15625, 400)


@pytest.fixture
def rows(monkeypatch):
    """Counts the rows of descriptors computed from now on, by kind; no space is shared with earlier tests."""
    monkeypatch.setattr(registry, "_SHARED", WeakValueDictionary())
    computed: Counter[str] = Counter()

    def counted(kind, name):
        compute = getattr(kind, name)

        def method(self, archs, *args):
            computed[kind.__name__] += len(archs)
            return compute(self, archs, *args)

        monkeypatch.setattr(kind, name, method)

    counted(MetaFeatures, "_raw")
    counted(RandomNetworks, "_values")
    return computed


def test_a_data_set_its_space_by_name_and_all_predictors_share_one_table(rows, tmp_path):
    dataset = NASBench201(tmp_path)
    assert dataset.space is space_by_name("nasbench201")
    y = dataset.space.batch_flops(CONTEXT).double()
    ConvNPPredictor().fit(dataset[CONTEXT], y).predict(dataset)
    # Both know the space by a sample, have one table of it, and compute the context on its own.
    assert rows["MetaFeatures"] <= 2 * 15625 + len(CONTEXT)
    assert rows["RandomNetworks"] <= 2 * 15625 + len(CONTEXT)
    rows.clear()
    GPPredictor(space_by_name("nasbench201")).fit(CONTEXT, y).predict(torch.arange(15625))
    ConvNPPredictor(dataset.space).fit(CONTEXT, y).predict(dataset)
    assert sum(rows.values()) <= 4 * len(CONTEXT)


def test_a_search_computes_the_space_once_and_builds_no_graph(rows, monkeypatch):
    space = space_by_name("nasbench201")
    cost = space.batch_flops()
    search = PredictorSearch(space, GPPredictor(space), initial=5)

    def unwanted(*_):
        raise AssertionError("a graph was built")

    for name in ("encode", "batch_encode", "decode", "batch_decode"):
        if hasattr(NASBench201Space, name):
            monkeypatch.setattr(NASBench201Space, name, unwanted)
    for _ in range(3):
        proposed = search.ask(5)
        search.tell(proposed, cost[[space.index(arch) for arch in proposed]].double())
        rows["told"] += len(proposed)
    told = rows.pop("told")
    assert rows["MetaFeatures"] <= 2 * 15625 + 3 * told
