from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import GPPredictor, Predictor, RandomForestPredictor, RidgePredictor
from pyg_nas_np.predictors import base as base_module
from pyg_nas_np.search import PredictorSearch
from pyg_nas_np.spaces import MobileNetV3Space, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidLabelsError

SPACE = NASBench201Space()
INDEX = SPACE.sample_indices(40, torch.Generator().manual_seed(0))
Y = SPACE.batch_flops(INDEX).double() / 1e6
LARGE = MobileNetV3Space()
BATCH, TEST = SPACE.batch_encode(INDEX), SPACE.batch_encode(torch.arange(200))


def make(name, **kwargs):
    if name == "xgboost":
        pytest.importorskip("xgboost")
        kwargs |= {"members": 2, "n_estimators": 30}
    if name == "random-forest":
        kwargs |= {"n_estimators": 30}
    if name in ("gnn", "gcn", "mlp"):
        kwargs |= {"members": 2, "folds": 2, "steps": 30, "channels": 16}
    if name == "ensemble":
        kwargs |= {"predictors": {key: make(key) for key in ("gp", "wl", "mlp")}}
    return PREDICTORS[name](SPACE, **kwargs)


class Nearest(Predictor):
    """A third-party predictor: the score of the nearest labelled architecture."""

    def __init__(self, space=None, *, labels="rank", power=2.0):
        super().__init__(space, labels=labels)
        self.power = power

    def _fit(self, inputs, z):
        self.x_, self.z_ = inputs, z

    def _predict(self, inputs, return_std):
        distance, nearest = torch.cdist(inputs, self.x_, p=self.power).min(dim=1)
        return self.z_[nearest] + 0.001 * distance, 0.1 + distance if return_std else None

    def _state(self):
        return {"x": self.x_, "z": self.z_}

    def _set_state(self, state):
        self._fit(state["x"], state["z"])


# The neural process needs weights; its own tests cover the contract.
CLASSICAL = [name for name in PREDICTORS if name != "convnp"]
every = pytest.mark.parametrize("name", CLASSICAL)


@every
def test_contract(name):
    model = make(name)
    assert model.fit(BATCH, Y) is model
    mean, std = model.predict(TEST, return_std=True)
    assert (mean.shape, std.shape) == ((200,), (200,))
    assert mean.dtype == std.dtype == torch.float64
    assert mean.isfinite().all()
    assert bool((std >= 0).all())
    # Multiply-accumulates count dead operations too, which path encodings do not hold.
    assert model.score(TEST, SPACE.batch_flops(torch.arange(200))) > (0.4 if name == "mlp" else 0.6)
    assert model.predict([]).shape == (0,)


@every
def test_saved_predictors_predict_the_same(name, tmp_path):
    model = make(name).fit(BATCH, Y)
    model.save(tmp_path / "model.pt")
    for cls, space in ((Predictor, SPACE), (type(model), NASBench201Space())):
        loaded = cls.load(tmp_path / "model.pt", space)
        assert type(loaded) is type(model)
        assert loaded._plain_params() == model._plain_params()
        for a, b in zip(model.predict(TEST, return_std=True), loaded.predict(TEST, return_std=True), strict=True):
            torch.testing.assert_close(a, b)


@every
@pytest.mark.parametrize(("labels", "std"), [([93.0], 93.0), ([93.0, 93.0], 46.5)])
def test_labels_without_scale_give_the_prior(name, labels, std, tmp_path):
    model = make(name).fit(SPACE.batch_encode(INDEX[: len(labels)]), labels)
    model.save(tmp_path / "model.pt")
    for predictor in (model, Predictor.load(tmp_path / "model.pt", SPACE)):
        mean, spread = predictor.predict(TEST, return_std=True)
        assert mean.unique().tolist() == [93.0]
        assert spread.unique().tolist() == [std]


@every
def test_clone_and_params(name):
    model = make(name, labels="robust").fit(BATCH, Y / 4)
    copy = clone(model)
    assert copy._plain_params() == model._plain_params()
    assert copy.space is SPACE
    assert not copy.labelled
    if not copy.has_prior:
        with pytest.raises(NotFittedError):
            copy.predict(TEST)
    assert copy.set_params(labels="rank").labels == "rank"
    with pytest.raises(ValueError, match="colour"):
        copy.set_params(colour=1)


def test_order_of_scores_is_kept():
    model = GPPredictor(SPACE).fit(BATCH, Y)
    score = model._predict(model._inputs(model._known(TEST)), False)[0]
    label = model.transform_.inverse(score)[0]
    order = score.argsort()
    higher, better = score[order].diff(), label[order].diff()
    # Cells that compute the same may differ by rounding alone.
    assert bool((better[higher > 1e-9] > 0).all())
    assert float(better.min()) > -1e-9
    torch.testing.assert_close(model.predict(TEST), label)


def test_scores_have_the_order_of_labels():
    model = GPPredictor(SPACE).fit(BATCH, Y)
    mean, std = model.predict_scores(TEST)
    assert mean.dtype == std.dtype == torch.float64
    labels, spread = model.transform_.inverse(mean, std)
    expected = model.predict(TEST, return_std=True)
    torch.testing.assert_close((labels, spread), tuple(expected))
    equal = GPPredictor(SPACE).fit(BATCH[:2], [5.0, 5.0])
    assert [t.unique().tolist() for t in equal.predict_scores(TEST)] == [[0.0], [1.0]]


