r"""Kernels over pairs of an architecture and a level: how labels of short trainings go with those of full ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from pyg_nas_np.predictors.kernels import Cross, Draw, Kernel, LogPrior, Pullback, constant

SLOPE = LogPrior(0.3, 0.5)
"""Prior of what an effect loses from the highest level down to the lowest, relative to its size. It may change its sign
on the way: what is better in the end may be worse at first."""

OWN = LogPrior(math.log(0.5), 0.7)
"""Prior of the size of what is peculiar to lower levels, relative to the effect."""


class AlongLevels(Kernel):
    r"""A kernel over architectures times one over places: an effect and what becomes of it at lower levels.

    Places are 0 at the level to predict and decrease to -1 at the lowest. With functions :math:`f` and :math:`g` of the
    inner kernel, the effect at a place :math:`u` is :math:`(1 + c\,u)\,f + d\,u\,g`, so that the inner covariance is
    multiplied by :math:`(1 + c\,u)(1 + c\,u') + d^2 u\,u'`. With :math:`c > 1` it has the opposite sign at the lowest
    level. Unlike other hyperparameters, :math:`c` is a number of any sign and not given by its logarithm.

    Args:
        inner: The kernel over architectures.
        column: Column of the places.
        slope: Prior of :math:`c`.
        own: Prior of :math:`\log d`.

    Example:
        >>> from pyg_nas_np.predictors.kernels import Linear
        >>> kernel = AlongLevels(Linear([0]), 1)
        >>> x = torch.tensor([[1.0, 0.0], [1.0, -1.0]])
        >>> kernel(x, x, torch.tensor([0.0, 1.5, -9.0])).round(decimals=2)
        tensor([[ 1.0000, -0.5000],
                [-0.5000,  0.2500]])
    """

    def __init__(self, inner: Kernel, column: int, *, slope: LogPrior = SLOPE, own: LogPrior = OWN) -> None:
        self.inner, self.column = inner, column
        self.priors, self.names = [*inner.priors, slope, own], [*inner.names, "slope", "own"]

    @override
    def statistics(self, x: Tensor) -> Tensor:
        # Statistics of every kernel have a row for each point in the last dimension but one.
        own = self.inner.statistics(x)
        places = x[:, self.column].to(own.dtype).unsqueeze(1).expand(*own.shape[:-1], 1)
        return torch.cat([own, places], dim=-1)

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        places = statistics[..., -1].reshape(-1, statistics.size(-2))[0]
        value, pull = self.inner.covariance(statistics[..., :-1].contiguous(), theta[:-2])
        kept, own = self._factors(places, theta)
        along = torch.outer(kept, kept).addr_(own, own)

        def pullback(sensitivity: Tensor) -> Tensor:
            part = sensitivity * value
            slope, size = 2.0 * (places @ part @ kept), 2.0 * (own @ part @ own)
            return torch.cat([pull(sensitivity * along), torch.stack([slope, size])])

        return value * along, pullback

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        inner = self.inner.cross(points, theta[:-2])
        kept, own = self._factors(points[:, self.column], theta)

        def add(x: Tensor, out: Tensor) -> None:
            value = torch.zeros_like(out)
            inner(x, value)
            here, there = self._factors(x[:, self.column], theta)
            # Rows that are predicted are mostly of one level, that at 0, where nothing is added.
            along = torch.outer(here, kept)
            out.add_(value.mul_(along.addr_(there, own) if bool(there.any()) else along))

        return add

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        kept, own = self._factors(x[:, self.column].double(), theta)
        return self.inner.diagonal(x, theta[:-2]) * (kept.square() + own.square())

    def from_top(self, x: Tensor, place: float, theta: Tensor) -> Tensor:
        r"""Returns the covariance of each row at place 0 with itself at another one, ``[m]``."""
        return self.inner.diagonal(x, theta[:-2]) * (1.0 + float(theta[-2]) * place)

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        effect, other = (self.inner.draw(theta[:-2], num, generator, num_features) for _ in range(2))

        def evaluate(x: Tensor) -> Tensor:
            kept, own = self._factors(x[:, self.column].double(), theta)
            return kept.unsqueeze(1) * effect(x) + own.unsqueeze(1) * other(x)

        return evaluate

    def _factors(self, places: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        slope, log_own = theta[-2:].tolist()
        return 1.0 + slope * places, math.exp(log_own) * places


class Shared(Kernel):
    r"""An independent value for each number in a column, shared by the rows that have it.

    Args:
        column: The column.
        variance: Prior of the variance.
        unknown: Rows with this number share nothing. (default: there is none)
    """

    names = ("variance",)

    def __init__(self, column: int, variance: LogPrior, unknown: float | None = None) -> None:
        self.column, self.priors, self.unknown = column, [variance], unknown

    @override
    def statistics(self, x: Tensor) -> Tensor:
        same = self._same(x, x).to(x.dtype)
        same.fill_diagonal_(1.0)
        return same

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        return _scaled(statistics, theta)

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        variance = float(theta.exp())
        return lambda x, out: out.add_(self._same(x, points).to(out.dtype), alpha=variance)

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return constant(theta[0], x)

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        values: dict[float, Tensor] = {}
        normal = _normal(theta, num, generator)

        def evaluate(x: Tensor) -> Tensor:
            drawn = normal(len(x))
            for row, number in enumerate(x[:, self.column].tolist()):
                if number != self.unknown:
                    drawn[row] = values.setdefault(number, drawn[row].clone())
            return drawn

        return evaluate

    def _same(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a[:, self.column].unsqueeze(1), b[:, self.column]
        return a == b if self.unknown is None else (a == b) & (a != self.unknown)


class LowerNoise(Kernel):
    r"""Noise of labels beside that of the highest level: it grows from none there to its variance at the lowest.

    It is of the points alone, so that covariances among these must be taken from their statistics.

    Args:
        column: Column of the places.
        variance: Prior of the variance at the lowest level.
    """

    names = ("variance",)

    def __init__(self, column: int, variance: LogPrior) -> None:
        self.column, self.priors = column, [variance]

    @override
    def statistics(self, x: Tensor) -> Tensor:
        return torch.diag(self._share(x))

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        return _scaled(statistics, theta)

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        # What is predicted is another measurement, whose noise is another.
        return lambda x, out: None

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return float(theta.exp()) * self._share(x).double()

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        normal = _normal(theta, num, generator)
        return lambda x: self._share(x).double().sqrt().unsqueeze(1) * normal(len(x))

    def _share(self, x: Tensor) -> Tensor:
        return (-x[:, self.column]).clamp_min(0.0)


def _scaled(statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
    value = theta.exp() * statistics
    return value, lambda sensitivity: (sensitivity * value).sum().view(1)


def _normal(theta: Tensor, num: int, generator: torch.Generator) -> Callable[[int], Tensor]:
    """Draws of the variance ``exp(theta)``, ``[count, num]`` float64."""
    std = float((0.5 * theta).exp())
    return lambda count: (
        std * torch.randn(count, num, generator=generator, dtype=torch.float64, device=generator.device)
    )
