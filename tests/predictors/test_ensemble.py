from __future__ import annotations

import pytest
import torch
from sklearn.base import clone

from pyg_nas_np.predictors import (
    EnsemblePredictor,
    GNNPredictor,
    GPPredictor,
    Predictor,
    RandomForestPredictor,
    RidgePredictor,
    WLPredictor,
)
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError

SPACE = NASBench201Space()
INDEX = SPACE.sample_indices(40, torch.Generator().manual_seed(0))
BATCH, Y = SPACE.batch_encode(INDEX), SPACE.batch_flops(INDEX).double() / 1e6
TEST = SPACE.batch_encode(torch.arange(60))


def members():
    return {"gp": GPPredictor(), "wl": WLPredictor(), "ridge": RidgePredictor()}


def test_moments_are_those_of_the_mixture():
    weights = {"gp": 2.0, "ridge": 1.0, "wl": 0.0}
    model = EnsemblePredictor(SPACE, members(), weights).fit(BATCH, Y)
    assert list(model.predictors_) == ["gp", "ridge"]
    mean, std = model.predict_scores(TEST)
    scores = {name: members()[name].set_params(space=SPACE).fit(BATCH, Y) for name in ("gp", "ridge")}
    parts = [member.predict_scores(TEST) for member in scores.values()]
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([2.0, 1.0]).double().expand(60, 2)),
        torch.distributions.Normal(*(torch.stack(part, dim=1).double() for part in zip(*parts, strict=True))),
    )
    torch.testing.assert_close(mean, mixture.mean)
    torch.testing.assert_close(std, mixture.stddev)


def test_one_member_is_that_member():
    alone = RidgePredictor(SPACE, labels="robust").fit(BATCH, Y / 4).predict(TEST, return_std=True)
    model = EnsemblePredictor(SPACE, {"ridge": RidgePredictor()}, labels="robust").fit(BATCH, Y / 4)
    torch.testing.assert_close(model.predict(TEST, return_std=True), alone)


def test_members_are_left_as_they_are():
    parts = members()
    EnsemblePredictor(SPACE, parts).fit(BATCH, Y).predict(TEST)
    assert not any(hasattr(member, "space_") for member in parts.values())


def test_parameters_of_members():
    model = EnsemblePredictor(SPACE, members(), {"gp": 1.0})
    assert model.get_params()["gp__kernel"] == "matern32"
    assert set(model.get_params(deep=False)) == {"space", "predictors", "weights", "maximize", "labels"}
    copy = clone(model).set_params(gp__kernel="rbf", labels="robust")
    assert (copy.predictors["gp"].kernel, copy.labels, copy.weights) == ("rbf", "robust", {"gp": 1.0})
    assert (model.predictors["gp"].kernel, model.labels) == ("matern32", "auto")
    assert copy.space is SPACE


def test_changes_after_fitting_wait_for_the_next_fit():
    model = EnsemblePredictor(SPACE, members()).fit(BATCH, Y)
    before = model.predict(TEST)
    model.set_params(weights={"ridge": 1.0}, gp__kernel="rbf")
    assert torch.equal(model.predict(TEST), before)
    assert not torch.equal(model.fit(BATCH, Y).predict(TEST), before)


def test_nested_ensembles_are_saved(tmp_path):
    small = GNNPredictor(members=1, steps=5, folds=2, channels=8)
    inner = EnsemblePredictor(None, {"gnn": small, "wl": WLPredictor()}, {"gnn": 0.5, "wl": 1.0})
    forest = RandomForestPredictor(n_estimators=5)
    model = EnsemblePredictor(SPACE, {"inner": inner, "forest": forest}).fit(BATCH, Y)
    model.save(tmp_path / "model.pt")
    loaded = Predictor.load(tmp_path / "model.pt", SPACE)
    torch.testing.assert_close(loaded.predict(TEST, return_std=True), model.predict(TEST, return_std=True))
    assert loaded.get_params()["inner__gnn__channels"] == 8
    assert loaded.predictors["inner"].weights == {"gnn": 0.5, "wl": 1.0}
    # Loaded without a space, it takes that of the data.
    unplaced = EnsemblePredictor.load(tmp_path / "model.pt")
    unplaced.space_ = SPACE
    assert torch.equal(unplaced.predict(TEST), loaded.predict(TEST))


def test_unknown_members_in_a_file_are_refused(tmp_path):
    EnsemblePredictor(SPACE, {"ridge": RidgePredictor()}).fit(BATCH, Y).save(tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    state["params"]["predictors"]["ridge"] = ("Nothing", {})
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(DataFileError, match="holds a Nothing, which is not a known predictor"):
        Predictor.load(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("predictors", "weights", "message"),
    [
        ({}, None, "at least one predictor with a positive weight"),
        (members(), {"gp": 0.0}, "at least one predictor with a positive weight"),
        (members(), {"tree": 1.0}, "weights names 'tree'; predictors: gp, wl, ridge"),
        (members(), {"gp": -1.0}, "not negative, got -1.0 for 'gp'"),
        (members(), {"gp": float("nan")}, "finite and not negative, got nan for 'gp'"),
    ],
)
def test_unusable_weights_are_refused(predictors, weights, message):
    with pytest.raises(ValueError, match=message):
        EnsemblePredictor(SPACE, predictors, weights).fit(BATCH, Y)


def test_graphs_of_another_space_are_refused_whatever_the_labels(toy_space):
    with pytest.raises(InvalidArchitectureError):
        EnsemblePredictor(SPACE, members()).fit(toy_space.batch_encode(torch.arange(3)), [1.0, 1.0, 1.0])
