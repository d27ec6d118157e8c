r"""A Gaussian process over pairs of architecture and data set that stores only sums over its training data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.cell_bank import bank_groups
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.pair_regressor import class_directions
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.kernels import LENGTH, Kernel, Linear, LogPrior, Precomputed, Stationary
from pyg_nas_np.spaces import CellSpace

CELL_LENGTH = round(math.exp(LENGTH.mean), 2)
CLASS_LENGTHS = (0.7, 1.5)
r"""Length-scales. That of cells is the centre of the prior :data:`~pyg_nas_np.predictors.kernels.LENGTH`. Those of
classes are below and above the typical distance between two classes, 1.4."""

VARIANCE = LogPrior(-2.0, 2.0)
r"""Prior of the variance of each term and of the noise; most of the up to eight terms are small. Set by hand."""

MAX_FIT = 1000
"""Variances are fitted to at most this many tuples; the posterior uses all."""

_CHUNK = 2048
_UNIT = torch.zeros(1, dtype=torch.float64, device="cpu")
"""The log hyperparameters of a kernel of variance 1."""


class JointGP:
    r"""Predicts the accuracy of an architecture on a data set without any measurement.

    .. math::
        y(a, t) = \mu + f(a) + \frac{1}{|t|} \sum_{c \in t} d(c) + h(a, \bar v_t) + \varepsilon

    Three terms are Gaussian processes:

    - the architecture effect :math:`f`, additive over groups of descriptors, as in
      :class:`~pyg_nas_np.predictors.GPPredictor`;
    - the class effect :math:`d`, with radial kernels of two length-scales in the description of a class; the data-set
      effect is its mean over the classes;
    - the interaction term :math:`h`: a linear kernel in the mean description :math:`\bar v_t` of the classes times the
      first kernel of architectures.

    The variances maximise the posterior under :math:`\log s \sim N(-2, 2^2)`. A class is described by the direction of
    its mean feature, projected to the leading principal axes of the classes of the database.

    The posterior mean is exact. It is a sum over the distinct architectures and classes of the database, so only these
    and their weights are stored. The posterior variance is approximate: it treats architectures and classes as if each
    had been measured by itself, and ignores that of the interaction term.

    Args:
        width: Number of principal axes.
        max_iter: Iterations of the search for variances.
    """

    space: CellSpace[Any]
    projection: Tensor
    archs: Tensor
    cell_count: Tensor
    cell_weight: Tensor
    interaction_weight: Tensor
    classes: Tensor
    class_count: Tensor
    class_weight: Tensor
    theta: Tensor

    def __init__(self, *, width: int = 64, max_iter: int = 40) -> None:
        self.width = width
        self.max_iter = max_iter

    def fit(self, database: MetaD2ADatabase) -> Self:
        r"""Learns from the tuples of a database."""
        archs, cell, count = database.arch.unique(return_inverse=True, return_counts=True)
        directions = class_directions(database.classes.features, database.classes.class_ptr)
        axes = torch.linalg.svd(directions, full_matrices=False).Vh[: self.width].t()
        # Typical classes have norm 1.
        projection = axes / (directions @ axes).square().sum(dim=1).mean().sqrt()
        classes = (directions @ projection).double()
        shares = torch.zeros(len(database), classes.size(0), dtype=torch.float64)
        sizes = database.dataset_ptr.diff()[database.dataset]
        members, _ = database.members(database.dataset)
        rows = torch.arange(len(database))
        shares[rows.repeat_interleave(sizes), members] = 1.0 / sizes.repeat_interleave(sizes).double()
        dataset_size = float(sizes.double().mean())
        descriptions = shares @ classes
        mean, scale = float(database.accuracy.mean()), float(database.accuracy.std()) or 1.0

        points = shared_descriptors(database.space).table(archs).double()
        cells = {name: kernel(points, points, _UNIT) for name, kernel in _cell_kernels(database.space).items()}
        terms: dict[str, Callable[[Tensor, Tensor], Tensor]]
        terms = {name: partial(_of_cells, kernel, cell) for name, kernel in cells.items()}
        first = next(iter(terms.values()))
        terms["interaction"] = lambda a, b: first(a, b).mul_(descriptions[a] @ descriptions[b].t() * dataset_size)
        for name, kernel in _class_kernels(classes.size(1)).items():
            terms[name] = partial(_of_classes, kernel(classes, classes, _UNIT) * dataset_size, shares)
        gp = GaussianProcess(
            {name: Precomputed(term, VARIANCE) for name, term in terms.items()},
            noise=VARIANCE,
            max_iter=self.max_iter,
            max_fit=MAX_FIT,
        ).fit(rows, (database.accuracy.double() - mean) / scale)
        state = {
            "projection": projection,
            "archs": archs,
            "cell_count": count,
            "cell_weight": gp.weights.new_zeros(archs.numel()).index_add(0, cell, gp.weights),
            "taste_weight": descriptions.new_zeros(archs.numel(), descriptions.size(1)).index_add(
                0, cell, gp.weights.unsqueeze(1) * descriptions
            ),
            "classes": classes,
            "class_count": shares.square().sum(dim=0),
            "class_weight": shares.t() @ gp.weights,
            "theta": gp.theta,
            "scalars": torch.tensor([mean, scale, dataset_size], dtype=torch.float64),
        }
        return self.load_state_dict(state, database.space)

    def predict(
        self, sets: FeatureSets, dataset: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts pairs of data set and architecture.

        Args:
            sets: ``T`` data sets.
            dataset: The data set of each pair, ``[n]``.
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
        effect, variance = self._dataset_effect(classes, shares)
        descriptions = shares @ classes * self.dataset_size * self.theta[len(self._cells.kernels)].exp()
        first = next(iter(self._cells.kernels.values()))
        means, spreads = [], []
        for part, of in zip(torch.split(cells.double(), _CHUNK), torch.split(dataset, _CHUNK), strict=True):
            cross = self._cells.covariance(part, self._points)
            slopes = first(part, self._points, _UNIT) @ self.interaction_weight
            interaction = (slopes * descriptions[of]).sum(dim=1)
            means.append(cross @ self.cell_weight + interaction + effect[of])
            if return_std:
                left = self._cells.diagonal(part) - self._measured_cells.explained(cross)
                spreads.append(left.clamp_min(0.0) + variance[of])
        mean = (self.mean + self.scale * torch.cat(means)).float()
        if not return_std:
            return mean, None
        return mean, (self.scale * (torch.cat(spreads) + self.theta[-1].exp()).sqrt()).float()

    def num_variances(self, space: CellSpace[Any]) -> int:
        r"""Returns the number of variances for a space, that of the noise included."""
        return len(_cell_kernels(space)) + len(CLASS_LENGTHS) + 2

    @property
    def hyperparameters(self) -> dict[str, float]:
        r"""Variance of each term and of the noise, on standardised labels."""
        names = [*self._cells.kernels, "interaction", *_class_kernels(self.classes.size(1)), "noise"]
        return dict(zip(names, self.theta.exp().tolist(), strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns everything learned, as tensors, by the names in weight files."""
        scalars = torch.tensor([self.mean, self.scale, self.dataset_size], dtype=torch.float64)
        return {
            "projection": self.projection,
            "archs": self.archs,
            "cell_count": self.cell_count.int(),
            "cell_weight": self.cell_weight,
            "taste_weight": self.interaction_weight.float(),
            "classes": self.classes.float(),
            "class_count": self.class_count.float(),
            "class_weight": self.class_weight,
            "theta": self.theta,
            "scalars": scalars,
        }

    def load_state_dict(self, state: Mapping[str, Tensor], space: CellSpace[Any]) -> Self:
        r"""Inverse of :meth:`state_dict`."""
        # Cached values derived from the previous state are dropped.
        for name in ("_points", "_cells", "_measured_cells", "_classes"):
            self.__dict__.pop(name, None)
        self.space = space
        self.projection, self.archs = state["projection"], state["archs"]
        self.interaction_weight = state["taste_weight"].double()
        for name in ("cell_count", "cell_weight", "classes", "class_count", "class_weight", "theta"):
            setattr(self, name, state[name].double())
        self.mean, self.scale, self.dataset_size = state["scalars"].tolist()
        return self

    @cached_property
    def _points(self) -> Tensor:
        cells: Tensor = shared_descriptors(self.space).table(self.archs)
        return cells.double()

    @cached_property
    def _cells(self) -> GaussianProcess:
        """The architecture effect."""
        kernels = _cell_kernels(self.space)
        return GaussianProcess(kernels).assume(torch.cat([self.theta[: len(kernels)], self.theta[-1:]]))

    @cached_property
    def _measured_cells(self) -> GaussianProcess:
        """The architecture effect, as if each architecture of the database had been measured by itself."""
        zero = torch.zeros_like(self.cell_count)
        return self._cells.condition(self._points, zero, self._cells.theta, repeats=self.cell_count)

    @cached_property
    def _classes(self) -> GaussianProcess:
        """The class effect, as if each class had been measured by itself."""
        kernels = _class_kernels(self.classes.size(1))
        variances = self.theta[-1 - len(kernels) : -1] + math.log(self.dataset_size)
        gp, count = GaussianProcess(kernels), self.class_count.clamp_min(1e-12)
        return gp.condition(
            self.classes, torch.zeros_like(count), torch.cat([variances, self.theta[-1:]]), repeats=count
        )

    def _dataset_effect(self, classes: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the data-set effect ``[T]``; ``shares`` ``[T, K]`` are the weights of the classes."""
        towards = shares @ self._classes.covariance(classes)
        variances = []
        for row, known in zip(shares, self._classes.explained(towards), strict=True):
            members = classes[row.nonzero().flatten()]
            variances.append((self._classes.covariance(members, members).mean() - known).clamp_min(0.0))
        return towards @ self.class_weight, torch.stack(variances)


def _cell_kernels(space: CellSpace[Any]) -> dict[str, Kernel]:
    """Radial ones first; their only hyperparameters are variances."""
    groups = {name: part for name, part in bank_groups(shared_descriptors(space)).items() if name != TREND}
    networks = groups.pop(NETWORKS, None)
    kernels: dict[str, Kernel] = {name: Stationary(part, length=CELL_LENGTH) for name, part in groups.items()}
    return kernels if networks is None else {**kernels, NETWORKS: Linear(networks)}


def _class_kernels(width: int) -> dict[str, Kernel]:
    # CLASS_LENGTHS refer to distances that are not divided by the root of the width.
    lengths = {f"classes_{length}": length / math.sqrt(width) for length in CLASS_LENGTHS}
    return {name: Stationary(range(width), "rbf", length=length) for name, length in lengths.items()}


def _of_cells(kernel: Tensor, cell: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return kernel[cell[a]][:, cell[b]]


def _of_classes(kernel: Tensor, shares: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return shares[a] @ kernel @ shares[b].t()
