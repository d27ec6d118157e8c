from __future__ import annotations

import pytest
import torch

from pyg_nas_np.datasets import Metric
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
