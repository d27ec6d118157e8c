"""The plain PyTorch back end: the shared suite, and oracles that do not depend on it."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np import ops
from pyg_nas_np.ops import reference
from pyg_nas_np.ops.testing import GridTestCase, SetConvTestCase, pointers


class TestSetConv(SetConvTestCase):
    backend = "reference"
    size = 40


class TestGrid(GridTestCase):
    backend = "reference"


def test_against_a_dense_matrix_in_one_line():
    generator = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(n, d, generator=generator, dtype=torch.float64) for n, d in ((20, 3), (20, 4), (15, 3)))
    weights = torch.exp(-0.5 * torch.cdist(z / 0.7, x / 0.7) ** 2)
    with ops.backend("reference"):
        density, signal = ops.set_conv(x, y, z, 0.7, pointers([20]), pointers([15]))
    torch.testing.assert_close(density, weights.sum(1))
    torch.testing.assert_close(signal, weights @ y)


@pytest.mark.parametrize(("kernel", "nu"), [("matern32", 1.5), ("matern52", 2.5)])
def test_matern_kernels_are_those_of_scikit_learn(kernel: str, nu: float):
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    x = torch.linspace(0, 3, 7, dtype=torch.float64).unsqueeze(1)
    with ops.backend("reference"):
        density, _ = ops.set_conv(x[:1], x[:1], x, 0.8, pointers([1]), pointers([7]), kernel=kernel)
    expected = kernels.Matern(length_scale=0.8, nu=nu)(x.numpy(), x[:1].numpy())[:, 0]
    torch.testing.assert_close(density, torch.from_numpy(expected))


def test_chunks_of_targets_do_not_show(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(n, d, generator=generator, dtype=torch.float64) for n, d in ((20, 3), (20, 4), (15, 3)))
    leaves = [v.requires_grad_() for v in (x, y, z)]
    results = []
    for chunk in (1 << 24, 50):
        monkeypatch.setattr(reference, "_CHUNK", chunk)
        with ops.backend("reference"):
            outputs = ops.set_conv(*leaves, 0.7, pointers([20]), pointers([15]), normalize=True)
            results.append([*outputs, *torch.autograd.grad([o.square().sum() for o in outputs], leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
