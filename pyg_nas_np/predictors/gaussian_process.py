r"""Exact Gaussian process regression with a sum of kernels: the posterior, its fit, leave-one-out and samples."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.predictors.kernels import NOISE, Kernel, LogPrior, Pullback
from pyg_nas_np.utils import SingularCovarianceError, map_chunks, one_blas_thread

MAX_FIT = 512
"""Hyperparameters are fitted to at most this many points; the posterior uses all."""

CHUNK = {"cpu": 1 << 10, "cuda": 1 << 14}
"""Points predicted at a time; on a CPU their covariances fit into the cache."""

JITTER = (1e-10, 1e-8, 1e-6, 1e-4)
"""Fractions of the mean variance that are added to the diagonal, tried in this order, if rounding has made a covariance
indefinite."""

_REACH = 5.0
"""Largest distance of a log hyperparameter from its prior mean, in standard deviations of the prior."""

_GRID = 31
"""Noise variances between which the most probable one is bracketed, three a standard deviation of their prior."""


class GaussianProcess:
    r"""Exact Gaussian process regression: targets are a prior mean, a sum of independent functions, and noise.

    .. math::
        z_i = m(x_i) + \sum_k f_k(x_i) + \varepsilon_i, \qquad
        f_k \sim \mathcal{GP}(0, k_k), \quad \varepsilon_i \sim \mathcal N(0, \sigma^2 / r_i + v_i)

    All hyperparameters are positive; their logarithms :attr:`theta` are those of the kernels in their order, and that
    of the noise variance last. :meth:`fit` maximises the posterior of the logarithms under Gaussian priors by L-BFGS-B
    with exact gradients, from their means; where the kernels have none, the noise variance alone is found by a search
    over one number, on the eigenvalues of the covariance.

    If rounding has made a covariance indefinite, the smallest sufficient fraction in :data:`JITTER` of its mean
    variance is added to its diagonal.

    Args:
        kernels: Name of each term → its kernel.
        noise: Prior of the noise variance.
        mean: Maps inputs ``[m, ...]`` to the prior mean ``[m]``. (default: zero)
        profiled: Whether to multiply the whole covariance, noise included, by the factor :attr:`scale`, whose maximum
            likelihood given the other hyperparameters has a closed form. Kernels then need no variance; prior
            covariances do not include the factor.
        max_iter: Iterations of L-BFGS-B.
        max_fit: Hyperparameters are fitted to at most this many points, drawn with a fixed seed. (default:
            :data:`MAX_FIT`)

    Raises:
        SingularCovarianceError: From :meth:`fit` and :meth:`condition`, if the covariance is not finite, or indefinite
            beyond rounding.

    Shapes:
        - **inputs:** whatever the kernels take, one per row. Floating inputs are converted to float64, except for
          cross-covariances of targets with the points, which are computed in the precision of the targets.
        - **targets, means and standard deviations:** ``[n]`` float64.

    Example:
        >>> from pyg_nas_np.predictors.kernels import Linear, Stationary
        >>> x, z = torch.randn(20, 3).double(), torch.randn(20).double()
        >>> gp = GaussianProcess({"first": Stationary([0]), "rest": Linear([1, 2])}).fit(x, z)
        >>> gp.predict(x)[0].shape, gp.leave_one_out()[0].shape, gp.theta.shape
        (torch.Size([20]), torch.Size([20]), torch.Size([4]))
    """

    def __init__(
        self,
        kernels: Mapping[str, Kernel],
        *,
        noise: LogPrior = NOISE,
        mean: Callable[[Tensor], Tensor] | None = None,
        profiled: bool = False,
        max_iter: int = 60,
        max_fit: int | None = None,
    ) -> None:
        self.kernels = dict(kernels)
        self.mean, self.profiled = mean, profiled
        self.max_iter, self.max_fit = max_iter, max_fit
        priors = [*(prior for kernel in self.kernels.values() for prior in kernel.priors), noise]
        self.prior_mean, self.prior_std = torch.tensor(priors, dtype=torch.float64, device="cpu").unbind(dim=1)

    # -- hyperparameters --------------------------------------------------------------------------------------------

    @property
    def hyperparameters(self) -> dict[str, Any]:
        r"""Values on the scale of the targets: name of the hyperparameter → name of the kernel → value, and ``noise``.

        Length-scales of a product kernel are a list.
        """
        result: dict[str, Any] = {}
        *parts, noise = self._split(self.theta)
        for (name, kernel), part in zip(self.kernels.items(), parts, strict=True):
            for own in dict.fromkeys(kernel.names):
                factor = self.scale if own == "variance" else 1.0
                values = [factor * v for n, v in zip(kernel.names, part.exp().tolist(), strict=True) if n == own]
                result.setdefault(own, {})[name] = values if kernel.names.count(own) > 1 else values[0]
        return {**result, "noise": float(self.scale * noise.exp())}

    def statistics(self, x: Tensor) -> list[Tensor]:
        r"""Returns, for each kernel, the statistics of the points that do not depend on hyperparameters."""
        return [kernel.statistics(_precise(x)) for kernel in self.kernels.values()]

    def fit(self, x: Tensor, z: Tensor, variances: Tensor | None = None, *, start: Tensor | None = None) -> Self:
        r"""Finds the most probable hyperparameters and conditions on the points; arguments as of :meth:`maximize`."""
        return self.condition(x, z, self.maximize(x, z, variances, start=start)[0], variances=variances)

    def maximize(
        self, x: Tensor, z: Tensor, variances: Tensor | None = None, *, start: Tensor | None = None
    ) -> tuple[Tensor, float]:
        r"""Returns the maximum a posteriori of the log hyperparameters and its log density, up to a constant.

        Args:
            x: ``[n, ...]``.
            z: ``[n]``.
            variances: Known variances :math:`v_i` of the targets beside the noise, ``[n]``. (default: none)
            start: Log hyperparameters from which L-BFGS-B starts, such as those of a fit to nearly the same points.
                (default: the means of their priors)
        """
        limit = MAX_FIT if self.max_fit is None else self.max_fit
        some = torch.randperm(z.numel(), generator=torch.Generator().manual_seed(0), device="cpu")[:limit]
        statistics, targets = self.statistics(x[some]), self._residuals(x[some], z[some])
        known = None if variances is None else variances.double()[some]
        if self.prior_mean.numel() == 1 and known is None:
            return self._maximize_noise(statistics, targets)

        def objective(theta: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
            loss, gradient = self.negative_log_posterior(statistics, targets, torch.from_numpy(theta), known)
            return loss, gradient.numpy()

        reach = _REACH * self.prior_std
        lower, upper = (self.prior_mean - reach).tolist(), (self.prior_mean + reach).tolist()
        with one_blas_thread():
            found = minimize(
                objective,
                (self.prior_mean if start is None else start).numpy(),
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(lower, upper, strict=True)),
                options={"maxiter": self.max_iter},
            )
        return torch.from_numpy(found.x), -float(found.fun)

    def _maximize_noise(self, statistics: list[Tensor], z: Tensor) -> tuple[Tensor, float]:
        """As :meth:`maximize`, where the noise variance is the only hyperparameter."""
        covariance, _ = self._covariance(statistics, self.prior_mean)
        _check_finite(covariance)
        values, vectors = torch.linalg.eigh(covariance)
        values, power = values.clamp_min(0.0), (vectors.t() @ z).square()

        def losses(theta: Tensor) -> Tensor:
            variances = values + theta.exp().unsqueeze(1)
            fits = (power / variances).sum(dim=1)
            fits = z.numel() * _profiled_scale(fits, z).log() if self.profiled else fits
            deviations = (theta - self.prior_mean) / self.prior_std
            loss: Tensor = 0.5 * (variances.log().sum(dim=1) + fits + deviations.square())
            return loss

        def loss_at(theta: float) -> float:
            return float(losses(torch.tensor([theta], dtype=torch.float64, device=z.device)))

        reach = _REACH * float(self.prior_std)
        grid = torch.linspace(-reach, reach, _GRID, dtype=torch.float64, device=z.device) + self.prior_mean
        best = int(losses(grid).argmin())
        bounds = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
        found = minimize_scalar(loss_at, bounds=bounds, method="bounded", options={"xatol": 1e-6})
        return torch.tensor([found.x], dtype=torch.float64, device=z.device), -float(found.fun)

    def negative_log_posterior(
        self, statistics: list[Tensor], z: Tensor, theta: Tensor, variances: Tensor | None = None
    ) -> tuple[float, Tensor]:
        r"""Returns the negative log posterior of hyperparameters, up to a constant, and its gradient.

        Args:
            statistics: Those of the points, as :meth:`statistics` gives them.
            z: Differences of their targets from the prior mean, ``[n]``.
            theta: Log hyperparameters.
            variances: Known variances of the targets beside the noise, ``[n]``. (default: none)
        """
        covariance, pullbacks = self._covariance(statistics, theta)
        noise = theta[-1].exp()
        covariance.diagonal().add_(noise if variances is None else noise + variances)
        factor = stable_cholesky(covariance)
        weights = torch.cholesky_solve(z.unsqueeze(1), factor)
        fit = z @ weights.squeeze(1)
        scale = float(_profiled_scale(fit, z)) if self.profiled else 1.0
        # d loss / d K = (K⁻¹ - α αᵀ / scale) / 2
        # The inverse is symmetric but stored by columns.
        sensitivity = torch.cholesky_inverse(factor).mT.addmm_(weights, weights.t(), alpha=-1.0 / scale).mul_(0.5)
        deviation = (theta - self.prior_mean) / self.prior_std
        loss = factor.diagonal().log().sum() + 0.5 * deviation.square().sum()
        loss = loss + (0.5 * z.numel() * np.log(scale) if self.profiled else 0.5 * fit)
        gradient = [pullback(sensitivity) for pullback in pullbacks]
        gradient.append((sensitivity.trace() * noise).view(1))
        return float(loss), torch.cat(gradient).add_(deviation / self.prior_std)

    def assume(self, theta: Tensor) -> Self:
        r"""Sets the log hyperparameters without conditioning on points, for prior covariances."""
        self.theta, self.scale = theta.double(), 1.0
        return self

    # -- the posterior ----------------------------------------------------------------------------------------------

    def condition(
        self,
        x: Tensor,
        z: Tensor,
        theta: Tensor | None = None,
        *,
        repeats: Tensor | None = None,
        variances: Tensor | None = None,
        statistics: list[Tensor] | None = None,
    ) -> Self:
        r"""Conditions on points with given hyperparameters.

        Args:
            x: ``[n, ...]``.
            z: ``[n]``.
            theta: Log hyperparameters. (default: the means of their priors)
            repeats: Number of measurements :math:`r_i` that each target is the mean of, ``[n]``. (default: one)
            variances: Known variances :math:`v_i` of the targets beside the noise, ``[n]``. (default: none)
            statistics: Those of the points, if they are already known.
        """
        self.assume(self.prior_mean if theta is None else theta)
        self.x, self.z = _precise(x), z.double()
        covariance = self.covariance(self.x) if statistics is None else self._covariance(statistics, self.theta)[0]
        noise = self.theta[-1].exp() if repeats is None else self.theta[-1].exp() / repeats
        covariance.diagonal().add_(noise if variances is None else noise + variances.double())
        self.factor = stable_cholesky(covariance)
        residuals = self._residuals(self.x, self.z)
        self.weights = torch.cholesky_solve(residuals.unsqueeze(1), self.factor).squeeze(1)
        self.scale = float(_profiled_scale(residuals @ self.weights, residuals)) if self.profiled else 1.0
        return self

    def on(self, device: torch.device) -> Self:
        r"""Returns the process for predictions at inputs on a device; hyperparameters stay on the CPU."""
        there = copy.copy(self)
        there.x, there.z = self.x.to(device), self.z.to(device)
        there.factor, there.weights = self.factor.to(device), self.weights.to(device)
        return there

    def predict(self, x: Tensor, return_std: bool = True) -> tuple[Tensor, Tensor | None]:
        r"""Returns mean and standard deviation (noise included) of new measurements at ``x`` ``[m, ...]``.

        Inputs are on the device of the points, see :meth:`on`.
        """
        cross, noise = self._cross(x), float(self.theta[-1].exp())

        def moments(part: Tensor) -> tuple[Tensor, Tensor]:
            # Kernels need only the precision of their inputs, the linear solves need float64.
            covariance = cross(part).double()
            mean = covariance @ self.weights
            if self.mean is not None:
                mean += self.mean(part).double()
            if not return_std:
                return mean, mean
            return mean, self.diagonal(part) + noise - self.explained(covariance)

        means, spreads = zip(*map_chunks(moments, torch.split(x, _chunk(x))), strict=True)
        mean = torch.cat(means)
        return mean, (self.scale * torch.cat(spreads).clamp_min(1e-12)).sqrt() if return_std else None

    def variance(self, x: Tensor) -> Tensor:
        r"""Returns the variance of the function, without noise, at ``x`` ``[m, ...]``."""
        std = self.predict(x)[1]
        assert std is not None
        return std.square() - self.scale * self.theta[-1].exp()

    def parts(self, x: Tensor) -> dict[str, Tensor]:
        r"""Returns the posterior mean of each term at ``x`` ``[m, ...]``; they sum to the mean minus the prior mean."""
        x, (*thetas, _) = _precise(x), self._split(self.theta)
        terms = zip(self.kernels.items(), thetas, strict=True)
        return {name: kernel(x, self.x, theta) @ self.weights for (name, kernel), theta in terms}

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        r"""Returns mean and standard deviation at every point given the others, ``[n]`` each.

        The closed form of Rasmussen and Williams (2006), section 5.4.2.
        """
        variance = 1.0 / torch.cholesky_inverse(self.factor).diagonal()
        return self.z - self.weights * variance, (self.scale * variance).sqrt()

    def sample(self, x: Tensor, num: int, generator: torch.Generator, num_features: int = 512) -> Tensor:
        r"""Draws functions from the posterior, jointly over all of ``x`` ``[m, ...]``: ``[num, m]``, without noise.

        Pathwise conditioning (`Wilson et al. 2020 <https://arxiv.org/abs/2002.09309>`_): a draw of the prior by random
        Fourier features of each radial kernel is corrected at the points, at a cost linear in ``m``.

        Args:
            x: Inputs.
            num: Number of functions.
            generator: Source of randomness.
            num_features: Random Fourier features of each radial kernel.

        Raises:
            NotImplementedError: If a kernel has no random features.
        """
        *thetas, log_noise = self._split(self.theta)
        terms = zip(self.kernels.values(), thetas, strict=True)
        draws = [kernel.draw(theta, num, generator, num_features) for kernel, theta in terms]
        size = (num, self.z.numel())
        noise = torch.randn(size, generator=generator, dtype=torch.float64, device=generator.device)

        def prior(part: Tensor) -> Tensor:
            total = torch.zeros(len(part), num, dtype=torch.float64, device=part.device)
            for draw in draws:
                total += draw(part)
            return total.t() * math.sqrt(self.scale)

        deviations = (self.scale * log_noise.exp()).sqrt() * noise
        residuals = self._residuals(self.x, self.z) - prior(self.x) - deviations
        update = torch.cholesky_solve(residuals.t(), self.factor)
        cross, values = self._cross(_precise(x)), []
        for part in torch.split(_precise(x), _chunk(x)):
            values.append(prior(part) + (cross(part) @ update).t())
            if self.mean is not None:
                values[-1] += self.mean(part).double()
        return torch.cat(values, dim=1)

    # -- covariances ------------------------------------------------------------------------------------------------

    def covariance(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        r"""Returns the prior covariance of the function between ``a`` ``[m, ...]`` and ``b`` ``[n, ...]``, ``[m, n]``.

        Args:
            a: Inputs.
            b: Inputs. (default: the points)
        """
        return self._cross(a, b)(a)

    def diagonal(self, x: Tensor) -> Tensor:
        r"""Returns the prior variance of the function at ``x`` ``[m, ...]``, ``[m]``."""
        *thetas, _ = self._split(self.theta)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for kernel, theta in zip(self.kernels.values(), thetas, strict=True):
            total += kernel.diagonal(x, theta)
        return total

    def explained(self, covariance: Tensor) -> Tensor:
        r"""Returns the reduction of variance ``[m]`` by the points, given covariances ``[m, n]`` with them."""
        whitened: Tensor = torch.linalg.solve_triangular(self.factor, covariance.t(), upper=False)
        return whitened.square().sum(dim=0)

    def _cross(self, x: Tensor, points: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The covariance of rows like ``x`` with the points, in the precision of ``x``; prepared once."""
        points = (self.x if points is None else points).to(x.dtype)
        *thetas, _ = self._split(self.theta)
        terms = [kernel.cross(points, theta) for kernel, theta in zip(self.kernels.values(), thetas, strict=True)]
        dtype = x.dtype if x.is_floating_point() else torch.float64

        def cross(part: Tensor) -> Tensor:
            total = part.new_zeros(len(part), len(points), dtype=dtype)
            for term in terms:
                term(part, total)
            return total

        return cross

    def _covariance(self, statistics: list[Tensor], theta: Tensor) -> tuple[Tensor, list[Pullback]]:
        total, pullbacks = None, []
        terms = zip(self.kernels.values(), statistics, self._split(theta)[:-1], strict=True)
        for kernel, known, part in terms:
            value, pullback = kernel.covariance(known, part)
            pullbacks.append(pullback)
            total = value.clone() if total is None else total.add_(value)
        assert total is not None, "a Gaussian process needs a kernel"
        return total, pullbacks

    def _residuals(self, x: Tensor, z: Tensor) -> Tensor:
        return z.double() if self.mean is None else z.double() - self.mean(_precise(x)).double()

    def _split(self, theta: Tensor) -> tuple[Tensor, ...]:
        sizes = [*(len(kernel.priors) for kernel in self.kernels.values()), 1]
        return torch.split(theta, sizes)


