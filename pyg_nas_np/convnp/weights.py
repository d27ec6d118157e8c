r"""Weight files of the neural process, and those that the package ships."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.descriptors import TREND
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    MissingWeightsError,
    atomic_path,
    drawing_from,
    read_tensors,
)
from pyg_nas_np.utils.defaults import fixed_defaults

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
FORMAT = "pyg_nas_np.convnp/2"
_LEADING = 24
PROBE = "descriptors of the first architectures"
"""Tensor that tells whether the descriptors still have the scale that the weights were trained for."""


def write_weights(path: str | os.PathLike[str], model: ConvNP, space: SearchSpace[Any], card: dict[str, Any]) -> None:
    r"""Writes weights as safetensors, with the descriptors that they expect of a few cells, atomically."""
    metadata = {
        "format": FORMAT,
        "space": space.name,
        "in_channels": json.dumps(model.in_channels),
        "config": json.dumps(model.config),
        "card": json.dumps(card),
    }
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    tensors[PROBE] = _probe(space)
    with atomic_path(path) as tmp:
        save_file(tensors, tmp, metadata)


@fixed_defaults
def read_weights(path: str | os.PathLike[str], space: SearchSpace[Any]) -> ConvNP:
    r"""Reads weights for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
        InvalidArchitectureError: If the weights are for another space, or for other descriptors of it.
    """
    metadata, state = read_tensors(path, FORMAT)
    probe = state.pop(PROBE)
    own = _probe(space) if metadata["space"] == space.name else None
    if own is None or probe.shape != own.shape or not torch.allclose(probe, own, atol=1e-2, rtol=1e-2):
        raise InvalidArchitectureError(
            f"{os.fspath(path)} was trained for other descriptors of {metadata['space']}; train again with pretrain()"
        )
    # Initial parameters must not be drawn from the state of the process.
    with drawing_from(torch.Generator(device="cpu")):
        model = ConvNP(json.loads(metadata["in_channels"]), **json.loads(metadata["config"]))
    model.load_state_dict(state)
    return model.eval()


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    r"""Returns what any weight file of this package says of its own making: data, seed, steps, minutes.

    Raises:
        DataFileError: If the file is missing, corrupt or has no card.
    """
    metadata, _ = read_tensors(path)
    if "card" not in metadata:
        raise DataFileError(f"{os.fspath(path)} has no card; it was not written by this package")
    card: dict[str, Any] = json.loads(metadata["card"])
    return card


@fixed_defaults
def _probe(space: SearchSpace[Any]) -> Tensor:
    """Leading descriptors of a few cells; not the costs, which differ between the tasks of one space."""
    descriptors = shared_descriptors(space)
    groups = descriptors.groups
    columns = [column for name, part in groups.items() if name not in ("cost", TREND) for column in part[:_LEADING]]
    return descriptors.table(torch.arange(min(8, len(space))))[:, columns]


def shipped_model(space: SearchSpace[Any]) -> ConvNP:
    r"""Returns the process whose weights the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    return space.keep(_read_shipped)


def _read_shipped(space: SearchSpace[Any]) -> ConvNP:
    path = WEIGHTS / f"convnp-{space.name}.safetensors"
    if not path.exists():
        have = ", ".join(shipped_weights()) or "none"
        raise MissingWeightsError(
            f"no weights are shipped for the space '{space.name}' (shipped: {have}). Train them once with "
            f"pyg_nas_np.pretrain(space, path) and pass ConvNPPredictor(weights=path)"
        )
    return read_weights(path, space)


def shipped_weights() -> list[str]:
    r"""Returns the names of the spaces whose weights the package ships."""
    return sorted(path.stem.removeprefix("convnp-") for path in WEIGHTS.glob("convnp-*.safetensors"))
