"""The device that is not there."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np.utils.testing import PRETENDED, PretendedDevice


def test_operations_give_what_the_cpu_gives():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.cdist(x, x).add_(1.0).t() @ x.mean(dim=1)
    with PretendedDevice():
        there = x.to(PRETENDED)
        product = torch.cdist(there, there).add_(1.0).t() @ there.mean(dim=1)
        assert product.device == there.new_zeros(2).device == torch.zeros(2, device=there.device).device == PRETENDED
        assert float(product.sum()) == pytest.approx(float(expected.sum()))
        assert bool((product > -torch.inf).all())
        assert int(product.argmax()) == int(expected.argmax())
        torch.testing.assert_close(product.cpu(), expected)
    assert str(there).endswith("on xla:0")


def test_what_changes_in_place_is_the_same_tensor():
    with PretendedDevice():
        there = torch.zeros(2, 2).to(PRETENDED)
        assert there.add_(1.0) is there
        there.diagonal().add_(1.0)
        there[0, 1] = 5.0
        assert there.cpu().tolist() == [[2.0, 5.0], [1.0, 2.0]]


def test_tensors_of_two_places_do_not_mix():
    with PretendedDevice():
        there = torch.ones(3).to(PRETENDED)
        with pytest.raises(RuntimeError, match=r"a tensor \[3\] of the CPU beside one on xla:0"):
            there + torch.ones(3)
        assert (there + torch.tensor(2.0)).cpu().tolist() == [3.0, 3.0, 3.0]
