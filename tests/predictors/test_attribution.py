from __future__ import annotations

import math

import pytest
import torch
from sklearn.exceptions import NotFittedError

from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import GPPredictor, RidgePredictor, WLPredictor
from pyg_nas_np.predictors.attribution import attribute, attribute_parameters, permutation_importance
from pyg_nas_np.spaces import Float, Integer, ParameterSpace, Repeat
from pyg_nas_np.utils import InvalidArchitectureError


def test_importance_of_a_sum_is_known():
    """Two independent draws of a standard normal differ by sqrt(2) in root mean square."""
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    found = permutation_importance(
        lambda x: 3 * x[:, 0] + x[:, 1] - 2 * x[:, 2], x, {"a": [0], "bc": [1, 2], "d": [3]}, repeats=3
    )
    assert list(found) == ["a", "bc", "d"]
    assert found["a"] == pytest.approx(3 * math.sqrt(2), rel=0.05)
    assert found["bc"] == pytest.approx(math.sqrt(5) * math.sqrt(2), rel=0.05)
    assert found["d"] == 0.0


def test_columns_of_a_part_move_together():
    """A function of a difference that is constant within rows does not see them move together."""
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    found = permutation_importance(lambda x: x[:, 0] - x[:, 1], x, {"both": [0, 1], "one": [0]})
    assert found["both"] == 0.0
    assert found["one"] > 0.5


def test_chunks_do_not_change_the_importance(monkeypatch):
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    parts = {"a": [0], "b": [1, 2]}
    whole = permutation_importance(lambda x: x.prod(dim=1), x, parts, repeats=7)
    monkeypatch.setattr("pyg_nas_np.predictors.attribution.CHUNK", 1)
    assert permutation_importance(lambda x: x.prod(dim=1), x, parts, repeats=7) == pytest.approx(whole)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("rows", "parts", "repeats", "message"),
    [
        (1, {"a": [0]}, 1, "got 1 rows"),
        (5, {"a": [0]}, 0, "repeats=0"),
        (5, {"a": [3]}, 1, "part 'a' has column 3; the rows have 3 columns"),
        (5, {"a": [-1]}, 1, "column -1"),
    ],
)
def test_wrong_arguments(rows, parts, repeats, message):
    with pytest.raises(ValueError, match=message):
        permutation_importance(lambda x: x[:, 0], torch.zeros(rows, 3), parts, repeats=repeats)


