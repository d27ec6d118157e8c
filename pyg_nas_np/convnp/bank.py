r"""Base predictors of the process: a few Gaussian processes and trees, fitted to one context."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.forest import Forest
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.kernels import NOISE, Kernel, LogPrior
from pyg_nas_np.utils import map_chunks, one_blas_thread

EXPECTED, DOUBT = 0.5, 0.3
"""Slope of the scores along the prior trend before any label, and its standard deviation over spaces and labels."""


WARM_FROM = 50
"""Number of labels from which a fit starts from another one; those to fewer take less than a tenth of a second."""


class Bank(ABC):
    r"""Diverse base predictors fitted to one context, with their leave-one-out predictions.

    They are Gaussian processes, whose hyperparameters are fitted to the context, and ``trees``. Subclasses say which
    kernels and prior means the Gaussian processes have, and what the trees are.

    Args:
        max_iter: Iterations of each fit of a Gaussian process.
        num_trees: Number of trees.

    Shapes:
        - **moments:** ``[n, K, 2]``, mean and log standard deviation by each of the ``K`` members.
    """

    noise: LogPrior = NOISE
    """Prior of the noise variance."""

    sampled: str
    """Name of the Gaussian process that gives samples their correlations."""

    trees: Forest
    """The trees, once fitted."""

    def __init__(self, *, max_iter: int, num_trees: int) -> None:
        self.max_iter, self.num_trees = max_iter, num_trees

    @property
    @abstractmethod
    def recipes(self) -> dict[str, dict[str, Kernel]]:
        r"""Kernels of each Gaussian process, by name."""

    @property
    @abstractmethod
    def split_columns(self) -> list[int]:
        r"""Columns that the trees split on."""

    @property
    @abstractmethod
    def columns(self) -> dict[str, Any]:
        r"""Names and numbers of all columns that the bank uses, as plain types."""

    @abstractmethod
    def _new_trees(self) -> ExtraTreesRegressor:
        """The trees, not fitted."""

    @property
    def members(self) -> list[str]:
        r"""Names of the ``K`` members."""
        return [*self.recipes, "trees"]

    def fit(
        self,
        x: Tensor,
        z: Tensor,
        thetas: Mapping[str, Tensor] | None = None,
        *,
        variances: Tensor | None = None,
        start: Bank | None = None,
    ) -> Self:
        r"""Fits every member.

        Args:
            x: Descriptors of the context, ``[n, F]``.
            z: Its scores, ``[n]``.
            thetas: Hyperparameters of the Gaussian processes, if they are already known.
            variances: Known variances of the scores beside their noise, ``[n]``; the trees do not see them.
                (default: none)
            start: A bank of the same kind, fitted to nearly the same context. From :data:`WARM_FROM` labels on, the
                search for hyperparameters starts from its own, and most of its trees serve again. (default: none)
        """
        self._fit_gps(x, z, thetas, variances, start)
        self._trust = self._trust_in(z.numel())
        prior, inputs = self.prior(x), self._tree_inputs(x).numpy()
        targets = (z - prior).double().numpy()
        before = None if start is None or not self._warms(start, z) else start.trees
        self.trees = Forest(self._new_trees()).fit(inputs, targets, before)
        left_out = prior + self._trust * torch.from_numpy(self.trees.leave_one_out())
        self._tree_noise = float((left_out - z).square().mean())
        moments = [self._moments(name, x, *self._held_out(name, x)) for name in self.gps]
        self.context = torch.stack([*moments, self._tree_moments(left_out)], dim=1).float()
        return self

    def _fit_gps(
        self,
        x: Tensor,
        z: Tensor,
        thetas: Mapping[str, Tensor] | None,
        variances: Tensor | None,
        start: Bank | None = None,
    ) -> None:
        recipes = self.recipes
        starts = start.state_dict() if start is not None and self._warms(start, z) else {}

        def fitted(name: str) -> GaussianProcess:
            mean = partial(self._prior_of, name)
            gp = GaussianProcess(recipes[name], noise=self.noise, mean=mean, max_iter=self.max_iter)
            return self._fit_gp(gp, x, z, None if thetas is None else thetas[name], variances, starts.get(name))

        # The fits may run on other threads, which cannot ask for this.
        with one_blas_thread():
            self.gps = dict(zip(recipes, map_chunks(fitted, recipes), strict=True))

    def _fit_gp(
        self,
        gp: GaussianProcess,
        x: Tensor,
        z: Tensor,
        theta: Tensor | None,
        variances: Tensor | None,
        start: Tensor | None,
    ) -> GaussianProcess:
        if theta is None:
            return gp.fit(x, z, variances, start=start)
        return gp.condition(x, z, theta, variances=variances)

    def _held_out(self, member: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Leave-one-out means and standard deviations of the context ``x`` by a Gaussian process."""
        return self.gps[member].leave_one_out()

    def _warms(self, start: Bank, z: Tensor) -> bool:
        """Whether a fit starts from another one."""
        return z.numel() >= WARM_FROM and self._like(start)

    def _like(self, other: Bank) -> bool:
        """Whether hyperparameters of another bank are those of this one: another fit may have had other columns."""
        kernels, others = ([*map(tuple, bank.recipes.values())] for bank in (self, other))
        return self.columns == other.columns and kernels == others

    def _gp_moments(self, x: Tensor) -> list[Tensor]:
        return map_chunks(lambda name: self._moments(name, x, *self.gps[name].predict(x)), self.gps)

    def on(self, device: torch.device) -> Self:
        r"""Returns the bank for predictions of inputs on a device: itself on the CPU, a copy elsewhere."""
        if device.type == "cpu":
            return self
        there = copy.copy(self)
        there.gps = {name: gp.on(device) for name, gp in self.gps.items()}
        if "trees" in self.members:
            there.trees = self.trees.to(device)
        return there

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns the moments of the targets ``x`` ``[m, F]``, ``[m, K, 2]``, on their device; see :meth:`on`."""
        moments = self._gp_moments(x)
        mean = self.prior(x) + self._trust * self.trees.predict(self._tree_inputs(x))
        return torch.stack([*moments, self._tree_moments(mean)], dim=1).float()

    def unlabelled(self, num_columns: int) -> Self:
        r"""Prepares what samples need before any label: the Gaussian process that gives them their correlations.

        Args:
            num_columns: Number of descriptors.
        """
        empty = torch.empty(0, num_columns, dtype=torch.float64, device="cpu")
        gp = GaussianProcess(self.recipes[self.sampled], noise=self.noise)
        self.gps = {self.sampled: gp.condition(empty, empty.sum(dim=1))}
        return self

    @property
    def gp(self) -> GaussianProcess:
        r"""The Gaussian process that gives samples their correlations."""
        return self.gps[self.sampled]

    def sample(self, x: Tensor, num: int, generator: torch.Generator) -> Tensor:
        r"""Draws functions, as deviations from their mean in standard deviations, at ``x`` ``[m, F]``.

        Args:
            x: Where.
            num: Number of functions.
            generator: Source of randomness.

        Returns:
            ``[num, m]``, float32. Deviations are of the function, not of a measurement: without noise.
        """
        draws = self.gp.sample(x, num, generator)
        mean = self.gp.predict(x, False)[0]
        return ((draws - mean) / self.gp.variance(x).clamp_min(1e-12).sqrt()).float()

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the hyperparameters of the Gaussian processes: with the context, all that :meth:`fit` needs."""
        return {name: gp.theta for name, gp in self.gps.items()}

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean at ``x`` ``[m, F]``, ``[m]``."""
        return x.new_zeros(x.size(0), dtype=torch.float64)

    def _prior_of(self, member: str, x: Tensor) -> Tensor:
        """The prior mean of a member."""
        return self.prior(x)

    def _trust_in(self, labels: int) -> float:
        """The part of the predicted difference from the prior mean that is kept."""
        return 1.0

    def _moments(self, member: str, x: Tensor, mean: Tensor, std: Tensor | None) -> Tensor:
        """Mean and log standard deviation; the difference of the mean from the prior mean is shrunk."""
        assert std is not None
        prior = self._prior_of(member, x)
        return torch.stack([prior + self._trust * (mean - prior), std.log()], dim=1)

    def _tree_inputs(self, x: Tensor) -> Tensor:
        return x[:, self.split_columns].float().contiguous()

    def _tree_moments(self, mean: Tensor) -> Tensor:
        return torch.stack([mean, torch.full_like(mean, 0.5 * math.log(self._tree_noise + 1e-6))], dim=1)


def mixture(moments: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns mean and standard deviation of the equal mixture of members, ``[m]`` each, by the law of total variance.

    Args:
        moments: ``[m, K, 2]``, mean and log standard deviation by each of ``K`` members.

    Example:
        >>> mixture(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
        (tensor([0.]), tensor([1.4142]))
    """
    means, log_stds = moments.unbind(dim=2)
    variance = (2.0 * log_stds).exp().mean(dim=1) + means.var(dim=1, unbiased=False)
    return means.mean(dim=1), variance.sqrt()


def expected(trend: Tensor, slope: float = EXPECTED) -> tuple[Tensor, Tensor]:
    r"""Returns mean and standard deviation of the scores before any label, ``[m]`` float64 each.

    Scores :math:`z = b\,t + \varepsilon` follow a trend :math:`t` by a slope :math:`b` that nobody knows: its standard
    deviation is :data:`DOUBT`, so that the uncertainty grows towards the ends of the trend. Over the space, scores have
    variance 1.

    Args:
        trend: What they are expected to follow, standardised over the space, ``[m]``; zero where nothing is known.
        slope: The mean of the slope.

    Example:
        >>> mean, std = expected(torch.tensor([-2.0, 0.0, 2.0]))
        >>> mean.tolist(), bool(std[0] == std[2]), bool(std[0] > std[1])
        ([-1.0, 0.0, 1.0], True, True)
    """
    trend = trend.double()
    if not bool((trend != 0).any()):
        return trend, torch.ones_like(trend)
    variance = 1.0 - slope**2 - DOUBT**2 + (DOUBT * trend).square()
    return slope * trend, variance.sqrt()
