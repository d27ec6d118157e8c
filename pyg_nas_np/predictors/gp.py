r"""Exact Gaussian process regression, additive over groups of meta-features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.spaces import SearchSpace

KernelName = Literal["rbf", "matern32", "matern52"]

MAX_FIT = 512
"""Hyperparameters come from at most this many labelled architectures; the posterior uses all."""

PATH_GROUPS = ("live", "paths", "strings")
"""Where all cells share one topology, these groups describe all that a cell computes."""

CHUNK = 4096
"""Architectures predicted at a time."""

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


class GPPredictor(Predictor):
    r"""Exact Gaussian process on meta-features, additive over their groups.

    .. math::
        k(x, x') = \sum_g s_g\, \kappa\!\left(\frac{\lVert x_g - x'_g \rVert}{\ell_g \sqrt{D_g}}\right)
        + \sigma^2\, [x = x']

    with one signal variance :math:`s_g` and one length-scale :math:`\ell_g` for each group of :math:`D_g` features.
    Hyperparameters are the maximum a posteriori under :math:`\log \ell_g \sim N(0.3, 0.7^2)`,
    :math:`\log s_g \sim N(-1, 1.5^2)` and :math:`\log \sigma^2 \sim N(\log 0.08, 1)`, found by L-BFGS on the exact
    gradient, from at most 512 of the labelled architectures (drawn with a fixed seed). The posterior uses all.

    Args:
        space: The search space. (default: that of the data set)
        kernel: ``"matern32"``, ``"matern52"`` or ``"rbf"``.
        groups: Feature groups with a term of their own. (default: all of the space; where its cells share one
            topology, those of live paths: ``live``, ``paths`` and ``strings``)
        labels: How labels become scores, ``"rank"`` or, for accuracies, ``"robust"``.
        max_iter: Iterations of L-BFGS.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> graphs = [space.encode(space[i]) for i in range(40)]
        >>> gp = GPPredictor(space).fit(graphs, space.batch_flops(torch.arange(40)))
        >>> mean, std = gp.predict(graphs[:5], return_std=True)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([5]), True)
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        kernel: KernelName = "matern32",
        groups: Sequence[str] | None = None,
        labels: LabelScale = "rank",
        max_iter: int = 60,
    ) -> None:
        super().__init__(space, labels=labels)
        self.kernel = kernel
        self.groups = groups
        self.max_iter = max_iter

    @property
    def hyperparameters(self) -> dict[str, dict[str, float] | float]:
        r"""Fitted ``length_scale`` and ``variance`` of each group, and ``noise`` (a variance), on the score scale."""
        count = len(self.columns_)
        values = self.theta_.exp().tolist()
        return {
            "length_scale": dict(zip(self.columns_, values[:count], strict=True)),
            "variance": dict(zip(self.columns_, values[count:-1], strict=True)),
            "noise": values[-1],
        }

    def _fit(self, inputs: Tensor, z: Tensor) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {self.kernel!r}")
        present = shared_features(self.space_).feature_groups
        unknown = [group for group in self.groups or () if group not in present]
        if unknown:
            raise ValueError(f"groups names {unknown[0]!r}; groups of {self.space_.name}: {', '.join(present)}")
        chosen = self.groups or (PATH_GROUPS if "paths" in present else present)
        self.columns_ = {group: present[group] for group in chosen if group in present}
        x = inputs.double()
        some = torch.randperm(z.numel(), generator=torch.Generator().manual_seed(0))[:MAX_FIT]
        self.theta_ = self._maximize(x[some], z[some])
        self._condition(x, z)

    def _maximize(self, x: Tensor, z: Tensor) -> Tensor:
        """Log length-scales, log variances and log noise at the maximum of the posterior density."""
        distances = torch.stack([torch.cdist(part, part) for part in self._split(x)])
        count = distances.size(0)
        centre, scale = (
            torch.tensor([_PRIOR["length"][i]] * count + [_PRIOR["signal"][i]] * count + [_PRIOR["noise"][i]]).double()
            for i in (0, 1)
        )

        def objective(theta: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
            loss, gradient = _negative_log_posterior(
                torch.from_numpy(theta), distances, z, KERNELS[self.kernel], centre, scale
            )
            return loss, gradient.numpy()

        bounds = list(zip((centre - 5 * scale).tolist(), (centre + 5 * scale).tolist(), strict=True))
        options = {"maxiter": self.max_iter}
        found = minimize(objective, centre.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return torch.from_numpy(found.x)

    def _condition(self, x: Tensor, z: Tensor) -> None:
        self.x_, self.z_ = x, z
        covariance = self._cross(x)
        covariance.diagonal().add_(self.theta_[-1].exp())
        self._factor = torch.linalg.cholesky(covariance)
        self._weights = torch.cholesky_solve(z.unsqueeze(1), self._factor).squeeze(1)

    def _predict(self, inputs: Tensor, return_std: bool) -> tuple[Tensor, Tensor | None]:
        total = self.theta_[len(self.columns_) :].exp().sum()
        means, variances = [], []
        for part in torch.split(inputs, CHUNK):
            cross = self._cross(part.double())
            means.append(cross @ self._weights)
            if return_std:
                explained = torch.linalg.solve_triangular(self._factor, cross.t(), upper=False).square().sum(dim=0)
                variances.append(total - explained)
        mean = torch.cat(means)
        return mean, torch.cat(variances).clamp_min(1e-12).sqrt() if return_std else None

    def _split(self, x: Tensor) -> list[Tensor]:
        """Features of each group, scaled so that distances do not grow with their number."""
        return [x[:, columns] / math.sqrt(len(columns)) for columns in self.columns_.values()]

    def _cross(self, x: Tensor) -> Tensor:
        """Covariance of the latent function between ``x`` and the labelled architectures."""
        lengths, variances = self.theta_[:-1].exp().chunk(2)
        kernel = KERNELS[self.kernel]
        total = torch.zeros(x.size(0), self.x_.size(0), dtype=x.dtype)
        for part, own, length, variance in zip(self._split(x), self._split(self.x_), lengths, variances, strict=True):
            total += variance * kernel(torch.cdist(part, own) / length)[0]
        return total

    def _state(self) -> dict[str, Any]:
        return {"columns": self.columns_, "theta": self.theta_, "x": self.x_, "z": self.z_}

    def _set_state(self, state: dict[str, Any]) -> None:
        self.columns_, self.theta_ = state["columns"], state["theta"]
        self._condition(state["x"], state["z"])


def _negative_log_posterior(
    theta: Tensor,
    distances: Tensor,
    z: Tensor,
    kernel: Callable[[Tensor], tuple[Tensor, Tensor]],
    centre: Tensor,
    scale: Tensor,
) -> tuple[float, Tensor]:
    """Value and gradient in closed form; distances are ``[G, n, n]``, theta is ``[2 G + 1]``."""
    lengths, variances = theta[:-1].exp().view(2, -1, 1, 1)
    noise = theta[-1].exp()
    value, slope = kernel(distances / lengths)
    covariance = (variances * value).sum(dim=0)
    covariance.diagonal().add_(noise)
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve(z.unsqueeze(1), factor)
    # d loss / d K = (K⁻¹ - α αᵀ) / 2
    sensitivity = 0.5 * (torch.cholesky_inverse(factor) - weights @ weights.t())
    deviation = (theta - centre) / scale
    loss = 0.5 * z @ weights.squeeze(1) + factor.diagonal().log().sum() + 0.5 * deviation.square().sum()
    along_length = torch.einsum("gij,ij->g", slope, sensitivity) * variances.flatten()
    along_signal = torch.einsum("gij,ij->g", value, sensitivity) * variances.flatten()
    along_noise = sensitivity.trace() * noise
    return float(loss), torch.cat([along_length, along_signal, along_noise.view(1)]) + deviation / scale
