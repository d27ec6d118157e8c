r"""Covariance functions of the Gaussian process, with their hyperparameters, priors and gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

KernelName = Literal["rbf", "matern32", "matern52"]


class LogPrior(NamedTuple):
    r"""Gaussian prior of the logarithm of a hyperparameter."""

    mean: float
    std: float


# Set by hand for standardised inputs and scores: a group may matter or not, labels carry about 8 % noise. No search
# over them is on record. Full Bayes under them changes tau by less than .003 on four tables (CONTRIBUTING.md).
LENGTH = LogPrior(0.3, 0.7)
r"""Prior of length-scales of groups of columns, whose distances are divided by the root of their number."""

VARIANCE = LogPrior(-1.0, 1.5)
r"""Prior of the variance of one kernel."""

NOISE = LogPrior(math.log(0.08), 1.0)
r"""Prior of the noise variance."""


def ard_length(num_columns: int) -> LogPrior:
    r"""Returns the prior of each of ``D`` length-scales of a product kernel: it grows with :math:`\sqrt D`.

    The scaling is that of `Hvarfner et al. (2024) <https://arxiv.org/abs/2402.02229>`_. Without it, products over many
    columns cannot distinguish any two points. Centre and width were chosen on 22 tables of spaces outside the
    benchmarks (macro spaces, transformers, hyperparameters), where neither halving nor doubling them was better.
    """
    return LogPrior(math.log(1.5) + 0.5 * math.log(num_columns), 1.0)


# -- radial functions -----------------------------------------------------------------------------------------------


def _rbf(r: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.exp(-0.5 * r * r)
    return value, value


def _matern32(r: Tensor) -> tuple[Tensor, Tensor]:
    a = math.sqrt(3.0) * r
    decay = torch.exp(-a)
    return (1.0 + a) * decay, 3.0 * decay


def _matern52(r: Tensor) -> tuple[Tensor, Tensor]:
    a = math.sqrt(5.0) * r
    decay = torch.exp(-a)
    rising = 1.0 + a
    return (rising + a * a / 3.0) * decay, (5.0 / 3.0) * rising * decay


RADIAL: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "rbf": _rbf,
    "matern32": _matern32,
    "matern52": _matern52,
}
r"""Each maps distances :math:`r` in length-scales to the kernel :math:`k` and to :math:`-2\, dk / d(r^2)`, which is
finite at 0; times :math:`r^2` it is the derivative with respect to the log length-scale."""


def radial_(kind: KernelName, r: Tensor) -> Tensor:
    r"""Overwrites distances in length-scales by the kernel alone, at half the cost of :data:`RADIAL`."""
    if kind == "rbf":
        return r.square_().mul_(-0.5).exp_()
    a = r.mul_(math.sqrt(3.0 if kind == "matern32" else 5.0))
    decay = a.neg().exp_()
    polynomial = a.add_(1.0) if kind == "matern32" else a.addcmul_(a, a, value=1 / 3).add_(1.0)
    return polynomial.mul_(decay)


# -- kernels --------------------------------------------------------------------------------------------------------

Pullback: TypeAlias = Callable[[Tensor], Tensor]
r"""Maps a symmetric d loss / d K, ``[n, n]``, to d loss / d theta."""

Cross: TypeAlias = Callable[[Tensor, Tensor], object]
r"""Adds the covariance between rows ``[m, ...]`` and fixed points to an output ``[m, n]``."""

Draw: TypeAlias = Callable[[Tensor], Tensor]
r"""Functions drawn from the prior: values ``[m, num]`` at rows ``[m, ...]``."""


class Kernel(ABC):
    r"""A covariance function with ``P`` hyperparameters, all positive and given by their logarithms ``theta`` ``[P]``.

    Attributes:
        priors: Prior of each hyperparameter.
        names: Name of each, equal names for those that are entries of one vector.
    """

    priors: Sequence[LogPrior]
    names: Sequence[str]

    def __call__(self, a: Tensor, b: Tensor, theta: Tensor) -> Tensor:
        r"""Returns the covariance between rows ``a`` ``[m, ...]`` and ``b`` ``[n, ...]``, ``[m, n]``."""
        out = a.new_zeros(len(a), len(b), dtype=a.dtype if a.is_floating_point() else torch.float64)
        self.cross(b, theta)(a, out)
        return out

    @abstractmethod
    def statistics(self, x: Tensor) -> Tensor:
        r"""Returns the statistics of ``n`` points for :meth:`covariance` that do not depend on hyperparameters."""

    @abstractmethod
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        r"""Returns the covariance among the points ``[n, n]`` and its :data:`Pullback`; float64."""

    @abstractmethod
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        r"""Returns the covariance with fixed points, in the precision and on the device of these."""

    @abstractmethod
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        r"""Returns the variance at ``x`` ``[m, ...]``, ``[m]`` float64."""

    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        r"""Draws functions from the prior.

        Raises:
            NotImplementedError: If the kernel has no finite approximation to draw from.
        """
        raise NotImplementedError(f"{type(self).__name__} has no random features, so that it cannot be sampled")


class Stationary(Kernel):
    r"""A radial kernel on a group of columns with one length-scale; distances do not grow with the number of columns.

    Args:
        columns: Columns of the group.
        kind: A key of :data:`RADIAL`.
        length: Prior of the length-scale, or a fixed length-scale.
        variance: Prior of the variance.

    Raises:
        ValueError: If the kind is unknown.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> Stationary([0], "rbf")(x, x, torch.zeros(2)).round(decimals=3)
        tensor([[1.0000, 0.6070],
                [0.6070, 1.0000]])
    """

    def __init__(
        self,
        columns: Sequence[int],
        kind: KernelName = "matern32",
        *,
        length: LogPrior | float = LENGTH,
        variance: LogPrior = VARIANCE,
    ) -> None:
        self.columns, self.kind = list(columns), _known(kind)
        self.fixed = None if isinstance(length, LogPrior) else length
        self.priors = [length, variance] if isinstance(length, LogPrior) else [variance]
        self.names = ["length_scale", "variance"][-len(self.priors) :]

    @override
    def statistics(self, x: Tensor) -> Tensor:
        part = self._scaled(x, 1.0)
        return torch.cdist(part, part)

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        length, variance = self._values(theta)
        r = statistics / length
        value, weight = RADIAL[self.kind](r)
        value = variance * value

        def pullback(sensitivity: Tensor) -> Tensor:
            along = [_inner(value, sensitivity)]
            if self.fixed is None:
                slope = weight * r.square_()
                along.insert(0, variance * _inner(slope, sensitivity))
            return torch.stack(along)

        return value, pullback

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        length, variance = self._values(theta)
        own = self._scaled(points, length)
        return lambda x, out: out.add_(radial_(self.kind, torch.cdist(self._scaled(x, length), own)), alpha=variance)

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return constant(theta[-1], x)

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        length, variance = self._values(theta)
        waves = _waves(self.kind, len(self.columns), num_features, variance, num, generator)
        return lambda x: waves(self._scaled(x, length))

    def _values(self, theta: Tensor) -> tuple[float, float]:
        values = theta.exp().tolist()
        return (values[0], values[1]) if self.fixed is None else (self.fixed, values[0])

    def _scaled(self, x: Tensor, length: float) -> Tensor:
        return take(x, self.columns) / math.sqrt(len(self.columns)) / length


class Linear(Kernel):
    r"""The inner product of some columns: a linear function that is zero at the centre.

    Args:
        columns: Columns of the group.
        variance: Prior of the variance of each coefficient.
        centre: Value of every column at which the function is zero.
    """

    names = ("variance",)

    def __init__(self, columns: Sequence[int], variance: LogPrior = VARIANCE, centre: float = 0.0) -> None:
        self.columns = list(columns)
        self.priors = [variance]
        self.centre = centre

    def _part(self, x: Tensor) -> Tensor:
        part = take(x, self.columns)
        return part - self.centre if self.centre else part

    @override
    def statistics(self, x: Tensor) -> Tensor:
        part = self._part(x)
        return part @ part.t()

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        return _scaled_matrix(statistics, theta)

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        own, variance = self._part(points).t(), float(theta.exp())
        return lambda x, out: out.addmm_(self._part(x), own, alpha=variance)

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return float(theta.exp()) * self._part(x).square().sum(dim=1)

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        slopes = _normal(generator)(len(self.columns), num) * (0.5 * theta).exp()
        return lambda x: self._part(x) @ slopes


class Tied(Kernel):
    r"""The mean of radial kernels, one per block of columns, with one length-scale and one variance for all.

    The prior of an additive function of many parameters with only two hyperparameters. As in :class:`Stationary`,
    distances do not grow with the number of columns of a block.

    Args:
        blocks: Columns, each with its own kernel, or lists of columns that share one.
        kind: A key of :data:`RADIAL`.
        length: Prior of the length-scale.
        variance: Prior of the variance of the whole.

    Raises:
        ValueError: If the kind is unknown.

    Example:
        >>> x = torch.tensor([[0.0, 5.0], [0.0, 9.0]])
        >>> bool(Tied([0, 1])(x, x, torch.zeros(2))[0, 1] > 0.5)  # they agree in one of two columns
        True
    """

    names = ("length_scale", "variance")

    def __init__(
        self,
        blocks: Sequence[int | Sequence[int]],
        kind: KernelName = "matern32",
        *,
        length: LogPrior = LENGTH,
        variance: LogPrior = VARIANCE,
    ) -> None:
        self.blocks = [[block] if isinstance(block, int) else list(block) for block in blocks]
        self.kind, self.priors = _known(kind), [length, variance]

    @override
    def statistics(self, x: Tensor) -> Tensor:
        return torch.stack([_distances(part, part) for part in self._parts(x, 1.0)])

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        length, variance = theta.exp().tolist()
        count = statistics.size(1)
        value, slope = statistics.new_zeros(2, count, count)
        # Some blocks at a time stay in the processor's cache.
        for distances in statistics.split(max(1, _BLOCK // count**2)):
            r = distances / length
            k, weight = RADIAL[self.kind](r)
            value += k.sum(dim=0)
            slope += weight.mul(r.square_()).sum(dim=0)
        share = variance / len(self.blocks)
        value *= share

        def pullback(sensitivity: Tensor) -> Tensor:
            return torch.stack([share * _inner(slope, sensitivity), _inner(value, sensitivity)])

        return value, pullback

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        length, variance = theta.exp().tolist()
        own, share = self._parts(points, length), variance / len(self.blocks)

        def add(x: Tensor, out: Tensor) -> None:
            for part, other in zip(self._parts(x, length), own, strict=True):
                out.add_(radial_(self.kind, _distances(part, other)), alpha=share)

        return add

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return constant(theta[-1], x)

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        length, variance = theta.exp().tolist()
        # The features are shared out among the blocks, so that their number need not grow with that of the blocks.
        each = max(_LEAST_FEATURES, math.ceil(num_features / len(self.blocks)))
        share = variance / len(self.blocks)
        waves = [_waves(self.kind, len(block), each, share, num, generator) for block in self.blocks]

        def evaluate(x: Tensor) -> Tensor:
            total = torch.zeros(len(x), num, dtype=torch.float64, device=x.device)
            for part, wave in zip(self._parts(x, length), waves, strict=True):
                total += wave(part)
            return total

        return evaluate

    def _parts(self, x: Tensor, length: float) -> list[Tensor]:
        return [take(x, block) / math.sqrt(len(block)) / length for block in self.blocks]


class ARD(Kernel):
    r"""A product over columns: one radial kernel with a length-scale for each column.

    Args:
        columns: The ``D`` columns.
        kind: A key of :data:`RADIAL`.
        length: Prior of each length-scale. (default: :func:`ard_length`)
        variance: Prior of the variance.

    Raises:
        ValueError: If the kind is unknown.

    Example:
        >>> x = torch.tensor([[0.0, 5.0], [0.0, 9.0]])
        >>> bool(ARD([0, 1])(x, x, torch.zeros(3))[0, 1] < 0.1)  # they differ far in one column
        True
    """

    def __init__(
        self,
        columns: Sequence[int],
        kind: KernelName = "matern52",
        *,
        length: LogPrior | None = None,
        variance: LogPrior = VARIANCE,
    ) -> None:
        self.columns, self.kind = list(columns), _known(kind)
        width = len(self.columns)
        self.priors = [length or ard_length(width)] * width + [variance]
        self.names = ["length_scale"] * width + ["variance"]

    @override
    def statistics(self, x: Tensor) -> Tensor:
        return take(x, self.columns)

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        u, variance = statistics / theta[:-1].exp(), float(theta[-1].exp())
        value, weight = RADIAL[self.kind](torch.cdist(u, u))
        value = variance * value

        def pullback(sensitivity: Tensor) -> Tensor:
            # d loss / d log l_d = sum_ij w_ij (u_id - u_jd)², for all d by one product.
            w = variance * weight * sensitivity
            along_lengths = 2.0 * ((w.sum(dim=1, keepdim=True) * u - w @ u) * u).sum(dim=0)
            return torch.cat([along_lengths, _inner(value, sensitivity).view(1)])

        return value, pullback

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        lengths, variance = theta[:-1].exp().to(points), float(theta[-1].exp())
        own = take(points, self.columns) / lengths
        return lambda x, out: out.add_(
            radial_(self.kind, torch.cdist(take(x, self.columns) / lengths, own)), alpha=variance
        )

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return constant(theta[-1], x)

    @override
    def draw(self, theta: Tensor, num: int, generator: torch.Generator, num_features: int) -> Draw:
        waves = _waves(self.kind, len(self.columns), num_features, float(theta[-1].exp()), num, generator)
        lengths = theta[:-1].exp()
        return lambda x: waves(take(x, self.columns) / lengths)


class Precomputed(Kernel):
    r"""Any positive semi-definite function of two inputs; inputs may be anything with rows: indices, colours of graphs.

    Args:
        between: Maps rows ``[m, ...]`` and ``[n, ...]`` to ``[m, n]`` float64.
        variance: Prior of a factor. (default: no factor and no hyperparameter)

    Example:
        >>> table = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> rows = torch.tensor([0, 1, 1])
        >>> Precomputed(lambda a, b: table[a][:, b]).diagonal(rows, torch.empty(0))
        tensor([2., 3., 3.])
    """

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], variance: LogPrior | None = None) -> None:
        self.between = between
        self.priors = [] if variance is None else [variance]
        self.names = ["variance"][: len(self.priors)]

    @override
    def statistics(self, x: Tensor) -> Tensor:
        return self.between(x, x)

    @override
    def covariance(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
        return _scaled_matrix(statistics, theta)

    @override
    def cross(self, points: Tensor, theta: Tensor) -> Cross:
        variance = float(theta.sum().exp())
        return lambda x, out: out.add_(self.between(x, points), alpha=variance)

    @override
    def diagonal(self, x: Tensor, theta: Tensor) -> Tensor:
        return theta.sum().exp() * torch.cat([self.between(row, row).view(1) for row in x.split(1)])


def additive_kernels(
    columns: Mapping[str, Sequence[int]], kind: KernelName = "matern32", *, linear: Sequence[str] = ()
) -> dict[str, Kernel]:
    r"""Returns one kernel per group of columns, radial ones first.

    Args:
        columns: Columns of each group.
        kind: A key of :data:`RADIAL`.
        linear: Groups whose kernel is the inner product.

    Raises:
        ValueError: If the kind is unknown, or :obj:`linear` names no group.

    Example:
        >>> list(additive_kernels({"first": [0], "rest": [1, 2]}, linear=("first",)))
        ['rest', 'first']
    """
    _known(kind)
    if unknown := [name for name in linear if name not in columns]:
        raise ValueError(f"linear names {unknown[0]!r}; groups: {', '.join(columns)}")
    radial = {name: Stationary(part, kind) for name, part in columns.items() if name not in linear}
    return {**radial, **{name: Linear(columns[name]) for name in linear}}


def constant(theta: Tensor, x: Tensor) -> Tensor:
    r"""Returns the same variance, given by its logarithm, for each row of ``x`` ``[m, ...]``, ``[m]`` float64."""
    return torch.full((len(x),), float(theta.exp()), dtype=torch.float64, device=x.device)


def take(x: Tensor, columns: list[int]) -> Tensor:
    r"""Returns some columns; a view if they are contiguous."""
    start, stop = columns[0], columns[-1] + 1
    return x[:, start:stop] if columns == list(range(start, stop)) else x[:, columns]


_BLOCK = 1 << 17
_LEAST_FEATURES = 32


def _known(kind: KernelName) -> KernelName:
    if kind not in RADIAL:
        raise ValueError(f"kernel must be one of {', '.join(RADIAL)}, got {kind!r}")
    return kind


def _scaled_matrix(matrix: Tensor, theta: Tensor) -> tuple[Tensor, Pullback]:
    """A fixed matrix times the only hyperparameter, or without any."""
    if theta.numel() == 0:
        return matrix, lambda sensitivity: sensitivity.new_empty(0)
    value = theta.exp() * matrix
    return value, lambda sensitivity: _inner(value, sensitivity).view(1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # By differences: exact, and of one column faster than products.
    return (a - b.t()).abs_() if a.size(1) == 1 else torch.cdist(a, b)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _normal(generator: torch.Generator) -> Callable[..., Tensor]:
    return partial(torch.randn, generator=generator, dtype=torch.float64, device=generator.device)


def _waves(
    kind: KernelName,
    width: int,
    num_features: int,
    variance: float,
    num: int,
    generator: torch.Generator,
) -> Draw:
    """Functions of inputs in length-scales by random Fourier features."""
    normal = _normal(generator)
    frequency = normal(width, num_features)
    if kind != "rbf":  # the spectrum of a Matérn kernel is a multivariate t
        degrees = 3 if kind == "matern32" else 5
        frequency = frequency * (degrees / normal(degrees, num_features).square().sum(dim=0)).sqrt()
    uniform = torch.rand(num_features, generator=generator, dtype=torch.float64, device=generator.device)
    phase = 2 * math.pi * uniform
    weights = normal(num_features, num) * math.sqrt(2 * variance / num_features)

    def evaluate(u: Tensor) -> Tensor:
        return torch.cos(u @ frequency + phase) @ weights

    return evaluate
