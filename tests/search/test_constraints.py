from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pyg_nas_np.convnp import LatencyPredictor
from pyg_nas_np.predictors import Architectures, RidgePredictor
from pyg_nas_np.search import LatencyLimit, PredictorSearch
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import InvalidLabelsError

SPACE = NASBench201Space()
WORK = SPACE.batch_flops().double() / 1e6 + 1
DEVICES = {"phone": 0.1 * WORK, "laptop": WORK.sqrt(), "board": 20 + WORK}
SHOWN = torch.tensor([3, 700, 1500, 6111, 9000])
LATENCY = 0.5 * WORK


def limited(limit=40.0):
    constraint = LatencyLimit(SPACE, limit, DEVICES)
    constraint.tell(SHOWN, LATENCY[SHOWN])
    return constraint


@pytest.fixture(scope="module")
def constraint():
    """For those that tell it nothing: it learns once from what was told."""
    return limited()


def test_measured_latencies_decide_and_others_are_predicted(constraint):
    found = constraint(Architectures(SPACE, torch.arange(0, 15625, 50)))
    within = LATENCY[::50] <= 40
    assert float(found[within].mean()) > 0.9
    assert float(found[~within].mean()) < 0.1
    assert_close(constraint(Architectures(SPACE, SHOWN)), (LATENCY[SHOWN] <= 40).double())
    predictor = LatencyPredictor(SPACE).fit(SHOWN, LATENCY[SHOWN], DEVICES)
    assert_close(constraint(Architectures(SPACE, torch.tensor([5]))), predictor.probability_within([SPACE[5]], 40.0))


def test_repeats_count_by_their_mean():
    constraint = limited()
    constraint.tell(SHOWN[:2], [1000.0, float(LATENCY[700])])
    assert constraint(Architectures(SPACE, SHOWN[:1])).item() == 0.0


def test_before_a_measurement_nothing_is_excluded():
    assert LatencyLimit(SPACE, 1.0)(Architectures(SPACE, torch.arange(3))).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("acquisition", ["ucb", "ei", "mean", "thompson", "independent-thompson"])
def test_a_search_stays_within(acquisition, constraint):
    search = PredictorSearch(SPACE, RidgePredictor(), acquisition=acquisition, initial=4, constraints=[constraint])
    told = SPACE.sample_indices(20, torch.Generator().manual_seed(1))
    search.tell(told, WORK[told])
    asked = search.ask(5)
    assert max(float(LATENCY[SPACE.index(arch)]) for arch in asked) <= 44
    # The label grows with the latency, so that the best ones are near the limit.
    assert max(float(LATENCY[SPACE.index(arch)]) for arch in asked) > 25


def test_latencies_may_be_told_while_the_search_runs():
    constraint = LatencyLimit(SPACE, 40.0, DEVICES)
    search = PredictorSearch(SPACE, RidgePredictor(), initial=4, constraints=[constraint])
    told = SPACE.sample_indices(20, torch.Generator().manual_seed(1))
    search.tell(told, WORK[told])
    assert float(LATENCY[SPACE.index(search.ask()[0])]) > 60
    constraint.tell(told[:10], LATENCY[told[:10]])
    assert float(LATENCY[SPACE.index(search.ask()[0])]) <= 44


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_limits(limit):
    with pytest.raises(ValueError, match="limit of the latency must be positive and finite"):
        LatencyLimit(SPACE, limit)


def test_bad_latencies_add_nothing():
    constraint = limited()
    some = Architectures(SPACE, torch.arange(20))
    before = constraint(some)
    with pytest.raises(InvalidLabelsError, match="must be positive"):
        constraint.tell(torch.tensor([1, 2]), [3.0, 0.0])
    with pytest.raises(InvalidLabelsError, match="NaN"):
        constraint.tell(torch.tensor([1]), [float("nan")])
    assert_close(constraint(some), before)
