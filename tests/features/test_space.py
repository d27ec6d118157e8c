from __future__ import annotations

import math

import pytest
import torch

from pyg_nas_np.features import Descriptors, MetaFeatures, SpaceFeatures, shared_descriptors, shared_features
from pyg_nas_np.features.descriptors import NETWORKS
from pyg_nas_np.features.space import SCORES, SIZES, ScoreFeatures, SizeFeatures
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors import (
    EnsemblePredictor,
    GCNPredictor,
    GNNPredictor,
    GPPredictor,
    MLPEnsemblePredictor,
    RandomForestPredictor,
    RidgePredictor,
    WLPredictor,
    XGBoostPredictor,
)
from pyg_nas_np.predictors.gp import feature_columns
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.spaces import (
    Configuration,
    GraphSpace,
    Integer,
    NASBench201Space,
    OperationGraph,
    OperationView,
    ParameterSpace,
    Repeat,
    SearchSpace,
)
from pyg_nas_np.spaces.operation_graph import pack
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError


def network(record) -> OperationGraph:
    nodes = [("conv", {"width": record["width"]})] * record["depth"] + [("head", {})]
    return OperationGraph.of(nodes, [(i, i + 1) for i in range(record["depth"])])


class Networks(ParameterSpace, OperationView[Configuration]):
    """A third-party space that tells everything."""

    def _batch(self, archs):
        return pack([network(arch) for arch in archs])

    @property
    def operations(self):
        return self._batch(self.pool).operations

    @property
    def attribute_names(self):
        return self._batch(self.pool).attribute_names

    def operation_graphs(self, archs=None):
        return self._batch(self.resolve(archs))


PARAMETERS = {"depth": Integer(1, 6), "width": Integer(8, 64), "networks": Integer(0, 3), "act": ["relu", "gelu"]}
POOL = [{"depth": 1 + i % 6, "width": 8 + i % 57, "networks": i % 4, "act": ["relu", "gelu"][i % 2]} for i in range(90)]
COSTS = {"params": lambda arch: arch["depth"] * arch["width"] ** 2}


@pytest.fixture(scope="module")
def space() -> Networks:
    return Networks(PARAMETERS, pool=POOL, costs=COSTS)


def test_records_graphs_sizes_and_networks_lie_side_by_side(space):
    features, descriptors = shared_features(space), shared_descriptors(space)
    assert shared_features(space) is features
    groups = descriptors.groups
    assert list(groups)[:4] == ["depth", "width", "networks_", "act"]
    assert {"attributes", "paths", SIZES, NETWORKS} <= set(groups)
    table = descriptors.table(space.pool)
    assert table.shape == (90, descriptors.num_columns)
    assert table.dtype == torch.float32
    torch.testing.assert_close(features.table(space.pool), table[:, : len(features.feature_names)])
    names = features.feature_names
    assert [names[i] for i in groups[SIZES]] == ["params"]
    assert sorted(i for columns in {tuple(c) for c in groups.values()} for i in columns) == list(range(table.size(1)))
    families = descriptors.families
    assert families.structured
    assert families.networks == groups[NETWORKS]
    assert families.sizes == groups[SIZES]
    assert len(families.parameters) == 4
    assert set(families.everything) == set(range(len(names)))
    moments = table[:, : len(names)].double()
    torch.testing.assert_close(moments.mean(dim=0), torch.zeros(len(names)).double(), rtol=0, atol=1e-5)


def test_what_a_space_does_not_tell_is_left_out():
    records = shared_descriptors(ParameterSpace(PARAMETERS))
    assert records.families.sizes == records.families.networks == records.families.graph == []
    assert not records.families.structured
    graphs = shared_descriptors(GraphSpace([network(record) for record in POOL[:30]]))
    assert graphs.families.parameters == []
    assert graphs.families.records == []
    assert len(graphs.families.networks) > 0
    assert isinstance(shared_features(NASBench201Space()), MetaFeatures)
    assert isinstance(shared_descriptors(NASBench201Space()), Descriptors)


def test_a_space_that_tells_nothing_is_refused():
    class Mute(SearchSpace[str]):
        name = "mute"

        def sample(self, n, generator=None, *, replace=False):
            return ["a"] * n

        def neighbors(self, arch):
            return []

        def to_str(self, arch):
            return arch

        def from_str(self, text):
            return text

        def is_valid(self, arch):
            return True

    with pytest.raises(InvalidArchitectureError, match="mute tells nothing of its architectures; give it records"):
        SpaceFeatures(Mute())


