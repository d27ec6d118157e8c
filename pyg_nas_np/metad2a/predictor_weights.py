r"""Weight files of the predictor, with one reader for each kind of model, and those that the package ships."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, overload

import torch
from torch import Tensor

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.descriptors import TREND
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.joint_gp import JointGP
from pyg_nas_np.metad2a.mobilenetv3 import predictor as sub_networks
from pyg_nas_np.metad2a.pair_regressor import PairRegressor
from pyg_nas_np.metad2a.predictor_training import Estimator, PerformanceModel, cell_inputs
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    MissingWeightsError,
    fixed_defaults,
    foreign_file,
    load_module,
    read_tensors,
    write_tensors,
)
from pyg_nas_np.utils.defaults import FixedDefaults
from pyg_nas_np.utils.state_files import read_json

FORMAT = "pyg_nas_np.meta_performance/1"
PROBE = "descriptors of the first architectures"


class Conditioned(Protocol):
    r"""A predictor conditioned on measurements on a data set."""

    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[False] = False) -> Tensor: ...
    @overload
    def predict(self, graphs: ArchitecturesLike, return_std: Literal[True]) -> tuple[Tensor, Tensor]: ...


class AccuracyModel(Protocol):
    r"""A meta-trained model of accuracies on a new data set."""

    note: ClassVar[str]
    """The meaning of the predicted accuracies, in one sentence."""

    prior: ClassVar[float]
    """Weight of the prior trend beside the predictions where generated architectures are ranked."""

    def describe(self, archs: Architectures) -> Tensor:
        r"""Returns the inputs of the model for architectures, ``[n, D]``."""

    def predict(
        self, estimator: Estimator, sets: FeatureSets, dataset: Tensor, cells: Tensor, return_std: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        r"""Predicts accuracies in percent of pairs of data set and architecture."""

    def condition(self, estimator: Estimator, sets: FeatureSets, archs: Architectures, y: Tensor) -> Conditioned:
        r"""Returns a predictor conditioned on at least two different measurements on a data set."""


def write_performance_model(
    path: str | os.PathLike[str], model: PerformanceModel, space: CellSpace[Any], card: Mapping[str, Any]
) -> None:
    r"""Writes a model as safetensors, with the descriptors of a few cells for the reader; atomically."""
    tensors = {"cell_scale": model.network.cell_scale, PROBE: _probe(space)}
    tensors |= {f"network.{name}": value for name, value in model.network.named_parameters()}
    tensors |= {f"process.{name}": value for name, value in model.gp.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "space": space.name,
        "config": json.dumps({"in_channels": model.network.in_channels, **model.network.config}),
        "scalars": json.dumps([model.mean, model.scale, model.noise]),
        "card": json.dumps(card),
    }
    write_tensors(path, tensors, metadata)


@fixed_defaults
def read_performance_model(path: str | os.PathLike[str], space: CellSpace[Any]) -> AccuracyModel:
    r"""Reads a model for a space; the header of the file names the kind.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
        InvalidArchitectureError: If the model is for another space, or for other descriptors of it.
    """
    metadata, state = read_tensors(path, infinite=("cell_scale",))
    kind = metadata.get("format", "")
    if kind not in READERS:
        raise DataFileError(f"{os.fspath(path)} has format {kind!r:.80}, expected {' or '.join(map(repr, READERS))}")
    if missing := [entry for entry in ("space", "scalars") if entry not in metadata]:
        raise DataFileError(f"{os.fspath(path)} lacks the entry '{missing[0]}' in its metadata; get the file again")
    return READERS[kind](os.fspath(path), metadata, state, space)


def _read(path: str, metadata: Mapping[str, str], state: Mapping[str, Tensor], space: CellSpace[Any]) -> AccuracyModel:
    own = _probe(space) if metadata["space"] == space.name else None
    probe = state.get(PROBE)
    if own is None or probe is None or probe.shape != own.shape or not _same_scale(probe, own):
        raise InvalidArchitectureError(
            f"{path} was trained for other descriptors of {metadata['space']}; train again with "
            "pyg-nas-np train metad2a-predictor"
        )
    config = read_json(metadata, "config", dict, path)
    cell_scale = torch.ones(own.size(1)) if "cell_scale" not in state else state["cell_scale"].float()
    with foreign_file(path, "a weight file of the predictor"):
        in_channels = int(config.pop("in_channels"))
        # On the meta device, a network that does not match the file allocates no memory.
        with FixedDefaults(device="meta"):
            network = PairRegressor(in_channels, cell_scale, **config)
    weights = {name: value.float() for name, value in _part(state, "network.").items()}
    load_module(network, weights | ({"cell_scale": cell_scale} if "cell_scale" in state else {}), path)
    gp = _part(state, "process.")
    _check_gp(gp, in_channels, space, path)
    return PerformanceModel(
        JointGP().load_state_dict(gp, space), network.eval(), *sub_networks.read_scalars(metadata, path)
    )


def _check_gp(state: Mapping[str, Tensor], in_channels: int, space: CellSpace[Any], path: str) -> None:
    """Checks that the Gaussian process's tensors have the right names, consistent shapes and valid indices."""
    size = {name: state[name].shape for name in ("archs", "projection", "classes") if name in state}
    if len(size) < 3 or any(len(size[name]) != dim for name, dim in (("archs", 1), ("projection", 2), ("classes", 2))):
        raise DataFileError(f"{path} lacks the tensors of the Gaussian process; get the file again")
    count, classes, width = size["archs"][0], size["classes"][0], size["projection"][1]
    shapes: dict[str, tuple[int, ...]] = {
        "projection": (in_channels, width),
        "archs": (count,),
        "cell_count": (count,),
        "cell_weight": (count,),
        "taste_weight": (count, width),
        "classes": (classes, width),
        "class_count": (classes,),
        "class_weight": (classes,),
        "theta": (JointGP().num_variances(space),),
        "scalars": (3,),
    }
    for name, shape in shapes.items():
        if name not in state or tuple(state[name].shape) != shape:
            found = list(state[name].shape) if name in state else "absent"
            raise DataFileError(f"{path}: tensor 'process.{name}' must have shape {list(shape)}, it is {found}")
    if extra := sorted(state.keys() - shapes.keys()):
        raise DataFileError(f"{path} holds the tensor 'process.{extra[0]}', which the predictor does not have")
    archs = state["archs"]
    if archs.is_floating_point() or not 0 <= int(archs.min()) <= int(archs.max()) < len(space):
        raise DataFileError(f"{path}: 'process.archs' must hold indices of {space.name}")


