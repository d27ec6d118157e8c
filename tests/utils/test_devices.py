from __future__ import annotations

import pytest
import torch
from torch import nn

from pyg_nas_np.utils import DeviceUnavailableError, NASError
from pyg_nas_np.utils.devices import as_device, on_device

CUDA = torch.cuda.is_available()


def test_names_of_devices():
    assert as_device("cpu") == as_device(torch.device("cpu")) == torch.device("cpu")
    assert as_device().type == as_device("auto").type == ("cuda" if CUDA else "cpu")


@pytest.mark.parametrize(
    "name", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:01", "cuda:1 ", "cpu:0", "meta", "", None, 0]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"must be 'auto', 'cpu', 'cuda' or one like 'cuda:1', got") as caught:
        as_device(name)
    assert str(caught.value).endswith(repr(name))


@pytest.mark.parametrize("name", ["cuda:9999", torch.device("cuda:99"), *([] if CUDA else ["cuda", "cuda:0"])])
def test_devices_that_are_missing_are_told(name):
    with pytest.raises(DeviceUnavailableError, match=rf"'{name}' was asked for, but .*; use 'auto' or 'cpu'") as caught:
        as_device(name)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, NASError)


def test_the_original_never_moves():
    module = nn.Linear(2, 1)
    assert on_device(module, torch.device("cpu")) is module
    moved = on_device(module, torch.device("meta"))
    assert moved.weight.is_meta
    assert not module.weight.is_meta
