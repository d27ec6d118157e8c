"""Neither the default type and device of the process nor its random state change a result, and none is changed."""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pyg_nas_np.convnp.registry import PREDICTORS
from pyg_nas_np.features import Descriptors, MetaFeatures, RandomNetworks
from pyg_nas_np.features.path_encoding import PathEncoding
from pyg_nas_np.metrics import functional
from pyg_nas_np.nn.bidirectional_gcn import BidirectionalGCN
from pyg_nas_np.nn.cell_encoder import CellEncoder
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.nn.dag import DAGDecoder, DAGEncoder
from pyg_nas_np.nn.set_conv import SetConv, SetConvFromGrid, SetConvToGrid, grid_over
from pyg_nas_np.nn.set_encoder import DatasetEncoder, SetEncoder
from pyg_nas_np.nn.task_batch import Task, TaskBatch
from pyg_nas_np.predictors import GCNPredictor, GNNPredictor, GPPredictor, MLPEnsemblePredictor
from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space, NASBenchGraphSpace
from pyg_nas_np.spaces.graph_codec import NASBench201GraphCodec

SMALL = {
    "mlp": {"members": 1, "steps": 3, "folds": 2},
    "gcn": {"channels": 8, "steps": 3, "folds": 2},
    "gnn": {"channels": 8, "members": 1, "steps": 3, "folds": 2},
}
SMALL["ensemble"] = {"predictors": {"gp": GPPredictor(), "gnn": GNNPredictor(**SMALL["gnn"])}}
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
    # The toy space's own tensors follow the defaults, as those of any code outside the package may.
    graphs = toy_space.dense([toy_space[7]])

    def tables():
        descriptors = Descriptors(MetaFeatures(toy_space), RandomNetworks(toy_space, num_functions=16, rank=8))
        encoding = PathEncoding(alphabet=(2, 3), max_length=2)
        return [descriptors.table(), descriptors.table([toy_space[5]]), encoding(graphs)]

    expected = tables()
    with defaults(setting):
        found = tables()
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


CODEC = NASBench201GraphCodec()
CELLS = NASBench201Space().dense(torch.arange(5))
X, Y = torch.linspace(-1, 1, 14).view(7, 2), torch.linspace(0, 1, 21).view(7, 3)
BATCH = torch.tensor([0, 1, 0, 2, 2, 1, 0])
PTR, ALL = torch.tensor([0, 2, 3, 7]), torch.tensor([0, 1, 3])
PARTS = torch.linspace(-1, 1, 6).view(3, 2), torch.linspace(-1, 1, 3), torch.linspace(0, 1, 8).view(4, 2)
TASK = Task(*PARTS, torch.zeros(3, 2, 2), torch.zeros(4, 2, 2), torch.zeros(4))

NOISY = TASK._replace(noise=torch.tensor([0.0, 0.1, 1.0]))


def tasks():
    return TaskBatch.from_tasks([TASK, TASK])


def draw():
    return torch.Generator("cpu").manual_seed(0)


