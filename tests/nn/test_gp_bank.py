r"""Oracle: scikit-learn's exact Gaussian process, refitted once a left-out point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from pyg_nas_np.nn import GPBank
from pyg_nas_np.tasks import TaskBatch


def tasks(features: int = 3) -> TaskBatch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, features, generator=generator)
    z = torch.randn(13, generator=generator)
    return TaskBatch(x[:13], z, x[13:], torch.tensor([0, 6, 13]), torch.tensor([0, 10, 17]))


def sklearn_member(bank: GPBank, k: int, features: int) -> GaussianProcessRegressor:
    length = float(bank.log_lengthscale[k, 0].exp()) * np.sqrt(features)
    kernel = ConstantKernel(float(bank.log_variance[k, 0].exp())) * Matern(length, nu=1.5)
    return GaussianProcessRegressor(kernel + WhiteKernel(float(bank.log_noise[k].exp())), optimizer=None)


def test_moments_equal_scikit_learn():
    bank = GPBank([[0, 1, 2]], num_members=3)
    batch = tasks()
    moments = bank(batch)
    for k in range(3):
        for own, other in ((slice(0, 6), slice(0, 10)), (slice(6, 13), slice(10, 17))):
            x, z = batch.x_context[own].numpy(), batch.z_context[own].numpy()
            mean, std = sklearn_member(bank, k, 3).fit(x, z).predict(batch.x_target[other].numpy(), return_std=True)
            assert moments.target_mean[other, k].detach().numpy() == pytest.approx(mean, abs=1e-5)
            assert moments.target_var[other, k].detach().numpy() == pytest.approx(std**2, rel=1e-4)
            for i in range(len(z)):
                rest = np.arange(len(z)) != i
                model = sklearn_member(bank, k, 3).fit(x[rest], z[rest])
                mean, std = model.predict(x[i : i + 1], return_std=True)
                assert float(moments.context_mean[own][i, k]) == pytest.approx(mean[0], abs=1e-5)
                assert float(moments.context_var[own][i, k]) == pytest.approx(std[0] ** 2, rel=1e-4)


def test_gradients_reach_every_hyperparameter():
    bank = GPBank([[0], [1, 2]], num_members=2)
    moments = bank(tasks())
    (moments.target_mean.square().sum() + moments.evidence.sum()).backward()
    for parameter in bank.parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).all()


def test_context_order_does_not_matter():
    bank, batch = GPBank([[0], [1, 2]], num_members=2), tasks()
    order = torch.cat([torch.randperm(6), 6 + torch.randperm(7)])
    shuffled = TaskBatch(
        batch.x_context[order], batch.z_context[order], batch.x_target, batch.ptr_context, batch.ptr_target
    )
    assert torch.allclose(bank(batch).target_mean, bank(shuffled).target_mean, atol=1e-5)
    assert torch.allclose(bank(batch).context_mean[order], bank(shuffled).context_mean, atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="members"):
        GPBank([[0]], num_members=0)
    with pytest.raises(ValueError, match="groups"):
        GPBank([[0], []])
