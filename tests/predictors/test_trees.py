from __future__ import annotations

import builtins
import sys

import pytest
import torch

from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors import RandomForestPredictor, XGBoostPredictor
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import MissingExtraError

SPACE = NASBench201Space()
INDEX = SPACE.sample_indices(80, torch.Generator().manual_seed(0))
TEST = torch.arange(1000)
FORMS = {
    "forest": lambda **kwargs: RandomForestPredictor(SPACE, n_estimators=40, **kwargs),
    "xgboost": lambda **kwargs: XGBoostPredictor(SPACE, members=2, n_estimators=60, **kwargs),
}


def make(name, **kwargs):
    if name == "xgboost":
        pytest.importorskip("xgboost")
    return FORMS[name](**kwargs)


def target(index):
    features = shared_features(SPACE)
    names = ["live_nor_conv_3x3", "live_nor_conv_1x1", "path_max_work", "dead"]
    columns = features.table(index)[:, [features.feature_names.index(name) for name in names]]
    return 90 + columns @ torch.tensor([2.0, 1.0, 1.0, -3.0])


@pytest.mark.parametrize("name", list(FORMS))
def test_it_ranks_with_calibrated_spread(name):
    model = make(name).fit(SPACE.batch_encode(INDEX), target(INDEX))
    mean, std = model.predict(SPACE.batch_encode(TEST), return_std=True)
    assert model.score(SPACE.batch_encode(TEST), target(TEST)) > 0.65
    assert bool((std >= 0).all())
    assert ((mean - target(TEST)).abs() <= 3 * std + 1e-3).float().mean() > 0.85
    torch.testing.assert_close(mean, model.predict(SPACE.batch_encode(TEST)))


@pytest.mark.parametrize("name", list(FORMS))
def test_fitting_is_deterministic(name):
    first, second = (make(name).fit(SPACE.batch_encode(INDEX), target(INDEX)) for _ in range(2))
    for a, b in zip(*(m.predict(SPACE.batch_encode(TEST), return_std=True) for m in (first, second)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", list(FORMS))
def test_the_seed_matters(name):
    first, second = (make(name, random_state=s).fit(SPACE.batch_encode(INDEX), target(INDEX)) for s in (0, 1))
    assert not torch.equal(first.predict(SPACE.batch_encode(TEST)), second.predict(SPACE.batch_encode(TEST)))


@pytest.mark.parametrize("name", list(FORMS))
def test_two_labels_are_enough(name):
    model = make(name).fit(SPACE.batch_encode(INDEX[:2]), [90.0, 91.0])
    mean, std = model.predict(SPACE.batch_encode(TEST[:50]), return_std=True)
    assert mean.isfinite().all()
    assert std.isfinite().all()


def test_xgboost_names_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "xgboost", raising=False)
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == "xgboost":
            raise ModuleNotFoundError("No module named 'xgboost'", name="xgboost")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pyg-nas-np\[xgboost\]"):
        XGBoostPredictor(SPACE).fit(SPACE.batch_encode(INDEX), target(INDEX))