def stable_cholesky(matrix: Tensor) -> Tensor:
    r"""Returns the lower Cholesky factor of a covariance ``[n, n]``, with jitter from :data:`JITTER`.

    Raises:
        SingularCovarianceError: If the matrix is not finite, or the largest jitter does not make it positive definite.

    Example:
        >>> stable_cholesky(torch.ones(2, 2).double()).round(decimals=3)
        tensor([[1., 0.],
                [1., 0.]], dtype=torch.float64)
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrix)
    # Some LAPACKs do not report NaN.
    if int(info) == 0 and bool(factor.diagonal().isfinite().all()):
        return factor
    size = matrix.size(0)
    _check_finite(matrix)
    level = float(matrix.diagonal().mean())
    for share in JITTER:
        shifted = matrix.clone()
        shifted.diagonal().add_(share * level)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if int(info) == 0:
            return factor
    raise SingularCovarianceError(
        f"the covariance of {size} points is not positive definite, not even with {JITTER[-1]:g} of its mean variance "
        f"on the diagonal; the kernel is no covariance function, or points repeat without any noise"
    )


def _check_finite(covariance: Tensor) -> None:
    if not bool(covariance.isfinite().all()):
        raise SingularCovarianceError(
            f"the covariance of {len(covariance)} points is not finite; check the inputs for NaN, infinite and huge "
            f"values"
        )


def _profiled_scale(fit: Tensor, z: Tensor) -> Tensor:
    """The most likely factor of the covariance, which targets that are all zero leave without a size."""
    return (fit / z.numel()).clamp_min(1e-12)


def _chunk(x: Tensor) -> int:
    return CHUNK["cpu" if x.device.type == "cpu" else "cuda"]


def _precise(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