def test_unknown_costs_are_predicted_from_the_known_ones():
    def parameters(record):
        return 1000.0 * record["width"] * record["width"]

    wide = {"width": Integer(8, 512, log=True), "act": ["relu", "gelu"]}
    every = ParameterSpace(wide).sample(60, torch.Generator().manual_seed(0))
    partly = [{**arch, **({"params": parameters(arch)} if i % 3 else {})} for i, arch in enumerate(every)]
    space = ParameterSpace(wide, pool=partly, costs={"params": "params"})
    whole = ParameterSpace(wide, pool=every, costs={"params": parameters})
    features, reference = SpaceFeatures(space), SpaceFeatures(whole)
    found, expected = (f.table(every)[:, f.families.sizes[0]] for f in (features, reference))
    unknown = torch.arange(60) % 3 == 0
    # The scale is that of the known ones; a logarithm of the width says all of the cost.
    correlation = torch.corrcoef(torch.stack([found[unknown], expected[unknown]]))[0, 1]
    assert float(correlation) > 0.999
    # An architecture that nobody has measured gets a predicted cost too.
    new = space.check({"width": 300, "act": "relu"})
    known = whole.check({"width": 300, "act": "relu"})
    assert float(features.table([new])[0, -1]) == pytest.approx(float(reference.table([known])[0, -1]), abs=0.3)