MODULES = {
    "SetConv": (lambda: SetConv(3, 4, dim=2, heads=2), lambda module: module(X, Y, X, BATCH, BATCH)),
    "SetConv per channel": (
        lambda: SetConv(3, 4, dim=2, per_channel=True, lengthscale=0.5, learnable=False),
        lambda module: module(X, Y, X, ptr_src=PTR, ptr_dst=PTR),
    ),
    "SetConv with a scale each": (
        lambda: SetConv(3, None, dim=2, heads=2, lengthscale=[[0.5], [1.0]]),
        lambda module: module(X, Y, X),
    ),
    "SetConvToGrid": (
        lambda: SetConvToGrid(3, 2, dim=2, spacing=0.5, window=8, lengthscale=0.5),
        lambda module: module(X, Y, *grid_over(-1.0, [1.0, 2.0], 0.5), BATCH),
    ),
    "SetConvFromGrid": (
        lambda: SetConvFromGrid(3, 2, dim=1, spacing=0.5, window=13),
        lambda module: module(Y.view(1, 7, 3), X[:, :1], grid_over(X[:, 0].min(), X[:, 0].max(), 0.5)[0]),
    ),
    "ConvNP": (lambda: ConvNP(2, num_base=2, channels=8, heads=2), lambda module: module(tasks())),
    "ConvNP with noise": (
        lambda: ConvNP(2, num_base=2, channels=8, heads=2, noise_channel=True),
        lambda module: module(TaskBatch.from_tasks([TASK, NOISY])),
    ),
    "ConvNP off the grid": (
        lambda: ConvNP(2, form="off-grid", channels=8, heads=2),
        lambda module: module(tasks().with_targets_as_context()),
    ),
    "ConvNP on a grid": (
        lambda: ConvNP(2, form="on-grid", channels=8, heads=2, latent_channels=2),
        lambda module: module(tasks(), generator=draw()),
    ),
    "CellEncoder": (
        lambda: CellEncoder(7, channels=8, num_layers=2),
        lambda module: module.forward_dense(CELLS),
    ),
    "BidirectionalGCN": (lambda: BidirectionalGCN(num_ops=7).eval(), lambda module: module(CELLS)),
    "SetEncoder": (lambda: SetEncoder(3, 8), lambda module: module(Y, PTR)),
    "DatasetEncoder": (
        lambda: DatasetEncoder(3, 8),
        lambda module: module(Y, PTR, ALL),
    ),
    "DAGEncoder": (
        lambda: DAGEncoder(CODEC.num_types, CODEC.num_vertices, 8, 4),
        lambda module: module(CODEC.graphs(torch.arange(5, device="cpu"))),
    ),
    "DAGDecoder": (
        lambda: DAGDecoder(CODEC, 2, 8),
        lambda module: [
            module.sample(X, generator=draw()),
            *module.sample_free(X, generator=draw()),
            *module.sample_distinct(X[0], 5, generator=draw()),
            module.log_prob(X, module.sample(X, generator=draw())),
        ],
    ),
}
"""Constructor of each module, and a call of it."""


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MODULES)
def test_modules_do_not_depend_on_the_defaults(name, setting):
    make, call = MODULES[name]
    module = make()
    expected = call(module)
    with defaults(setting):
        found = call(module)
        # As in torch.nn, new weights have the type and the device of the moment, all of them.
        weights = {(value.dtype, value.device.type) for value in make().parameters()}
        assert weights == {(torch.get_default_dtype(), torch.get_default_device().type)}
    if isinstance(expected, torch.Tensor):
        found, expected = [found], [expected]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("setting", SETTINGS)
def test_metrics_do_not_depend_on_the_defaults(setting):
    metrics = pytest.importorskip("pyg_nas_np.metrics")
    mean, std, y = torch.tensor([1.0, 2.0, 2.0, 5.0]), torch.full((4,), 0.5), torch.tensor([1.5, 1.0, 3.0, 4.0])
    gaussian, ranking = (mean, std, y), (mean, y)
    calls = {
        "CalibrationError": gaussian, "GaussianCRPS": gaussian, "GaussianNLL": gaussian, "IntervalCoverage": gaussian,
        "SampleCRPS": (torch.stack([mean, mean + 1]), y),
        "KendallTau": ranking, "SpearmanRho": ranking,
        "NAtK": ranking, "PrecisionAtK": ranking, "RegretAtK": ranking,
    }  # fmt: skip
    assert calls.keys() == set(metrics.__all__)
    options = {name: {"k": 2} for name in ("NAtK", "PrecisionAtK", "RegretAtK")}

    def values():
        found = [getattr(metrics, name)(**options.get(name, {}))(*args) for name, args in calls.items()]
        return [*found, functional.gaussian_pit(*gaussian)]

    expected = values()
    with defaults(setting):
        found = values()
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


CELLS_201 = NASBench201Space()
GRAPHS, FLOPS = CELLS_201.batch_encode(torch.arange(24)), CELLS_201.batch_flops(torch.arange(24)).double()


def predictions(name):
    # A new space: nothing of it is cached.
    model = PREDICTORS[name](NASBench201Space(), **SMALL.get(name, {})).fit(GRAPHS[:16], FLOPS[:16])
    return model.predict(GRAPHS, return_std=True)


expected_predictions = functools.cache(predictions)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_do_not_depend_on_the_defaults(name, setting):
    if name == "xgboost":
        pytest.importorskip("xgboost")
    expected = expected_predictions(name)
    with defaults(setting):
        found = predictions(name)
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
