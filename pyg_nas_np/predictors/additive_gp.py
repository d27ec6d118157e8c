r"""An exact Gaussian process, additive over groups of features, with fitted or given hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from typing_extensions import Self

KernelName = Literal["rbf", "matern32", "matern52"]

MAX_FIT = 512
"""Hyperparameters come from at most this many points; the posterior uses all."""

CHUNK = 1024
"""Points predicted at a time; their covariances fit into the processor's cache."""

# Mean and standard deviation of the Gaussian priors of log length-scale, log signal variance, log noise variance.
_PRIOR = {"length": (0.3, 0.7), "signal": (-1.0, 1.5), "noise": (math.log(0.08), 1.0)}


def _rbf(r: Tensor) -> tuple[Tensor, Tensor]:
    square = r * r
    value = torch.exp(-0.5 * square)
    return value, square * value


def _matern32(r: Tensor) -> tuple[Tensor, Tensor]:
    a = math.sqrt(3.0) * r
    decay = torch.exp(-a)
    return (1.0 + a) * decay, a * a * decay


def _matern52(r: Tensor) -> tuple[Tensor, Tensor]:
    a = math.sqrt(5.0) * r
    decay = torch.exp(-a)
    third = a * a / 3.0
    return (1.0 + a + third) * decay, third * (1.0 + a) * decay


KERNELS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "rbf": _rbf,
    "matern32": _matern32,
    "matern52": _matern52,
}
r"""Each maps distances in length-scales to the kernel and its derivative by the log length-scale."""


def kernel_(name: KernelName, r: Tensor) -> Tensor:
    r"""Overwrites distances in length-scales by the kernel alone, at half the cost of :data:`KERNELS`."""
    if name == "rbf":
        return r.square_().mul_(-0.5).exp_()
    a = r.mul_(math.sqrt(3.0 if name == "matern32" else 5.0))
    decay = a.neg().exp_()
    polynomial = a.add_(1.0) if name == "matern32" else a.addcmul_(a, a, value=1 / 3).add_(1.0)
    return polynomial.mul_(decay)