def _same_scale(probe: Tensor, own: Tensor) -> bool:
    return torch.allclose(probe.to(own.dtype), own, atol=1e-2, rtol=1e-2)


READERS: dict[str, Callable[[str, Mapping[str, str], Mapping[str, Tensor], Any], AccuracyModel]] = {
    FORMAT: _read,
    sub_networks.FORMAT: sub_networks.read,
}
"""Readers by the format that the header of a file names; they take path, header, tensors and space."""


def shipped_performance_model(space: CellSpace[Any]) -> AccuracyModel:
    r"""Returns the model that the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    path = WEIGHTS / f"metad2a-predictor-{space.name}.safetensors"
    if not path.exists():
        raise MissingWeightsError(
            f"no meta-trained predictor is shipped for the space '{space.name}'; train one with "
            "pyg-nas-np train metad2a-predictor and pass MetaD2APredictor(weights=path)"
        )
    return read_performance_model(path, space)


def _probe(space: CellSpace[Any]) -> Tensor:
    """Descriptors of a few cells; not the costs, which differ between the data sets of one space."""
    descriptors = shared_descriptors(space)
    varying = {column for name in ("cost", TREND) for column in descriptors.groups.get(name, [])}
    columns = [column for column in cell_inputs(descriptors) if column not in varying]
    first: Tensor = descriptors.table(torch.arange(min(8, len(space))))
    return first[:, columns]


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
