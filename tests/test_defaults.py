"""Neither the default type and device of the process nor its random state change a result, and none is changed."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pyg_nas_np.convnp.registry import PREDICTORS
from pyg_nas_np.features import Descriptors, MetaFeatures, RandomNetworks
from pyg_nas_np.features.path_encoding import PathEncoding
from pyg_nas_np.predictors import GCNPredictor, GNNPredictor, MLPEnsemblePredictor
from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space, NASBenchGraphSpace

SMALL = {
    "mlp": {"members": 1, "steps": 3, "folds": 2},
    "gcn": {"channels": 8, "steps": 3, "folds": 2},
    "gnn": {"channels": 8, "members": 1, "steps": 3, "folds": 2},
}
SPACES = [NASBench201Space, NASBench101Space, NASBenchGraphSpace, MobileNetV3Space]
SETTINGS = ["float64", "bfloat16", "meta"]


@contextlib.contextmanager
def defaults(setting):
    if setting == "meta":
        with torch.device("meta"):
            yield
        return
    torch.set_default_dtype(getattr(torch, setting))
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def assert_same(one, other):
    assert (one.dtype, one.device) == (other.dtype, other.device)
    torch.testing.assert_close(one, other)


def everything(make):
    """What a new space gives of a few architectures."""
    space, generator = make(), torch.Generator().manual_seed(0)
    archs = space.sample(4, generator)
    batch = space.batch_encode(archs)
    data = space.encode(archs[0])
    tensors = [*space.dense(archs), batch.x, batch.edge_index, batch.batch, batch.ptr, data.x, data.edge_index]
    tensors += [space.batch_num_parameters(archs), space.batch_flops(archs)]
    values = [space.decode(data), space.mutate(archs[0], generator), space.neighbors(archs[0])[:3], archs]
    with contextlib.suppress(NotImplementedError):
        values.append(space.crossover(archs[0], archs[1], generator))
    return tensors, values


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("make", SPACES)
def test_spaces_do_not_depend_on_the_defaults(make, setting):
    expected = everything(make)
    with defaults(setting):
        found = everything(make)
    assert found[1] == expected[1]
    for one, other in zip(found[0], expected[0], strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("setting", SETTINGS)
def test_features_do_not_depend_on_the_defaults(toy_space, setting):
    def tables():
        descriptors = Descriptors(MetaFeatures(toy_space), RandomNetworks(toy_space, num_functions=16, rank=8))
        encoding = PathEncoding(alphabet=(2, 3), max_length=2)
        return [descriptors.table(), descriptors.table([toy_space[5]]), encoding(toy_space.dense([toy_space[7]]))]

    expected = tables()
    with defaults(setting):
        found = tables()
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_do_not_depend_on_the_defaults(name, setting):
    if name == "xgboost":
        pytest.importorskip("xgboost")
    space = NASBench201Space()
    index = torch.arange(24)
    graphs, y = space.batch_encode(index), space.batch_flops(index).double()

    def predictions():
        model = PREDICTORS[name](space, **SMALL.get(name, {})).fit(graphs[:16], y[:16])
        return model.predict(graphs, return_std=True)

    expected = predictions()
    with defaults(setting):
        found = predictions()
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.device) == (other.dtype, other.device)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_leave_the_random_state_alone(name, tmp_path):
    if name == "xgboost":
        pytest.importorskip("xgboost")
    # A new space: nothing of it is cached.
    space = NASBench201Space()
    index = torch.arange(24)
    graphs, y = space.batch_encode(index), space.batch_flops(index).double()
    before = torch.get_rng_state()
    model = PREDICTORS[name](space, **SMALL.get(name, {})).fit(graphs, y)
    model.predict(graphs)
    model.save(tmp_path / "model")
    type(model).load(tmp_path / "model", space).predict(graphs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("predictor", [GCNPredictor, GNNPredictor, MLPEnsemblePredictor])
def test_fits_in_several_threads_agree_with_one(predictor):
    space = NASBench201Space()
    index = torch.arange(24)
    graphs, y = space.batch_encode(index), space.batch_flops(index).double()

    def predictions(_):
        return predictor(space, steps=8, members=2, folds=2).fit(graphs, y).predict(graphs)

    expected = predictions(0)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(predictions, range(4)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