class AdditiveGP:
    r"""Exact Gaussian process regression with one kernel a group of features.

    Args:
        columns: Columns of each group.
        kernel: A key of :data:`KERNELS`.
        linear: Groups whose kernel is the plain inner product.
        max_iter: Iterations of L-BFGS in :meth:`fit`.

    Raises:
        ValueError: If the kernel is unknown, or :obj:`linear` names no group.

    Example:
        >>> x, z = torch.randn(20, 3).double(), torch.randn(20).double()
        >>> process = AdditiveGP({"first": [0], "rest": [1, 2]}, linear=("rest",)).fit(x, z)
        >>> process.predict(x)[0].shape, process.leave_one_out()[0].shape
        (torch.Size([20]), torch.Size([20]))
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[int]],
        kernel: KernelName = "matern32",
        *,
        linear: Sequence[str] = (),
        max_iter: int = 60,
    ) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if unknown := [name for name in linear if name not in columns]:
            raise ValueError(f"linear names {unknown[0]!r}; groups: {', '.join(columns)}")
        self.radial = {name: list(part) for name, part in columns.items() if name not in linear}
        self.linear = {name: list(columns[name]) for name in linear}
        self.kernel: KernelName = kernel
        self.max_iter = max_iter

    @property
    def hyperparameters(self) -> dict[str, dict[str, float] | float]:
        r"""``length_scale`` and ``variance`` of each group, and ``noise`` (a variance), on the scale of the targets."""
        count = len(self.radial)
        values = self.theta.exp().tolist()
        return {
            "length_scale": dict(zip(self.radial, values[:count], strict=True)),
            "variance": dict(zip([*self.radial, *self.linear], values[count:-1], strict=True)),
            "noise": values[-1],
        }

    def fit(self, x: Tensor, z: Tensor) -> Self:
        r"""Finds the maximum a posteriori of the hyperparameters and conditions on ``x`` ``[n, F]``, ``z`` ``[n]``."""
        x, z = x.double(), z.double()
        some = torch.randperm(z.numel(), generator=torch.Generator().manual_seed(0))[:MAX_FIT]
        return self.condition(x, z, self._maximize(x[some], z[some]))

    def condition(self, x: Tensor, z: Tensor, theta: Tensor | None = None) -> Self:
        r"""Conditions on points with given hyperparameters.

        Args:
            x: ``[n, F]``.
            z: ``[n]``.
            theta: Log length-scales of the radial groups, log variances of all groups (linear ones last) and log
                noise. (default: the means of their priors)
        """
        self.theta = self._prior()[0] if theta is None else theta
        self.x, self.z = x.double(), z.double()
        covariance = self._cross(self.x)
        covariance.diagonal().add_(self.theta[-1].exp())
        self._factor = torch.linalg.cholesky(covariance)
        self._weights = torch.cholesky_solve(self.z.unsqueeze(1), self._factor).squeeze(1)
        return self

    def predict(self, x: Tensor, return_std: bool = True) -> tuple[Tensor, Tensor | None]:
        r"""Returns mean and standard deviation (noise included) of new measurements at ``x`` ``[m, F]``."""
        variances = self._variances()
        fixed = variances[: len(self.radial)].sum() + self.theta[-1].exp()
        means, spreads = [], []
        for part in torch.split(x, CHUNK):
            # Kernels need no more precision than their inputs have; what is solved with them does.
            cross = self._cross(part).double()
            means.append(cross @ self._weights)
            if return_std:
                total = fixed.expand(part.size(0))
                for values, variance in zip(self._linear(part), variances[len(self.radial) :], strict=True):
                    total = total + variance * values.square().sum(dim=1)
                explained = torch.linalg.solve_triangular(self._factor, cross.t(), upper=False).square().sum(dim=0)
                spreads.append(total - explained)
        mean = torch.cat(means)
        return mean, torch.cat(spreads).clamp_min(1e-12).sqrt() if return_std else None

    def variance(self, x: Tensor) -> Tensor:
        r"""Returns the variance of the function, without noise, at ``x`` ``[m, F]``."""
        std = self.predict(x)[1]
        assert std is not None
        return std.square() - self.theta[-1].exp()

    def sample(self, x: Tensor, num: int, generator: torch.Generator, num_features: int = 512) -> Tensor:
        r"""Draws functions from the posterior, jointly over all of ``x`` ``[m, F]``: ``[num, m]``, without noise.

        Pathwise conditioning (Wilson et al. 2020): a draw of the prior by random Fourier features of each radial group
        is corrected at the points, at a cost linear in ``m``.

        Args:
            x: Where.
            num: Number of functions.
            generator: Source of randomness.
            num_features: Random Fourier features of each radial group.
        """
        prior = self._draw_prior(num, generator, num_features)
        noise = torch.randn(num, self.z.numel(), generator=generator, dtype=torch.float64)
        residual = self.z - prior(self.x) - (0.5 * self.theta[-1]).exp() * noise
        update = torch.cholesky_solve(residual.t(), self._factor)
        return torch.cat([prior(part) + (self._cross(part) @ update).t() for part in torch.split(x.double(), CHUNK)], 1)

    def _draw_prior(self, num: int, generator: torch.Generator, num_features: int) -> Callable[[Tensor], Tensor]:
        count = len(self.radial)
        lengths, variances = self.theta[:count].exp(), self._variances()

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        waves = []
        degrees = {"matern32": 3, "matern52": 5}.get(self.kernel)
        for columns, length, variance in zip(self.radial.values(), lengths, variances, strict=False):
            frequency = normal(len(columns), num_features) / length
            if degrees is not None:  # the spectrum of a Matérn kernel is a multivariate t
                frequency = frequency * (degrees / normal(degrees, num_features).square().sum(dim=0)).sqrt()
            phase = 2 * math.pi * torch.rand(num_features, generator=generator, dtype=torch.float64)
            waves.append((frequency, phase, normal(num_features, num) * (2 * variance / num_features).sqrt()))
        slopes = [
            normal(len(columns), num) * variance.sqrt()
            for columns, variance in zip(self.linear.values(), variances[count:], strict=True)
        ]

        def prior(x: Tensor) -> Tensor:
            total = torch.zeros(x.size(0), num, dtype=torch.float64)
            for part, (frequency, phase, weight) in zip(self._split(x), waves, strict=True):
                total += torch.cos(part @ frequency + phase) @ weight
            for part, slope in zip(self._linear(x), slopes, strict=True):
                total += part @ slope
            return total.t()

        return prior

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        r"""Returns mean and standard deviation at every point given the others, ``[n]`` each.

        The closed form of Rasmussen and Williams (2006), section 5.4.2.
        """
        variance = 1.0 / torch.cholesky_inverse(self._factor).diagonal()
        return self.z - self._weights * variance, variance.sqrt()

    def _prior(self) -> tuple[Tensor, Tensor]:
        radial, every = len(self.radial), len(self.radial) + len(self.linear)
        centre, scale = (
            torch.tensor([_PRIOR["length"][i]] * radial + [_PRIOR["signal"][i]] * every + [_PRIOR["noise"][i]]).double()
            for i in (0, 1)
        )
        return centre, scale

    def _variances(self) -> Tensor:
        return self.theta[len(self.radial) : -1].exp()

    def _maximize(self, x: Tensor, z: Tensor) -> Tensor:
        count = z.numel()
        distances = x.new_empty(len(self.radial), count, count)
        for distance, part in zip(distances, self._split(x), strict=True):
            distance.copy_(torch.cdist(part, part))
        products = x.new_empty(len(self.linear), count, count)
        for product, part in zip(products, self._linear(x), strict=True):
            torch.mm(part, part.t(), out=product)
        centre, scale = self._prior()

        def objective(theta: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
            loss, gradient = negative_log_posterior(
                torch.from_numpy(theta), distances, products, z, KERNELS[self.kernel], centre, scale
            )
            return loss, gradient.numpy()

        bounds = list(zip((centre - 5 * scale).tolist(), (centre + 5 * scale).tolist(), strict=True))
        options = {"maxiter": self.max_iter}
        found = minimize(objective, centre.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return torch.from_numpy(found.x)

    def _split(self, x: Tensor) -> list[Tensor]:
        """Features of each radial group, scaled so that distances do not grow with their number."""
        return [_take(x, columns) / math.sqrt(len(columns)) for columns in self.radial.values()]

    def _linear(self, x: Tensor) -> list[Tensor]:
        return [_take(x, columns) for columns in self.linear.values()]

    def _cross(self, x: Tensor) -> Tensor:
        """Covariance of the latent function between ``x`` and the points, in the precision of ``x``."""
        count, points = len(self.radial), self.x.to(x.dtype)
        lengths, variances = self.theta[:count].exp().tolist(), self._variances().tolist()
        total = x.new_zeros(x.size(0), points.size(0))
        for part, own, length, variance in zip(self._split(x), self._split(points), lengths, variances, strict=False):
            total.add_(kernel_(self.kernel, torch.cdist(part / length, own / length)), alpha=variance)
        for part, own, variance in zip(self._linear(x), self._linear(points), variances[count:], strict=True):
            total.addmm_(part, own.t(), alpha=variance)
        return total


def _take(x: Tensor, columns: list[int]) -> Tensor:
    """Some columns; a view where they lie side by side."""
    start, stop = columns[0], columns[-1] + 1
    return x[:, start:stop] if columns == list(range(start, stop)) else x[:, columns]


def negative_log_posterior(
    theta: Tensor,
    distances: Tensor,
    products: Tensor,
    z: Tensor,
    kernel: Callable[[Tensor], tuple[Tensor, Tensor]],
    centre: Tensor,
    scale: Tensor,
) -> tuple[float, Tensor]:
    r"""Returns the negative log posterior of hyperparameters and its gradient, in closed form.

    Args:
        theta: Log length-scales of ``R`` radial groups, log variances of these and of ``L`` further kernels, log noise.
        distances: Distances of each radial group, ``[R, n, n]``.
        products: The further kernels, ``[L, n, n]``.
        z: Targets, ``[n]``.
        kernel: Maps distances in length-scales to the kernel and its derivative by the log length-scale.
        centre: Mean of the Gaussian prior of :obj:`theta`.
        scale: Its standard deviations.
    """
    count = distances.size(0)
    lengths, variances = theta[:count].exp().view(-1, 1, 1), theta[count:-1].exp()
    noise = theta[-1].exp()
    value, slope = kernel(distances / lengths)
    value = torch.cat([value, products])
    covariance = torch.einsum("g,gij->ij", variances, value)
    covariance.diagonal().add_(noise)
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve(z.unsqueeze(1), factor)
    # d loss / d K = (K⁻¹ - α αᵀ) / 2
    sensitivity = 0.5 * (torch.cholesky_inverse(factor) - weights @ weights.t())
    deviation = (theta - centre) / scale
    loss = 0.5 * z @ weights.squeeze(1) + factor.diagonal().log().sum() + 0.5 * deviation.square().sum()
    along_length = torch.einsum("gij,ij->g", slope, sensitivity) * variances[:count]
    along_signal = torch.einsum("gij,ij->g", value, sensitivity) * variances
    along_noise = sensitivity.trace() * noise
    return float(loss), torch.cat([along_length, along_signal, along_noise.view(1)]) + deviation / scale
