r"""Acquisition functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LEAST_STD = 1e-9
_LEAST_PROBABILITY = 1e-12


def upper_confidence_bound(mean: Tensor, std: Tensor, beta: float = 1.0) -> Tensor:
    r"""Returns :math:`\mu + \beta\,\sigma`.

    Example:
        >>> upper_confidence_bound(torch.tensor([1.0, 0.5]), torch.tensor([0.1, 1.0]))
        tensor([1.1000, 1.5000])
    """
    return mean + beta * std


def expected_improvement(mean: Tensor, std: Tensor, best: Tensor | float) -> Tensor:
    r"""Expectation of :math:`\max(z - b, 0)` for :math:`z \sim N(\mu, \sigma^2)`.

    .. math::
        \sigma\,\left(u\,\Phi(u) + \varphi(u)\right), \qquad u = (\mu - b) / \sigma

    Args:
        mean: :math:`\mu`.
        std: :math:`\sigma`, not negative.
        best: :math:`b`, broadcast against the others.

    Example:
        >>> expected_improvement(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 0.0)
        tensor([0.3989, 1.0000])
    """
    std = std.clamp_min(_LEAST_STD)
    u = (mean - best) / std
    density = torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    # Far below the best the two terms cancel; rounding must not make the expectation negative.
    improvement: Tensor = std * (u * torch.special.ndtr(u) + density)
    return improvement.clamp_min(0.0)


def feasible_bound(bound: Tensor, probability: Tensor) -> Tensor:
    r"""Returns an upper confidence bound, or a sample, plus the logarithm of the probability of feasibility.

    Scores may be negative, so that a product would favour what is not feasible. The logarithm is what a factor of an
    expected improvement is on the scale of its logarithm: a probability of a half costs .69 standard deviations of the
    labels, one of a hundredth 4.6.

    Args:
        bound: Standardised scores, ``[n]``.
        probability: Between 0 and 1, ``[n]``.

    Example:
        >>> feasible_bound(torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 0.0])).argmax().item()
        0
    """
    return bound + probability.clamp_min(_LEAST_PROBABILITY).log()


def pareto_mask(value: Tensor, cost: Tensor) -> Tensor:
    r"""Returns which points are not dominated: no other point is at least as good in both and better in one.

    Equal points do not dominate each other.

    Args:
        value: Larger is better, ``[n]``.
        cost: Smaller is better, ``[n]``.

    Returns:
        bool ``[n]``.

    Example:
        >>> pareto_mask(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([ True,  True, False])
    """
    if value.numel() == 0:
        return torch.ones(0, dtype=torch.bool)
    costs, group = torch.unique(cost, return_inverse=True)
    top = torch.full(costs.shape, -math.inf, dtype=value.dtype).scatter_reduce_(0, group, value, "amax")
    cheaper = torch.cat([top.new_full((1,), -math.inf), top.cummax(dim=0).values[:-1]])
    return (value == top[group]) & (value > cheaper[group])


def expected_hypervolume_improvement(
    mean: Tensor,
    std: Tensor,
    cost: Tensor,
    front_value: Tensor,
    front_cost: Tensor,
    reference: tuple[float, float],
) -> Tensor:
    r"""Expected hypervolume improvement for an uncertain value and a known cost.

    With a known cost :math:`c`, the improvement is an integral over costs :math:`t` between :math:`c` and the reference
    of the improvement over :math:`b(t)`, the best value of the front at cost at most :math:`t`. As :math:`b` is a step
    function, the expectation is a sum of expected improvements, weighted by the widths of the steps.

    Args:
        mean: Predicted values, larger is better, ``[A]``.
        std: Their standard deviations, ``[A]``.
        cost: Known costs, smaller is better, ``[A]``.
        front_value: Values of points measured so far, ``[n]``; dominated ones do not matter.
        front_cost: Their costs, ``[n]``.
        reference: Value and cost of the reference point.

    Returns:
        ``[A]``.

    Example:
        >>> one = torch.ones(1)
        >>> expected_hypervolume_improvement(2 * one, 0 * one, 1 * one, 1 * one, 2 * one, (0.0, 4.0))
        tensor([4.])
    """
    worst, limit = reference
    kept = pareto_mask(front_value, front_cost) & (front_value > worst) & (front_cost < limit)
    level, order = front_value[kept].unique(return_inverse=True)
    edge = torch.full_like(level, math.inf).scatter_reduce_(0, order, front_cost[kept], "amin")
    level = torch.cat([level.new_full((1,), worst), level])
    start = torch.cat([edge.new_full((1,), -math.inf), edge])
    end = torch.cat([edge, edge.new_full((1,), limit)])
    width = (end - torch.maximum(start, cost.unsqueeze(1))).clamp_min(0.0)
    return (width * expected_improvement(mean.unsqueeze(1), std.unsqueeze(1), level)).sum(dim=1)