def test_costs_that_are_mostly_unknown_are_left_out():
    pool = [record | {"latency": 1.0 + i if i < len(POOL) // 3 else None} for i, record in enumerate(POOL)]
    space = ParameterSpace(PARAMETERS, pool=pool, costs={"latency": "latency"})
    assert SpaceFeatures(space).families.sizes == []


def test_costs_are_logarithms_and_unknown_ones_the_mean():
    pool = [record | {"latency": 10.0 ** (i % 3) if i % 9 else None} for i, record in enumerate(POOL)]
    costs = COSTS | {"latency": "latency", "signed": lambda arch: arch["width"] - 30.0, "same": lambda arch: 1.0}
    space = ParameterSpace(PARAMETERS, pool=pool, costs=costs)
    sizes = SizeFeatures(space)
    assert sizes.feature_names == ["params", "latency", "signed"]
    table = sizes.table(space.pool[:3])
    assert float(table[0, 1]) == 0.0
    assert bool(table.isfinite().all())
    # Another unit is the same column.
    other = ParameterSpace(PARAMETERS, pool=POOL, costs={"params": lambda arch: 1e-6 * COSTS["params"](arch)})
    first = SizeFeatures(ParameterSpace(PARAMETERS, pool=POOL, costs=COSTS))
    torch.testing.assert_close(SizeFeatures(other).table(other.pool), first.table(other.pool), rtol=1e-5, atol=1e-5)


# -- the predictors on them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "predictor",
    [
        RidgePredictor(),
        RandomForestPredictor(n_estimators=60),
        XGBoostPredictor(),
        GPPredictor(),
        GPPredictor(networks=False),
        EnsemblePredictor(predictors={"gp": GPPredictor(), "forest": RandomForestPredictor(n_estimators=30)}),
    ],
    ids=lambda predictor: type(predictor).__name__,
)
def test_plain_predictors_work_on_any_space(predictor, space, tmp_path):
    if isinstance(predictor, XGBoostPredictor):
        pytest.importorskip("xgboost")
    archs = list(space.pool)
    y = torch.tensor([80.0 + 2 * a["depth"] + 0.05 * a["width"] + (a["act"] == "gelu") for a in archs])
    rows, others = archs[::2], archs[1::2]
    for each in (space, ParameterSpace(PARAMETERS, pool=POOL)):
        model = predictor.__sklearn_clone__().set_params(space=each).fit(rows, y[::2])
        mean, std = model.predict(others, return_std=True)
        assert model.score(others, y[1::2]) > 0.6
        assert bool((std >= 0).all())
        model.save(tmp_path / "model.pt")
        loaded = type(model).load(tmp_path / "model.pt", each)
        torch.testing.assert_close(loaded.predict(others), mean, rtol=1e-4, atol=1e-3)


def test_the_gp_adds_up_over_parameters():
    assert list(feature_columns(ParameterSpace(PARAMETERS))) == ["depth", "width", "networks_", "act"]


@pytest.mark.parametrize("kind", [GNNPredictor, GCNPredictor, WLPredictor, MLPEnsemblePredictor])
def test_predictors_of_cells_say_so(kind, space):
    with pytest.raises(InvalidArchitectureError, match="gives no cells"):
        kind(space).fit(list(space.pool[:20]), torch.arange(20.0))


def test_another_pool_is_another_scale(tmp_path):
    first, second = (ParameterSpace(PARAMETERS, pool=pool) for pool in (POOL, POOL[:50]))
    y = torch.arange(20.0)
    model = RidgePredictor(first).fit(list(first.pool[:20]), y)
    model.save(tmp_path / "model.pt")
    same = RidgePredictor.load(tmp_path / "model.pt", ParameterSpace(PARAMETERS, pool=POOL))
    torch.testing.assert_close(same.predict(first.pool[:20]), model.predict(first.pool[:20]))
    with pytest.raises(DataFileError, match="another pool"):
        RidgePredictor.load(tmp_path / "model.pt", second).predict(list(second.pool[:5]))


def test_prior_trend_is_the_mean_of_sizes_and_depth():
    declared = {"width": Integer(8, 64), "depth": Integer(1, 9)}
    space = Networks(declared, costs={"size": lambda record: record["width"]})
    archs = space.sample(20, torch.Generator().manual_seed(0))
    descriptors = shared_descriptors(space)
    trend = descriptors.prior_trend(descriptors.table(archs))
    depth = torch.tensor([float(arch["depth"]) for arch in archs])
    size = torch.tensor([float(arch["width"]) for arch in archs]).log()
    design = torch.stack([depth, size, torch.ones(20)], dim=1)
    fitted = torch.linalg.lstsq(design, trend.unsqueeze(1)).solution
    torch.testing.assert_close(design @ fitted, trend.unsqueeze(1), rtol=1e-3, atol=1e-3)
    assert bool((fitted[:2] > 0).all())
    lists = ParameterSpace(layers=Repeat({"width": Integer(8, 64)}, 1, 6))
    archs = lists.sample(20, torch.Generator().manual_seed(0))
    descriptors = shared_descriptors(lists)
    length = torch.tensor([float(len(arch["layers"])) for arch in archs])
    trend = descriptors.prior_trend(descriptors.table(archs))
    assert float(torch.corrcoef(torch.stack([trend, length]))[0, 1]) == pytest.approx(1.0, abs=1e-5)
    flat = ParameterSpace(width=Integer(8, 64))
    descriptors = shared_descriptors(flat)
    assert not descriptors.prior_trend(descriptors.table(flat.sample(3))).any()


# -- zero-cost scores --------------------------------------------------------------------------------------------------


def test_scores_are_gaussian_scores_of_ranks():
    every = ParameterSpace(width=Integer(1, 400)).sample(100, torch.Generator().manual_seed(0))
    pool = [{**arch, "swap": math.exp(arch["width"]) if arch["width"] < 300 else 1e300} for arch in every]
    scores = {"swap": "swap", "same": lambda arch: 1.0, "down": lambda arch: -arch["width"]}
    space = ParameterSpace(width=Integer(1, 400), scores=scores, pool=pool)
    features = ScoreFeatures(space)
    assert features.feature_names == ["swap", "down"]
    table = features.table(space.pool)
    width = torch.tensor([float(arch["width"]) for arch in every]).double()
    torch.testing.assert_close(table[:, 1], -rank_gauss(width).float())
    torch.testing.assert_close(table[:, 0], rank_gauss(width.clamp_max(300)).float())
    beyond = features.table([space.check({"width": 1, "swap": value}) for value in (-1e9, 1e308)])[:, 0]
    assert beyond.tolist() == [float(table[:, 0].min()), float(table[:, 0].max())]
    whole = SpaceFeatures(space)
    assert len(whole.families.scores) == 2
    assert whole.feature_groups[SCORES] == list(whole.families.scores)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_unknown_scores_are_predicted_and_mostly_unknown_ones_left_out(unknown):
    width = {"width": Integer(8, 512, log=True), "act": ["relu", "gelu"]}
    every = ParameterSpace(width).sample(60, torch.Generator().manual_seed(0))
    for part, known in ((3, True), (1, False)):
        rows = [{**arch, "swap": arch["width"] if i % 4 < part else unknown} for i, arch in enumerate(every)]
        space = ParameterSpace(width, pool=rows, scores={"swap": "swap"})
        features = SpaceFeatures(space)
        assert len(features.families.scores) == known
        if known:
            column = features.table(space.pool)[:, features.families.scores[0]]
            truth = torch.tensor([float(arch["width"]) for arch in every]).double()
            assert float(kendall_tau(column, truth)) > 0.9


def test_prior_trend_is_the_mean_of_sizes_and_scores():
    score = {"guess": lambda arch: -arch["width"]}
    space = ParameterSpace(width=Integer(8, 64), depth=Integer(1, 9), costs={"d": "depth"}, scores=score)
    archs, descriptors = space.sample(20, torch.Generator().manual_seed(0)), shared_descriptors(space)
    table, families = descriptors.table(archs), descriptors.families
    wanted = (table[:, families.sizes[0]] + 2 * table[:, families.scores[0]]) / 3
    torch.testing.assert_close(descriptors.prior_trend(table), wanted)
