from __future__ import annotations

import pytest
import torch

from pyg_nas_np.datasets import Metric, nasbench101, nasbench201, nats
from pyg_nas_np.utils import DataFileError

NAN = float("nan")


def ragged() -> Metric:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]]])
    return Metric.from_values(values, ("777", "888"), (100, 200), "percent", "x-valid")


def test_means_ignore_missing_seeds():
    metric = ragged()
    assert torch.equal(metric.mean().nan_to_num(-1), torch.tensor([3.0, 6.0, -1.0]))
    assert torch.equal(metric.mean(100).nan_to_num(-1), torch.tensor([2.0, 5.0, -1.0]))
    assert torch.equal(metric.curve()[0], torch.tensor([2.0, 3.0]))
    assert metric.num_seeds().tolist() == [2, 1, 0]
    assert "2 labelled" in repr(metric)


def test_state_round_trip_is_safe_to_load(tmp_path):
    metric = ragged()
    torch.save(metric.to_dict(), tmp_path / "metric.pt")
    again = Metric.from_dict(torch.load(tmp_path / "metric.pt", weights_only=True))
    assert torch.equal(again.mask, metric.mask)
    assert torch.equal(again.values.nan_to_num(-1), metric.values.nan_to_num(-1))
    assert (again.seeds, again.epochs, again.unit, again.split) == (("777", "888"), (100, 200), "percent", "x-valid")


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="epoch 50 was not recorded"):
        ragged().mean(50)
    with pytest.raises(DataFileError, match="row 1 holds an infinite value"):
        Metric.from_values(torch.tensor([[[1.0]], [[float("inf")]]]), ("777",), (200,), "percent")
    with pytest.raises(ValueError, match="2 seeds, 1 epochs"):
        Metric.from_values(torch.zeros(3, 1, 1), ("777", "888"), (200,), "percent")


@pytest.mark.parametrize(
    ("name", "unit_of", "maximize"),
    [
        ("valid_accuracy@200", nats.units, True),
        ("valid_loss@200", nats.units, False),
        ("training_time@200", nats.units, False),
        ("latency@200", nats.units, False),
        ("edgegpu_energy", nats.units, False),
        ("flops", nats.units, False),
        ("valid_error@200", nats.units, False),
        ("test_accuracy@108", nasbench101.units, True),
        ("training_time@108", nasbench101.units, False),
        ("energy@108", nasbench101.units, False),
        ("analog.baseline_accuracy", nasbench201._units, True),
        ("analog.analog_drift_60_uncertainty", nasbench201._units, False),
    ],
)
def test_units_tell_the_direction(name, unit_of, maximize):
    metric = Metric.from_values(torch.ones(2, 1, 1), ("1st",), (1,), *unit_of(name))
    assert metric.maximize is maximize
    assert Metric.from_dict(metric.to_dict()).maximize is maximize
