import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch.testing import assert_close

from pyg_nas_np.convnp import DeviceBasis, DeviceTable, LatencyPredictor
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.spaces import Categorical, NASBench201Space, ParameterSpace, Repeat
from pyg_nas_np.utils import InvalidLabelsError

SPACE = ParameterSpace({"layers": Repeat({"op": Categorical(["conv", "pool", "skip"])}, 6, 6)})
ARCHS = SPACE.sample(120, torch.Generator().manual_seed(0))
COUNTS = torch.tensor(
    [[sum(layer["op"] == op for layer in arch["layers"]) for op in ("conv", "pool")] for arch in ARCHS]
)


def on(conv: float, pool: float) -> torch.Tensor:
    return 1.0 + COUNTS.double() @ torch.tensor([conv, pool], dtype=torch.float64)


DEVICES = {"phone": on(4.0, 1.0), "laptop": on(0.5, 0.4), "board": on(9.0, 9.0), "server": on(0.1, 0.3)}
BASIS = DeviceBasis().fit(DeviceTable(DEVICES, ARCHS), SPACE)
NEW = on(2.0, 1.5)


def fitted(devices=BASIS, count=10, factor=1.0):
    return LatencyPredictor(SPACE).fit(ARCHS[:count], factor * NEW[:count], devices)


def test_ten_measurements_are_enough():
    mean, std = fitted().predict(ARCHS[10:], return_std=True)
    assert spearmanr(mean, NEW[10:])[0] > 0.99
    assert float((mean / NEW[10:] - 1).abs().mean()) < 0.05
    assert bool((std > 0).all())


def test_one_measurement_sets_the_level():
    mean = fitted(count=1).predict(ARCHS)
    assert float((mean / NEW).log().abs().max()) < 1.0
    assert spearmanr(mean, NEW)[0] > 0.9


def test_without_measurements_the_mean_device_ranks():
    predictor = LatencyPredictor(SPACE).fit([], devices=BASIS)
    assert not predictor.labelled
    assert spearmanr(predictor.predict(ARCHS), NEW)[0] > 0.9
    with pytest.raises(InvalidLabelsError, match="level is not known"):
        predictor.probability_within(ARCHS, 3.0)


def test_without_other_devices_the_bank_predicts():
    predictor = fitted(None, count=30)
    assert spearmanr(predictor.predict(ARCHS[30:]), NEW[30:])[0] > 0.8
    with pytest.raises(InvalidLabelsError, match="at least 2 measurements"):
        fitted(None, count=1)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_a_factor_in_latencies_is_one_in_predictions(factor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean, std = fitted(factor=factor).predict(ARCHS, return_std=True)
    plain, plain_std = fitted().predict(ARCHS, return_std=True)
    assert_close(mean, factor * plain, rtol=1e-6, atol=0.0)
    assert_close(std, factor * plain_std, rtol=1e-6, atol=0.0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 100.0), st.floats(1.01, 10.0))
def test_probabilities_grow_with_the_limit(limit, factor):
    predictor = fitted()
    low, high = predictor.probability_within(ARCHS, limit), predictor.probability_within(ARCHS, factor * limit)
    assert bool((low >= 0).all())
    assert bool((high <= 1).all())
    assert bool((high >= low).all())


def test_quantiles_agree_with_probabilities():
    predictor = fitted()
    quantiles = predictor.predict_quantiles(ARCHS[:3], (0.1, 0.5, 0.9))
    assert_close(quantiles[:, 1], predictor.predict(ARCHS[:3]))
    for row, arch in zip(quantiles, ARCHS, strict=False):
        found = [float(predictor.probability_within([arch], float(value))) for value in row]
        assert found == pytest.approx([0.1, 0.5, 0.9], abs=1e-6)
    score, std = predictor.predict_scores(ARCHS[:1])
    limit_score = predictor.transform_.scores_of(5.0)
    assert float(predictor.probability_within(ARCHS[:1], 5.0)) == pytest.approx(
        1 - norm.cdf(float(limit_score), float(score), float(std))
    )
    with pytest.raises(ValueError, match="between 0 and 1"):
        predictor.predict_quantiles(ARCHS, (0.0,))


@pytest.mark.parametrize("devices", [BASIS, None])
def test_files(devices, tmp_path):
    predictor = fitted(devices)
    predictor.save(tmp_path / "latency.pt")
    again = Predictor.load(tmp_path / "latency.pt")
    assert isinstance(again, LatencyPredictor)
    assert_close(again.predict(ARCHS), predictor.predict(ARCHS))
    LatencyPredictor(SPACE).fit([], devices=devices).save(tmp_path / "prior.pt")
    assert Predictor.load(tmp_path / "prior.pt").predict(ARCHS).shape == (120,)


def test_a_table_of_a_whole_space():
    space = NASBench201Space()
    work = space.batch_flops().double() / 1e6 + 1
    shown = torch.tensor([3, 700, 1500, 6111])
    devices = {"a": work, "b": work.sqrt(), "c": work + 50}
    predictor = LatencyPredictor(space).fit(shown, work[shown] + 5, devices)
    assert spearmanr(predictor.predict(torch.arange(0, 15625, 25)), work[::25])[0] > 0.99


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_latencies_leave_the_predictor_as_it_was(value):
    predictor = fitted()
    before = predictor.predict(ARCHS)
    with pytest.raises(InvalidLabelsError, match="position 1"):
        predictor.fit(ARCHS[:2], [1.0, value], BASIS)
    assert_close(predictor.predict(ARCHS), before)


@pytest.mark.parametrize("limit", [0.0, -3.0, float("nan"), float("inf")])
def test_bad_limits(limit):
    with pytest.raises(ValueError, match="limit of the latency must be positive"):
        fitted().probability_within(ARCHS, limit)


def test_seconds_beside_milliseconds():
    with pytest.warns(UserWarning, match="the new device: latencies are about a .*th of"):
        fitted(factor=1e-4)


def test_it_is_an_estimator():
    assert clone(LatencyPredictor(SPACE, random_state=3)).get_params() == {"space": SPACE, "random_state": 3}
    assert fitted().score(ARCHS[10:], NEW[10:]) > 0.9
    with pytest.raises(NotFittedError):
        LatencyPredictor().predict(ARCHS)