@pytest.mark.parametrize("maker", [RidgePredictor, WLPredictor])
def test_attribution_finds_what_labels_follow(toy_space, maker):
    """Labels that only the second operation decides: tables of features and graph kernels alike."""
    index = torch.arange(128)
    y = torch.tensor([{"conv": 3.0, "pool": 1.0, "same": 2.0, "zero": 0.0}[toy_space[i][0]] for i in range(128)])
    found = attribute(maker(toy_space, labels="robust").fit(toy_space.batch_encode(index), y))
    assert found.num_cells == 32
    assert found.fidelity > 0.5
    assert set(found.groups) == set(shared_features(toy_space).feature_groups)
    assert set(found.features) == set(found.correlations) == set(shared_features(toy_space).feature_names)
    assert found.correlations["count_conv"] > 0.3 > 0.0 > found.correlations["count_zero"]
    ranked = list(found.features)
    assert list(found.features.values()) == sorted(found.features.values(), reverse=True)
    assert found.features[ranked[0]] > 3 * found.features[ranked[len(ranked) // 2]]


def test_attribution_is_seeded(toy_space):
    index = torch.arange(0, 128, 3)
    fitted = RidgePredictor(toy_space).fit(toy_space.batch_encode(index), toy_space.batch_flops(index))
    assert attribute(fitted, num_cells=64) == attribute(fitted, num_cells=64)
    other = attribute(fitted, num_cells=64, generator=torch.Generator().manual_seed(1))
    assert other.groups != attribute(fitted, num_cells=64).groups


def test_labels_without_scale_have_no_attribution(toy_space):
    index = torch.arange(0, 128, 3)
    found = attribute(RidgePredictor(toy_space).fit(toy_space.batch_encode(index), torch.ones(len(index))))
    assert set(found.groups.values()) == set(found.features.values()) == set(found.correlations.values()) == {0.0}


def test_failures(toy_space, tmp_path):
    predictor = RidgePredictor(toy_space)
    with pytest.raises(NotFittedError):
        attribute(predictor)
    index = torch.arange(20)
    predictor.fit(toy_space.batch_encode(index), toy_space.batch_flops(index))
    with pytest.raises(ValueError, match="at least 8, got 3"):
        attribute(predictor, num_cells=3)
    predictor.save(tmp_path / "ridge.pt")
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        attribute(RidgePredictor.load(tmp_path / "ridge.pt"))


CONDITIONAL = ParameterSpace(
    depth=Integer(1, 20),
    optimizer=["sgd", "adam"],
    momentum=Float(0.0, 0.99, when={"optimizer": "sgd"}),
    layers=Repeat({"kernel": [3, 5, 7]}, 1, 3),
    unused=["a", "b"],
)


@pytest.fixture(scope="module")
def conditional():
    archs = CONDITIONAL.sample(60, torch.Generator().manual_seed(0))
    y = [arch["depth"] + 30.0 * arch.get("momentum", 0.0) for arch in archs]
    return GPPredictor(CONDITIONAL).fit(archs, y), archs


def test_parameters_that_labels_follow_are_found(conditional):
    predictor, archs = conditional
    found = attribute_parameters(predictor, archs)
    assert set(found.importance) == set(CONDITIONAL.parameters)
    assert list(found.importance.values()) == sorted(found.importance.values(), reverse=True)
    # What is conditional on the optimizer moves with it.
    assert set(list(found.importance)[:3]) == {"depth", "momentum", "optimizer"}
    assert found.importance["unused"] < 0.3 * found.importance["depth"]
    labels = [effect.label for effect in found.effects["depth"]]
    assert len(labels) == 6
    assert labels == sorted(labels)
    assert {effect.value: effect.label for effect in found.effects["optimizer"]}.keys() == {"adam", "sgd"}
    assert "layers" not in found.effects
    assert found.num_archs == 60


def test_every_exchange_stays_in_the_space(conditional, monkeypatch):
    predictor, archs = conditional
    seen = []
    scores = type(predictor).predict_scores
    monkeypatch.setattr(type(predictor), "predict_scores", lambda self, x: seen.extend(x) or scores(self, x))
    attribute_parameters(predictor, archs, num_archs=20, repeats=2)
    assert len(seen) == 20 + 5 * 2 * 20
    assert all(CONDITIONAL.is_valid(arch) for arch in seen)


def test_costs_that_came_with_configurations_are_explained():
    rows = [{"depth": d, "act": a, "params": 3.0**d} for d in range(1, 8) for a in ("relu", "gelu")]
    space = ParameterSpace.from_records(rows, costs={"params": "params"})
    predictor = GPPredictor(space).fit(rows, [row["depth"] for row in rows])
    found = attribute_parameters(predictor, rows)
    assert set(found.importance) == {"depth", "act", "params"}
    assert found.importance["params"] > found.importance["act"]


def test_parameters_need_records(toy_space, conditional):
    index = torch.arange(0, 128, 4)
    ridge = RidgePredictor(toy_space).fit(index, toy_space.batch_flops(index))
    with pytest.raises(InvalidArchitectureError, match="has no records of parameters"):
        attribute_parameters(ridge, index)
    with pytest.raises(ValueError, match="at least two"):
        attribute_parameters(*[conditional[0], conditional[1][:1]])
    with pytest.raises(NotFittedError):
        attribute_parameters(GPPredictor(CONDITIONAL), conditional[1])
