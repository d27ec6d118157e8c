r"""A bank of exact Gaussian processes with learned hyperparameters, as input channels of a neural process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyg_nas_np.tasks import TaskBatch


class BankMoments(NamedTuple):
    r"""What the members of a bank say about each architecture.

    Shapes:
        - **context_mean**, **context_var:** ``[N, K]``, leave-one-out predictions of the labelled architectures.
        - **target_mean**, **target_var:** ``[M, K]``, posterior of a new measurement.
        - **evidence:** ``[B, K]``, log leave-one-out predictive density, mean over the context.
    """

    context_mean: Tensor
    context_var: Tensor
    target_mean: Tensor
    target_var: Tensor
    evidence: Tensor


class GPBank(nn.Module):
    r"""Exact additive Matérn-3/2 Gaussian processes over feature groups, ``K`` settings side by side.

    All moments are closed form and differentiable, so that meta-training fits the ``K`` settings to its tasks
    (leave-one-out formulas: Rasmussen and Williams 2006, section 5.4.2).

    Args:
        groups: Columns of each feature group.
        num_members: Number ``K`` of settings.

    Example:
        >>> x, z = torch.randn(6, 3), torch.randn(6)
        >>> tasks = TaskBatch(x, z, torch.randn(9, 3), torch.tensor([0, 2, 6]), torch.tensor([0, 4, 9]))
        >>> GPBank([[0], [1, 2]], num_members=2)(tasks).target_mean.shape
        torch.Size([9, 2])
    """

    def __init__(self, groups: Sequence[Sequence[int]], num_members: int = 4) -> None:
        super().__init__()
        if num_members < 1 or not groups or not all(groups):
            raise ValueError(f"a bank needs members and non-empty groups, got {num_members} and {groups!r}")
        self.groups = [list(group) for group in groups]
        self.num_members = num_members
        self.log_lengthscale = nn.Parameter(torch.empty(num_members, len(groups)))
        self.log_variance = nn.Parameter(torch.empty(num_members, len(groups)))
        self.log_noise = nn.Parameter(torch.empty(num_members))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Spreads the members over the hyperprior: from smooth and noisy to rough and exact."""
        step = torch.linspace(-1.0, 1.0, self.num_members) if self.num_members > 1 else torch.zeros(1)
        with torch.no_grad():
            self.log_lengthscale.copy_((0.7 - 0.7 * step).unsqueeze(1).expand_as(self.log_lengthscale))
            self.log_variance.fill_(-math.log(len(self.groups)))
            self.log_noise.copy_(math.log(0.1) - step)

    def forward(self, tasks: TaskBatch) -> BankMoments:
        r"""Conditions every member on every context."""
        context, target = tasks.ptr_context.tolist(), tasks.ptr_target.tolist()
        parts = []
        for b in range(len(tasks)):
            own, other = slice(context[b], context[b + 1]), slice(target[b], target[b + 1])
            parts.append(self._condition(tasks.x_context[own], tasks.z_context[own], tasks.x_target[other]))
        loo_mean, loo_var, mean, var, evidence = zip(*parts, strict=True)
        return BankMoments(
            torch.cat(loo_mean), torch.cat(loo_var), torch.cat(mean), torch.cat(var), torch.stack(evidence)
        )

    def _condition(self, x: Tensor, z: Tensor, x_star: Tensor) -> tuple[Tensor, ...]:
        # Cholesky factors of smooth kernels over a few hundred near-twins need double precision.
        x, z, x_star = x.double(), z.double(), x_star.double()
        noise = self.log_noise.double().exp()
        prior = self.log_variance.double().exp().sum(dim=1)
        covariance = self._kernel(x, x) + noise.view(-1, 1, 1) * torch.eye(x.size(0), dtype=x.dtype, device=x.device)
        factor = torch.linalg.cholesky(covariance)
        precision = torch.cholesky_inverse(factor)
        weights = precision @ z
        loo_var = 1.0 / precision.diagonal(dim1=1, dim2=2)
        loo_mean = z - weights * loo_var
        cross = self._kernel(x_star, x)
        mean = (cross @ weights.unsqueeze(2)).squeeze(2)
        solved = torch.linalg.solve_triangular(factor, cross.transpose(1, 2), upper=False)
        var = (prior + noise).unsqueeze(1) - solved.square().sum(dim=1)
        evidence = -0.5 * ((z - loo_mean).square() / loo_var + loo_var.log()).mean(dim=1)
        moments = (loo_mean.t(), loo_var.t(), mean.t(), var.clamp_min(1e-6).t(), evidence)
        return tuple(m.float() for m in moments)

    def _kernel(self, x: Tensor, y: Tensor) -> Tensor:
        inverse = math.sqrt(3.0) * (-self.log_lengthscale.double()).exp()
        variance = self.log_variance.double().exp()
        total = x.new_zeros(self.num_members, x.size(0), y.size(0))
        for g, columns in enumerate(self.groups):
            distance = _distance(x[:, columns], y[:, columns]) / math.sqrt(len(columns))
            r = inverse[:, g].view(-1, 1, 1) * distance
            total = total + variance[:, g].view(-1, 1, 1) * (1.0 + r) * (-r).exp()
        return total

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.groups)} groups, num_members={self.num_members})"


def _distance(x: Tensor, y: Tensor) -> Tensor:
    # Architectures carry no gradient, so that the square root's infinite slope at zero does not matter.
    return torch.cdist(x.detach(), y.detach())
