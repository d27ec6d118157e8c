r"""A model of the accuracy of Once-for-All sub-networks, its update by measurements on another data set, its file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor

from pyg_nas_np.convnp.cell_bank import SLOPE
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures
from pyg_nas_np.predictors.kernels import additive_kernels
from pyg_nas_np.spaces import MobileNetV3Arch, MobileNetV3Space
from pyg_nas_np.spaces.mobilenetv3 import RESOLUTIONS
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, write_tensors
from pyg_nas_np.utils.state_files import read_json

FORMAT = "pyg_nas_np.meta_subnets/1"
_LEAST_SPREAD = 0.05
"""Lower bound, in standard deviations of the table, of the scale that standardises predictions."""


@dataclass(frozen=True, eq=False)
class SubNetworkModel:
    r"""Accuracy of sub-networks on the one data set that their super-network was measured on.

    A Gaussian process with linear kernels in the groups of
    :class:`~pyg_nas_np.metad2a.mobilenetv3.features.MobileNetV3Features`, that is, Bayesian linear regression: costs,
    depths, sums of kernels and of expansions of the stages, products of these, and every single layer. It is kept in
    weight space: no measurement is stored.

    **The data set is not an input.** Accuracies were measured on one data set only, ImageNet. On any other data set the
    predicted order is that of ImageNet until accuracies are measured there (:meth:`condition`).

    Args:
        space: The search space.
        resolutions: Resolutions that were measured; others cannot be predicted.
        weights: Mean of the coefficients of the features, ``[D]``.
        root: Root of their covariance: the variance at features ``x`` is the squared norm of ``root @ x``, ``[D, D]``.
        mean: Mean of the measured accuracies, in percent.
        scale: Their standard deviation.
        noise: Standard deviation of a measurement, in units of :obj:`scale`.
    """

    # Measured accuracies of the very space leave nothing to a prior.
    prior: ClassVar[float] = 0.0
    note: ClassVar[str] = (
        "Accuracies are those on ImageNet with the weights of the super-network, the only data set that was measured: "
        "the images do not change the order."
    )

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

    def describe(self, archs: Architectures) -> Tensor:
        r"""Returns the features of architectures, ``[n, D]``."""
        return self.table(list(archs))

    def predict(
        self, estimator: str, sets: FeatureSets, dataset: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts accuracies in percent.

        Args:
            estimator: ``"gp"``; there is no other.
            sets: Data sets; they do not matter.
            dataset: The data set of each pair, ``[n]``.
            cells: Features of its sub-network, ``[n, D]``.
            return_std: Whether to return standard deviations too.

        Returns:
            Means and standard deviations of a new measurement or :obj:`None`, ``[n]`` float32.

        Raises:
            ValueError: If :obj:`estimator` is another one.
        """
        if estimator != "gp":
            raise ValueError(
                f"the model of {self.space.name} has no estimator {estimator!r}: one measured data set cannot train a "
                f"network over data sets; take estimator='gp'"
            )
        mean = (self.mean + self.scale * (cells @ self.weights)).float()
        if not return_std:
            return mean, None
        variance = (cells @ self.root.t()).square().sum(dim=1) + self.noise**2
        return mean, (self.scale * variance.sqrt()).float()

    def condition(self, estimator: str, sets: FeatureSets, archs: Architectures, y: Tensor) -> SubNetworkPosterior:
        r"""Returns a Gaussian process conditioned on at least two different accuracies on another data set."""
        return SubNetworkPosterior(self, self.describe(archs), y)


def _along_the_guess(x: Tensor) -> Tensor:
    return SLOPE * x[:, -1]


class SubNetworkPosterior:
    r"""A Gaussian process over sub-networks on the user's data set, with the model of another data set as prior mean.

    Standardised accuracies increase linearly with the standardised predictions. The prior mean of the slope is
    :data:`~pyg_nas_np.convnp.cell_bank.SLOPE`, and measurements update it. The residual is a sum of radial terms in the
    features of the stages and in those of the layers.

    Args:
        model: The model of the other data set.
        cells: Features of ``n`` measured sub-networks, ``[n, D]``.
        y: Their accuracies, ``[n]``.
    """

    def __init__(self, model: SubNetworkModel, cells: Tensor, y: Tensor) -> None:
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
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def predict(self, graphs: ArchitecturesLike, return_std: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Predicts accuracies and, if asked, standard deviations of new measurements."""
        mean, std = self.gp.predict(
            self._inputs(self.model.describe(as_architectures(graphs, self.model.space))), return_std
        )
        mean = (self.mean + self.scale * mean).float()
        return mean if std is None else (mean, (self.scale * std).float())

    def _inputs(self, cells: Tensor) -> Tensor:
        """Features, and standardised predictions of the model as the last column."""
        along = (cells @ self.model.weights - self.center) / self.spread
        return torch.cat([cells, along.unsqueeze(1)], dim=1)


# -- files ----------------------------------------------------------------------------------------------------------


def write_sub_network_model(path: str | os.PathLike[str], model: SubNetworkModel, card: Mapping[str, Any]) -> None:
    r"""Writes a model and its card as safetensors, atomically."""
    metadata = {
        "format": FORMAT,
        "space": model.space.name,
        "resolutions": json.dumps(model.resolutions),
        "scalars": json.dumps([model.mean, model.scale, model.noise]),
        "card": json.dumps(card),
    }
    write_tensors(path, {"weights": model.weights, "root": model.root.float()}, metadata)


def read(
    path: str, metadata: Mapping[str, str], state: Mapping[str, Tensor], space: MobileNetV3Space
) -> SubNetworkModel:
    r"""Builds a model from the header and the tensors of a file.

    Raises:
        DataFileError: If a tensor or an entry of the header is missing or not what it should be.
        InvalidArchitectureError: If the model is for another space, or for other features of it.
    """
    width = mobilenetv3_features(space).num_columns if metadata["space"] == space.name else None
    for name, shape in {"weights": (width,), "root": (width, width)}.items():
        if name not in state:
            raise DataFileError(f"{path} lacks the tensor '{name}'; get the file again")
        if tuple(state[name].shape) != shape or not state[name].is_floating_point():
            raise InvalidArchitectureError(f"{path} was fitted to other features of {metadata['space']}")
    if extra := sorted(state.keys() - {"weights", "root"}):
        raise DataFileError(f"{path} holds the tensor '{extra[0]}', which the model does not have")
    resolutions = read_json(metadata, "resolutions", list, path)
    if not resolutions or any(side not in RESOLUTIONS for side in resolutions):
        raise DataFileError(f"{path}: 'resolutions' must be among 128, 132, ..., 224, got {resolutions!s:.80}")
    weights, root = state["weights"].double(), state["root"].double()
    return SubNetworkModel(space, tuple(map(int, resolutions)), weights, root, *read_scalars(metadata, path))


def read_scalars(metadata: Mapping[str, str], path: str) -> tuple[float, float, float]:
    r"""Returns mean, scale and noise of a header.

    Raises:
        DataFileError: If they are not three numbers, or the last two are not positive.
    """
    scalars = read_json(metadata, "scalars", list, path)
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in scalars)
    if len(scalars) != 3 or not numbers or min(scalars[1:]) <= 0:
        raise DataFileError(f"{path}: 'scalars' must be mean, scale and noise, got {scalars!s:.80}")
    mean, scale, noise = map(float, scalars)
    return mean, scale, noise
