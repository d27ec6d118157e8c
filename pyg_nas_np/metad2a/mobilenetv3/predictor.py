r"""A model of the accuracy of Once-for-All sub-networks, what measurements on another data set add, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_nas_np.convnp.bank import SLOPE
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.inputs import Graphs
from pyg_nas_np.predictors.kernels import additive_kernels
from pyg_nas_np.spaces import MobileNetV3Arch, MobileNetV3Space
from pyg_nas_np.utils import InvalidArchitectureError, atomic_path, read_tensors

FORMAT = "pyg_nas_np.meta_subnets/1"
_LEAST_SPREAD = 0.05
"""Spread of predictions, in standard deviations of the table, below which differences among them are not stretched."""


@dataclass(frozen=True, eq=False)
class SubnetModel:
    r"""Accuracy of sub-networks on the one data set that their super-network was measured on.

    A Gaussian process with linear kernels in the groups of
    :class:`~pyg_nas_np.metad2a.mobilenetv3.features.MobileNetV3Features`, that is, Bayesian linear regression: costs,
    depths, sums of kernels and of expansions of the stages, products of these, and every single layer. It is kept in
    weight space: no measurement is stored.

    **The data set does not enter.** One measured task cannot teach how tasks differ. On a data set of its own, the
    order of the sub-networks is that of ImageNet until something is measured there (:meth:`condition`).

    Args:
        space: The search space.
        resolutions: Resolutions that were measured; others cannot be predicted.
        weights: Mean of the coefficients of the features, ``[D]``.
        root: Root of their covariance: the variance at features ``x`` is the squared norm of ``root @ x``, ``[D, D]``.
        mean: Mean of the measured accuracies, in percent.
        scale: Their standard deviation.
        noise: Standard deviation of a measurement, in units of :obj:`scale`.
    """

    space: MobileNetV3Space
    resolutions: tuple[int, ...]
    weights: Tensor
    root: Tensor
    mean: float
    scale: float
    noise: float

    def table(self, archs: Sequence[MobileNetV3Arch]) -> Tensor:
        r"""Returns the features of sub-networks, ``[n, D]`` float64.

        Raises:
            InvalidArchitectureError: If the resolution of one was not measured.
        """
        if other := sorted({arch.resolution for arch in archs} - {*self.resolutions}):
            known = ", ".join(map(str, self.resolutions))
            raise InvalidArchitectureError(
                f"accuracies were measured at resolution {known} only, got {other[0]}; change the resolution of the "
                f"architectures"
            )
        return mobilenetv3_features(self.space).table(archs)

    def describe(self, graphs: Graphs) -> Tensor:
        r"""Returns the features of graphs, ``[n, D]``."""
        return self.table(self._archs(graphs))

    def predict(
        self, form: str, sets: FeatureSets, task: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts accuracies in percent.

        Args:
            form: ``"process"``; there is no other.
            sets: Data sets; they do not matter.
            task: The data set of each pair, ``[n]``.
            cells: Features of its sub-network, ``[n, D]``.
            return_std: Whether to return standard deviations too.

        Returns:
            Means and standard deviations of a new measurement or :obj:`None`, ``[n]`` float32.

        Raises:
            ValueError: If :obj:`form` is another one.
        """
        if form != "process":
            raise ValueError(
                f"the model of {self.space.name} has no form {form!r}: one measured data set cannot train a network "
                f"over data sets; take form='process'"
            )
        mean = (self.mean + self.scale * (cells @ self.weights)).float()
        if not return_std:
            return mean, None
        variance = (cells @ self.root.t()).square().sum(dim=1) + self.noise**2
        return mean, (self.scale * variance.sqrt()).float()

    def condition(self, form: str, sets: FeatureSets, graphs: Graphs, y: Tensor) -> SubnetPosterior:
        r"""Returns a process that has seen accuracies on another data set, at least two different ones."""
        return SubnetPosterior(self, self.describe(graphs), y)

    def _archs(self, graphs: Graphs) -> list[MobileNetV3Arch]:
        if isinstance(graphs, Batch):
            return self.space.batch_decode(graphs)
        return [self.space.decode(graph) for graph in ([graphs] if isinstance(graphs, Data) else graphs)]


def _along_the_guess(x: Tensor) -> Tensor:
    return SLOPE * x[:, -1]


class SubnetPosterior:
    r"""A Gaussian process over sub-networks on a data set of the user, which follows a model of another one.

    Standardised accuracies rise along the standardised predictions with a slope around
    :data:`~pyg_nas_np.convnp.bank.SLOPE`, which the measurements correct; what remains is a sum of radial terms
    in what the stages are and in what the layers are.

    Args:
        model: The model of the other data set.
        cells: Features of ``n`` measured sub-networks, ``[n, D]``.
        y: Their accuracies, ``[n]``.
    """

    def __init__(self, model: SubnetModel, cells: Tensor, y: Tensor) -> None:
        self.model = model
        guess = cells @ model.weights
        self.center = float(guess.mean())
        self.spread = max(float(guess.std()), _LEAST_SPREAD)
        self.mean, self.scale = float(y.double().mean()), float(y.double().std())
        groups = mobilenetv3_features(model.space).groups
        columns = {"stages": groups["stages"], "layers": groups["layers"], "guess": [cells.size(1)]}
        kernels = additive_kernels(columns, linear=("guess",))
        z = (y.double() - self.mean) / self.scale
        self.gp = GaussianProcess(kernels, mean=_along_the_guess).fit(self._inputs(cells), z)

    @overload
    def predict(self, graphs: Graphs, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, graphs: Graphs, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def predict(self, graphs: Graphs, return_std: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Predicts accuracies, with standard deviations of new measurements where asked."""
        mean, std = self.gp.predict(self._inputs(self.model.describe(graphs)), return_std)
        mean = (self.mean + self.scale * mean).float()
        return mean if std is None else (mean, (self.scale * std).float())

    def _inputs(self, cells: Tensor) -> Tensor:
        """Features, and standardised predictions of the model as the last column."""
        along = (cells @ self.model.weights - self.center) / self.spread
        return torch.cat([cells, along.unsqueeze(1)], dim=1)


# -- files ----------------------------------------------------------------------------------------------------------


def write_subnet_model(path: str | os.PathLike[str], model: SubnetModel, card: Mapping[str, Any]) -> None:
    r"""Writes a model as safetensors, with a card of how it was made, atomically."""
    metadata = {
        "format": FORMAT,
        "space": model.space.name,
        "resolutions": json.dumps(model.resolutions),
        "scalars": json.dumps([model.mean, model.scale, model.noise]),
        "card": json.dumps(card),
    }
    with atomic_path(path) as tmp:
        save_file({"weights": model.weights, "root": model.root.float().contiguous()}, tmp, metadata)


def read_subnet_model(path: str | os.PathLike[str], space: MobileNetV3Space) -> SubnetModel:
    r"""Reads a model for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
        InvalidArchitectureError: If the model is for another space, or for other features of it.
    """
    metadata, state = read_tensors(path, FORMAT)
    width = mobilenetv3_features(space).num_columns if metadata["space"] == space.name else None
    if state["weights"].numel() != width:
        raise InvalidArchitectureError(f"{os.fspath(path)} was fitted to other features of {metadata['space']}")
    resolutions = tuple(json.loads(metadata["resolutions"]))
    scalars = json.loads(metadata["scalars"])
    return SubnetModel(space, resolutions, state["weights"], state["root"].double(), *scalars)
