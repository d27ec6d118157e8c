r"""A Gaussian process over pairs of architecture and data set, which keeps sums over its training data only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.bank import bank_groups
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.pair_regressor import class_directions
from pyg_nas_np.predictors.additive_gp import KERNELS, negative_log_posterior
from pyg_nas_np.spaces import SearchSpace

CELL_LENGTH = 1.35
CLASS_LENGTHS = (0.7, 1.5)
r"""Length-scales: of cells the mean of the prior of :class:`~pyg_nas_np.predictors.additive_gp.AdditiveGP`, of classes
below and above the typical distance between two classes, 1.4."""

MAX_FIT = 1000
"""Variances come from at most this many tuples; the posterior uses all."""

_PRIOR = (-2.0, 2.0)
_CHUNK = 2048


class JointGP:
    r"""Predicts what an architecture reaches on a data set that has never been trained on.

    .. math::
        y(a, t) = \mu + f(a) + \frac{1}{|t|} \sum_{c \in t} d(c) + h(a, \bar v_t) + \varepsilon

    Gaussian processes are the worth :math:`f` of an architecture (additive over groups of descriptors, as in
    :class:`~pyg_nas_np.predictors.GPPredictor`), the ease :math:`d` of a class (radial in its description, of two
    lengths), and the taste :math:`h` of a data set (linear in the mean description :math:`\bar v_t` of its classes,
    times the first kernel of architectures). The variances maximise the posterior under
    :math:`\log s \sim N(-2, 2^2)`. A class is described by the direction of its mean feature, projected to the leading
    principal axes of the classes of the database.

    The posterior mean is exact, and a sum over the distinct architectures and classes of the database: only these and
    their weights are kept, no tuple. The posterior variance is approximate: as if each architecture and each class had
    been measured by itself.

    Args:
        width: Number of principal axes.
        max_iter: Iterations of the search for variances.
    """

    def __init__(self, *, width: int = 64, max_iter: int = 40) -> None:
        self.width = width
        self.max_iter = max_iter

    def fit(self, database: MetaD2ADatabase) -> Self:
        r"""Learns from the tuples of a database."""
        self._bind(database.space)
        archs, cell, count = database.arch.unique(return_inverse=True, return_counts=True)
        directions = class_directions(database.classes.features, database.classes.class_ptr)
        axes = torch.linalg.svd(directions, full_matrices=False).Vh[: self.width].t()
        # Typical classes have norm 1.
        self.projection = axes / (directions @ axes).square().sum(dim=1).mean().sqrt()
        self.archs, self.cell_count = archs, count.double()
        self.classes = (directions @ self.projection).double()
        shares = torch.zeros(len(database), self.classes.size(0), dtype=torch.float64)
        sizes = database.dataset_ptr.diff()[database.dataset]
        members, _ = database.members(database.dataset)
        rows = torch.arange(len(database)).repeat_interleave(sizes)
        shares[rows, members] = 1.0 / sizes.repeat_interleave(sizes).double()
        self.class_count = shares.square().sum(dim=0)
        self.task_size = float(sizes.double().mean())
        tasks = shares @ self.classes
        self.mean, self.scale = float(database.accuracy.mean()), float(database.accuracy.std()) or 1.0
        z = (database.accuracy.double() - self.mean) / self.scale

        some = torch.randperm(len(database), generator=torch.Generator().manual_seed(0))[:MAX_FIT]
        self.theta = self._maximize(torch.stack([*self._terms(cell[some], shares[some], tasks[some])]), z[some])
        covariance = torch.zeros(len(database), len(database), dtype=torch.float64)
        for variance, term in zip(self.theta.exp(), self._terms(cell, shares, tasks), strict=False):
            covariance.add_(term, alpha=float(variance))
        covariance.diagonal().add_(float(self.theta[-1].exp()))
        factor = torch.linalg.cholesky(covariance)
        alpha = torch.cholesky_solve(z.unsqueeze(1), factor).squeeze(1)
        self.cell_weight = torch.zeros(archs.numel()).double().index_add_(0, cell, alpha)
        self.taste_weight = torch.zeros(archs.numel(), self.width).double()[:, : tasks.size(1)]
        self.taste_weight = self.taste_weight.index_add(0, cell, alpha.unsqueeze(1) * tasks)
        self.class_weight = shares.t() @ alpha
        return self

    def predict(
        self, sets: FeatureSets, task: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts pairs of data set and architecture.

        Args:
            sets: ``T`` data sets.
            task: The data set of each pair, ``[n]``.
            cells: All descriptors of its architecture, ``[n, D]``.
            return_std: Whether to return standard deviations, which take longer than the means.

        Returns:
            Means and standard deviations (noise included) or :obj:`None`, in percent, ``[n]`` float32.
        """
        classes = (class_directions(sets.features, sets.class_ptr) @ self.projection).double()
        sizes = sets.dataset_ptr.diff()
        owner = torch.arange(len(sets)).repeat_interleave(sizes)
        shares = torch.zeros(len(sets), classes.size(0), dtype=torch.float64)
        shares[owner, torch.arange(classes.size(0))] = 1.0 / sizes.double()[owner]
        ease, doubt = self._ease(classes, shares)
        tastes = shares @ classes * self.task_size
        *variances, taste_variance = self._cell_variances
        means, spreads = [], []
        for part, of in zip(torch.split(cells, _CHUNK), torch.split(task, _CHUNK), strict=True):
            kernels = self._cell_kernels(part, self._points)
            cross = sum(variance * kernel for variance, kernel in zip(variances, kernels, strict=True))
            assert isinstance(cross, Tensor)
            taste = ((kernels[0] @ self.taste_weight) * tastes[of]).sum(dim=1)
            means.append(cross @ self.cell_weight + taste_variance * taste + ease[of])
            if not return_std:
                continue
            explained = torch.linalg.solve_triangular(self._factor, cross.t(), upper=False).square().sum(dim=0)
            prior = torch.full((part.size(0),), sum(variances[: len(self._radial)]), dtype=torch.float64)
            if NETWORKS in self._groups:
                prior += variances[-1] * self._network(part).square().sum(dim=1)
            spreads.append((prior - explained).clamp_min(0.0) + doubt[of])
        mean = (self.mean + self.scale * torch.cat(means)).float()
        if not return_std:
            return mean, None
        return mean, (self.scale * (torch.cat(spreads) + self.theta[-1].exp()).sqrt()).float()

    def num_variances(self, space: SearchSpace[Any]) -> int:
        r"""Returns the number of variances for a space, that of the noise included."""
        self._bind(space)
        return len(self._groups) + len(CLASS_LENGTHS) + 2

    @property
    def hyperparameters(self) -> dict[str, float]:
        r"""Variance of each term and of the noise, on standardised labels."""
        names = [*self._radial, *([NETWORKS] if NETWORKS in self._groups else []), "taste"]
        names += [f"classes_{length}" for length in CLASS_LENGTHS]
        return dict(zip([*names, "noise"], self.theta.exp().tolist(), strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns all that was learned, as tensors."""
        scalars = torch.tensor([self.mean, self.scale, self.task_size], dtype=torch.float64)
        return {
            "projection": self.projection,
            "archs": self.archs,
            "cell_count": self.cell_count.int(),
            "cell_weight": self.cell_weight,
            "taste_weight": self.taste_weight.float(),
            "classes": self.classes.float(),
            "class_count": self.class_count.float(),
            "class_weight": self.class_weight,
            "theta": self.theta,
            "scalars": scalars,
        }

    def load_state_dict(self, state: Mapping[str, Tensor], space: SearchSpace[Any]) -> Self:
        r"""Inverse of :meth:`state_dict`."""
        self._bind(space)
        self.projection, self.archs = state["projection"], state["archs"]
        for name in ("cell_count", "cell_weight", "taste_weight", "classes", "class_count", "class_weight", "theta"):
            setattr(self, name, state[name].double())
        self.mean, self.scale, self.task_size = state["scalars"].tolist()
        return self

    def _bind(self, space: SearchSpace[Any]) -> None:
        self.space = space
        self._groups = {name: part for name, part in bank_groups(shared_descriptors(space)).items() if name != TREND}
        self._radial = [name for name in self._groups if name != NETWORKS]

    @cached_property
    def _points(self) -> Tensor:
        return shared_descriptors(self.space).table(self.archs)

    @cached_property
    def _factor(self) -> Tensor:
        kernels = self._cell_kernels(self._points, self._points)
        covariance = torch.diag(self.theta[-1].exp() / self.cell_count)
        for variance, kernel in zip(self._cell_variances, kernels, strict=False):
            covariance.add_(kernel, alpha=variance)
        factor: Tensor = torch.linalg.cholesky(covariance)
        return factor

    @property
    def _cell_variances(self) -> list[float]:
        """Of each kernel of architectures, then of the taste."""
        return self.theta[: -1 - len(CLASS_LENGTHS)].exp().tolist()

    def _cell_kernels(self, x: Tensor, points: Tensor) -> list[Tensor]:
        kernels = []
        for name in self._radial:
            columns = self._groups[name]
            a, b = (part[:, columns].double() / math.sqrt(len(columns)) for part in (x, points))
            kernels.append(KERNELS["matern32"](torch.cdist(a, b) / CELL_LENGTH)[0])
        if NETWORKS in self._groups:
            kernels.append(self._network(x) @ self._network(points).t())
        return kernels

    def _network(self, x: Tensor) -> Tensor:
        return x[:, self._groups[NETWORKS]].double()

    def _class_kernels(self, a: Tensor, b: Tensor) -> list[Tensor]:
        distance = torch.cdist(a, b)
        return [KERNELS["rbf"](distance / length)[0] for length in CLASS_LENGTHS]

    def _ease(self, classes: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of how easy data sets are; the shares of the classes in them are ``[T, K]``."""
        variances = self.theta[-1 - len(CLASS_LENGTHS) : -1].exp() * self.task_size
        towards = shares @ _mixed(variances, self._class_kernels(classes, self.classes))
        own = _mixed(variances, self._class_kernels(self.classes, self.classes))
        own.diagonal().add_(self.theta[-1].exp() / self.class_count.clamp_min(1e-12))
        explained = (towards * torch.linalg.solve(own, towards.t()).t()).sum(dim=1)
        doubts = []
        for row, known in zip(shares, explained, strict=True):
            members = row.nonzero().flatten()
            inner = _mixed(variances, self._class_kernels(classes[members], classes[members]))
            doubts.append((inner.mean() - known).clamp_min(0.0))
        return towards @ self.class_weight, torch.stack(doubts)

    def _terms(self, cell: Tensor, shares: Tensor, tasks: Tensor) -> Any:
        """Yields the kernel of each term of the model between tuples, ``[n, n]``."""
        kernels = self._cell_kernels(self._points, self._points)
        for kernel in kernels:
            yield kernel[cell][:, cell]
        yield kernels[0][cell][:, cell] * (tasks @ tasks.t() * self.task_size)
        for kernel in self._class_kernels(self.classes, self.classes):
            yield shares @ kernel @ shares.t() * self.task_size

    def _maximize(self, products: Tensor, z: Tensor) -> Tensor:
        distances = products.new_empty(0, z.numel(), z.numel())
        centre = torch.full((products.size(0) + 1,), _PRIOR[0], dtype=torch.float64)
        scale = torch.full_like(centre, _PRIOR[1])

        def objective(theta: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
            loss, gradient = negative_log_posterior(
                torch.from_numpy(theta), distances, products, z, KERNELS["rbf"], centre, scale
            )
            return loss, gradient.numpy()

        bounds = [(float(centre[0] - 5 * scale[0]), float(centre[0] + 5 * scale[0]))] * centre.numel()
        options = {"maxiter": self.max_iter}
        found = minimize(objective, centre.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return torch.from_numpy(found.x)


def _mixed(variances: Tensor, kernels: list[Tensor]) -> Tensor:
    return torch.einsum("g,gij->ij", variances, torch.stack(kernels))