def test_score_is_kendall_tau():
    model = RidgePredictor(SPACE).fit(BATCH, Y)
    truth = SPACE.batch_num_parameters(torch.arange(200))
    expected = kendalltau(model.predict(TEST).numpy(), truth.numpy()).statistic
    assert model.score(TEST, truth) == pytest.approx(expected)


def test_labels_in_any_form_and_from_the_graphs():
    graphs = BATCH.to_data_list()
    expected = RidgePredictor(SPACE).fit(BATCH, Y).predict(TEST)
    for y in (Y.tolist(), Y.numpy(), Y.unsqueeze(1)):
        torch.testing.assert_close(RidgePredictor(SPACE).fit(graphs, y).predict(TEST), expected)
    for graph, y in zip(graphs, Y, strict=True):
        graph.y = y.view(1)
    torch.testing.assert_close(RidgePredictor(SPACE).fit(graphs).predict(TEST), expected)


def test_scale_and_shift_of_labels_do_not_matter():
    model, other = GPPredictor(SPACE).fit(BATCH, Y), GPPredictor(SPACE).fit(BATCH, 3 * Y - 7)
    torch.testing.assert_close(other.predict(TEST), 3 * model.predict(TEST) - 7, rtol=1e-4, atol=1e-3)


def test_scikit_learn_tools():
    graphs = np.empty(40, dtype=object)
    graphs[:] = BATCH.to_data_list()
    scores = cross_val_score(RidgePredictor(SPACE), list(graphs), Y.numpy(), cv=4)
    assert scores.shape == (4,)
    assert scores.mean() > 0.7
    search = GridSearchCV(Nearest(SPACE), {"power": [1.0, 2.0]}, cv=3).fit(list(graphs), Y.numpy())
    assert search.best_params_["power"] in (1.0, 2.0)
    assert search.best_estimator_.space is SPACE


def test_unusable_input_is_refused():
    model = RidgePredictor(SPACE)
    with pytest.raises(InvalidLabelsError, match=r"RidgePredictor needs at least 1 labelled .* take ConvNPPredictor"):
        model.fit([], [])
    with pytest.raises(InvalidLabelsError, match="no labels"):
        model.fit(BATCH, [])
    with pytest.raises(InvalidLabelsError, match="39 labels for 40 architectures"):
        model.fit(BATCH, Y[1:])
    with pytest.raises(InvalidLabelsError, match="position 3"):
        model.fit(BATCH, torch.where(torch.arange(40) == 3, torch.nan, Y))
    with pytest.raises(InvalidLabelsError, match="carries no label"):
        model.fit(BATCH)
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        RidgePredictor().fit(BATCH, Y)
    with pytest.raises(ValueError, match="labels must be one of"):
        RidgePredictor(SPACE, labels="log").fit(BATCH, Y)
    with pytest.raises(NotFittedError):
        model.predict(BATCH)
    with pytest.raises(NotFittedError):
        model.save("nowhere.pt")


def test_a_failed_fit_leaves_the_predictor_as_it_was(toy_space):
    model = RidgePredictor(SPACE).fit(BATCH, Y)
    before = model.predict(TEST)
    with pytest.raises(InvalidArchitectureError):
        model.fit(toy_space.batch_encode(torch.arange(4)), [1.0, 2.0, 3.0, 4.0])
    assert torch.equal(model.predict(TEST), before)


def test_third_party_space_and_predictor(toy_space, tmp_path):
    index = torch.arange(0, 128, 3)
    model = Nearest(toy_space).fit(toy_space.batch_encode(index), toy_space.batch_flops(index))
    assert model.score(toy_space.batch_encode(), toy_space.batch_flops()) > 0.6
    model.save(tmp_path / "nearest.pt")
    loaded = Predictor.load(tmp_path / "nearest.pt", toy_space)
    assert torch.equal(loaded.predict(toy_space.batch_encode()), model.predict(toy_space.batch_encode()))
    with pytest.raises(InvalidArchitectureError, match="fitted on toy"):
        Predictor.load(tmp_path / "nearest.pt", SPACE)


