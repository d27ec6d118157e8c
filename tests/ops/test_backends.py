"""The choice of a back end."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu
from pyg_nas_np.ops.backends import checks_values, resolve


def test_the_context_is_restored_after_an_error():
    with contextlib.suppress(RuntimeError), ops.backend("reference"):
        assert ops.active_backend() == "reference"
        raise RuntimeError
    assert ops.active_backend() == "auto"


def test_contexts_nest():
    with ops.backend("reference"), ops.backend("auto"):
        assert ops.active_backend() == "auto"


def test_an_unknown_backend_is_named():
    with (
        pytest.raises(ValueError, match="'name' must be one of auto, reference, cpu, cuda but is 'tpu'"),
        ops.backend("tpu"),
    ):
        pass


def test_automatic_choice():
    assert resolve("auto", torch.device("cpu")) == ("cpu" if cpu.is_available() else "reference")
    assert resolve("auto", torch.device("meta")) == "reference"
    assert resolve("reference", torch.device("cpu")) == "reference"


def test_used_back_ends_are_recorded_in_every_thread():
    x, ptr = torch.zeros(2, 1, requires_grad=True), torch.tensor([0, 2])
    with ops.used_backends() as outer:
        assert outer == set()
        with ops.backend("reference"), ops.used_backends() as inner, ThreadPoolExecutor() as pool:
            density, _ = pool.submit(ops.set_conv, x, x, x, 1.0, ptr, ptr).result()
        with ops.used_backends() as backward:
            density.sum().backward()
        ops.set_conv(x, x, x, 1.0, ptr, ptr)
    assert inner == backward == {"reference"}
    assert outer == {"reference", "cpu" if cpu.is_available() else "reference"}
    ops.set_conv(x, x, x, 1.0, ptr, ptr)
    assert inner == {"reference"}


def test_a_backend_refuses_the_wrong_device(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ops.BackendUnavailableError, match="'cpu' was asked for, but the tensors are on 'meta'"):
        resolve("cpu", torch.device("meta"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ops.BackendUnavailableError, match="'cuda'"):
        resolve("cuda", torch.device("cpu"))


def test_the_backward_pass_stays_on_the_backend_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch):
    from pyg_nas_np.ops import reference

    calls = []
    original = reference.set_conv_backward
    monkeypatch.setattr(reference, "set_conv_backward", lambda *a: calls.append(1) or original(*a))
    x = torch.zeros(2, 1, requires_grad=True)
    with ops.backend("reference"):
        density, _ = ops.set_conv(x, x.detach(), x.detach() + 1, 1.0, *[torch.tensor([0, 2])] * 2)
    density.sum().backward()
    assert calls == [1]


def test_values_are_not_checked_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch):
    cpu_device, cuda_device = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert checks_values(cpu_device)
    assert checks_values(cuda_device)
    with ops.validation(False):
        assert not checks_values(cpu_device)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert checks_values(cpu_device)
    assert not checks_values(cuda_device)
