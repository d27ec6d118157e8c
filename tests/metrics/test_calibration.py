from __future__ import annotations

import pytest
import torch

from pyg_nas_np.metrics import CalibrationError, GaussianCRPS, GaussianNLL, IntervalCoverage, SampleCRPS, functional
from pyg_nas_np.utils import InvalidLabelsError

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")

METRICS = [
    (GaussianNLL(), functional.gaussian_nll),
    (GaussianCRPS(), functional.gaussian_crps),
    (IntervalCoverage(level=0.5), lambda m, s, y: functional.interval_coverage(m, s, y, 0.5)),
    (CalibrationError(), lambda m, s, y: functional.calibration_error(functional.gaussian_pit(m, s, y))),
]


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mean, std, noise = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    return mean, std.exp(), mean + noise


@pytest.mark.parametrize(("metric", "function"), METRICS, ids=lambda x: type(x).__name__)
def test_batches_equal_the_function_on_everything(metric, function):
    mean, std, target = data()
    metric.reset()
    for batch in torch.arange(100).split(33):
        metric.update(mean[batch], std[batch], target[batch])
    assert metric.compute().item() == pytest.approx(function(mean, std, target).item(), abs=1e-6)
    metric.reset()
    with pytest.raises(InvalidLabelsError, match="call update"):
        metric.compute()


def test_samples():
    generator = torch.Generator().manual_seed(1)
    samples, target = torch.randn(8, 100, generator=generator), torch.randn(100, generator=generator)
    metric = SampleCRPS(fair=False)
    for batch in torch.arange(100).split(33):
        metric.update(samples[:, batch], target[batch])
    assert metric.compute().item() == pytest.approx(
        functional.sample_crps(samples, target, fair=False).item(), abs=1e-6
    )


def test_directions():
    assert IntervalCoverage().higher_is_better is None
    assert not any(m.higher_is_better for m, _ in METRICS)
    with pytest.raises(ValueError, match="level must lie"):
        IntervalCoverage(level=90)


def test_forward_returns_the_batch_value_and_keeps_the_total():
    metric = GaussianNLL()
    first = metric(torch.zeros(1), torch.ones(1), torch.zeros(1))
    second = metric(torch.zeros(3), torch.ones(3), torch.ones(3))
    assert second.item() == pytest.approx(first.item() + 0.5)
    assert metric.compute().item() == pytest.approx(first.item() + 0.375)