def test_damaged_and_foreign_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    model = RidgePredictor(SPACE).fit(BATCH, Y)
    model.save(path)
    content = path.read_bytes()
    with pytest.raises(DataFileError, match="not a known RandomForestPredictor"):
        RandomForestPredictor.load(path, SPACE)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFileError, match="corrupt"):
        Predictor.load(path)
    path.write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(DataFileError, match="corrupt"):
        Predictor.load(path)
    torch.save({"format": "other"}, path)
    with pytest.raises(DataFileError, match="format"):
        Predictor.load(path)
    monkeypatch.setattr(torch, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(tmp_path / "new.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_predictors_of_other_features_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    RidgePredictor(SPACE).fit(BATCH, Y).save(path)
    state = torch.load(path, weights_only=True)
    state["features"] = state["features"][1:]
    torch.save(state, path)
    with pytest.raises(DataFileError, match="other meta-features"):
        Predictor.load(path, SPACE).predict(TEST)


def test_loaded_without_space_it_asks_for_one(tmp_path):
    path = tmp_path / "model.pt"
    RidgePredictor(SPACE).fit(BATCH, Y).save(path)
    loaded = Predictor.load(path)
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        loaded.predict(TEST)


def test_registry():
    assert CLASSICAL[:7] == ["bank", "gp", "gp-additive", "gp-rbf", "random-forest", "xgboost", "ridge"]
    assert CLASSICAL[7:] == ["wl", "mlp", "gcn", "gnn", "ensemble"]
    assert all(isinstance(make(name), Predictor) for name in PREDICTORS)
    assert make("gp").kernel == "matern32"
    assert make("gp-rbf").kernel == "rbf"
    assert base_module.FORMAT.startswith("pyg_nas_np.predictor/")
    assert shared_features(SPACE).feature_names == RidgePredictor(SPACE).fit(BATCH, Y).feature_names_


@pytest.fixture
def losses(loss_dataset):
    return loss_dataset[torch.arange(0, 15625, 250)]


def test_data_sets_are_cross_validated(losses):
    """scikit-learn makes lists of graphs of a data set; these know space and direction, and carry labels."""
    for y in (losses.y, losses.y.numpy(), losses.y.tolist(), None):
        scores = cross_val_score(RidgePredictor(), losses, y, cv=3, error_score="raise")
        assert scores.min() > 0.5
    assert cross_val_score(GPPredictor(max_iter=3, networks=False), losses, losses.y, cv=3).mean() > 0.5
    search = GridSearchCV(RidgePredictor(), {"labels": ["rank", "auto"]}, cv=3, error_score="raise")
    search.fit(losses, losses.y.numpy())
    assert search.best_score_ > 0.5
    assert search.best_estimator_.transform_.maximize is False
    assert search.predict(losses).shape == (63,)


def test_direction_is_that_of_the_data_set_unless_told(losses):
    graphs = [losses[i] for i in range(20)]
    part = losses[torch.arange(20)]
    for x in (part, graphs):
        assert RidgePredictor().fit(x).transform_.maximize is False
        assert RidgePredictor(maximize=True).fit(x).transform_.maximize is True
    assert RidgePredictor(SPACE).fit(part.arch_index, part.y).transform_.maximize is True
    best = RidgePredictor().fit(part).predict_scores(losses)[0].argmax()
    assert float(losses.y[best]) < float(losses.y.median())


@pytest.mark.parametrize("name", ["ridge", "gp", "convnp"])
def test_a_space_whose_indices_fit_into_no_integer(name):
    space = LARGE
    archs = space.sample(60, torch.Generator().manual_seed(0))
    y = space.batch_flops(archs).double()
    model = PREDICTORS[name](space).fit(archs[:40], y[:40])
    assert model.score(archs[40:], y[40:]) > 0.5
    search = PredictorSearch(space, PREDICTORS[name](), initial=3, proposals=50)
    for _ in range(4):
        asked = search.ask()
        search.tell(asked, space.batch_flops(asked).double())
    assert len(set(search.measured)) == 4


def test_a_fit_that_fails_half_way_leaves_the_predictor_as_it_was(monkeypatch):
    model = GPPredictor(SPACE).fit(BATCH, Y)
    before = model.predict(TEST)
    monkeypatch.setattr(GPPredictor, "_fit", lambda self, inputs, z: setattr(self, "gp_", None) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(SPACE.batch_encode(INDEX[:7]), Y[:7])
    monkeypatch.undo()
    assert torch.equal(model.predict(TEST), before)


@every
def test_losses_are_the_mirror_of_accuracies(name):
    # Ranks agree to the last bit, on which splits of trees hang.
    up = make(name, labels="rank").fit(BATCH, Y / 4)
    down = make(name, labels="rank", maximize=False).fit(BATCH, 100 - Y / 4)
    torch.testing.assert_close(down.predict_scores(TEST), up.predict_scores(TEST), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(down.predict(TEST), 100 - up.predict(TEST), rtol=1e-3, atol=1e-2)


def test_an_inferred_space_is_in_the_file(tmp_path):
    rows = [{"width_0": 2**i, "width_1": 3 * i, "width_2": i, "act": "ab"[i % 2], "ms": i + 0.5} for i in range(1, 12)]
    columns = {"costs": {"latency": "ms"}}
    space = ParameterSpace.from_records(rows, **columns)
    model = RidgePredictor(space).fit(rows, torch.arange(11.0))
    model.save(tmp_path / "model.pt")
    loaded = RidgePredictor.load(tmp_path / "model.pt")
    torch.testing.assert_close(loaded.predict(rows), model.predict(rows))
    assert loaded.space_.describe() == space.describe()
    # A further fit infers a space of its own, as it would have before.
    assert loaded.space is None
    loaded.save(tmp_path / "again.pt")
    torch.testing.assert_close(Predictor.load(tmp_path / "again.pt").predict(rows), model.predict(rows))
