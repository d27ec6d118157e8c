from __future__ import annotations

import pytest
import torch
from torch import nn

from pyg_nas_np.networks import latency
from pyg_nas_np.networks.latency import measure_latency


class Recorder(nn.Module):
    """Remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout()
        self.calls = []

    def forward(self, *inputs):
        self.calls.append((self.training, torch.is_grad_enabled(), len(inputs)))
        return inputs[0]


def test_the_median_of_the_repeats(monkeypatch):
    times = iter([0.0, 1.0, 2.0, 5.0, 10.0, 12.0])
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(times))
    assert measure_latency(nn.Identity(), torch.zeros(1), repeats=3, warmup=2) == 2000.0


def test_it_runs_for_inference_and_restores_the_mode():
    module = Recorder().train()
    module.dropout.eval()
    assert measure_latency(module, [torch.zeros(1), torch.zeros(1)], repeats=3, warmup=2) >= 0
    assert module.calls == [(False, False, 2)] * 5
    assert module.training
    assert not module.dropout.training


def test_the_mode_is_restored_after_a_failure():
    module = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        measure_latency(module, torch.zeros(1, 4))
    assert module.training


@pytest.mark.parametrize("kwargs", [{"repeats": 0}, {"warmup": -1}])
def test_bad_numbers(kwargs):
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        measure_latency(nn.Identity(), torch.zeros(1), **kwargs)


def test_meta_tensors_are_refused():
    with pytest.raises(ValueError, match="meta device, where nothing is computed"):
        measure_latency(nn.Linear(3, 2, device="meta"), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="meta device, where nothing is computed"):
        measure_latency(nn.Linear(3, 2), torch.zeros(1, 3, device="meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_events_time_cuda():
    module = nn.Linear(64, 64, device="cuda")
    assert measure_latency(module, torch.zeros(8, 64, device="cuda")) > 0
    with pytest.raises(ValueError, match="cpu, cuda:0; move them to one device"):
        measure_latency(module, torch.zeros(8, 64))
