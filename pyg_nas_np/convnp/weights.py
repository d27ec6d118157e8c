r"""Weight files of the process, and those that the package ships."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.convnp.cell_bank import LEADING_COORDINATES
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.features.descriptors import TREND
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import InvalidArchitectureError, MissingWeightsError, foreign_file, read_tensors, write_tensors
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.state_files import load_module, read_json, read_metadata

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
FORMAT = "pyg_nas_np.convnp/2"
PROBE = "descriptors of the first architectures"
"""Tensor that shows whether the descriptors still have the scale that the weights were trained for."""


def write_weights(path: str | os.PathLike[str], model: ConvNP, space: CellSpace[Any], card: dict[str, Any]) -> None:
    r"""Writes weights as safetensors, with the descriptors of a few cells for :func:`read_weights`; atomically."""
    metadata = {
        "format": FORMAT,
        "space": space.name,
        "in_channels": json.dumps(model.in_channels),
        "config": json.dumps(model.config),
        "card": json.dumps(card),
    }
    write_tensors(path, {**model.state_dict(), PROBE: _probe(space)}, metadata)


@fixed_defaults
def read_weights(path: str | os.PathLike[str], space: CellSpace[Any]) -> ConvNP:
    r"""Reads weights for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format, or its tensors do not fit its network.
        InvalidArchitectureError: If the weights are for another space, or for other descriptors of it.
    """
    metadata, state = read_tensors(path, FORMAT, ("space", "in_channels", "config"))
    own = _probe(space) if metadata["space"] == space.name else None
    probe = state.pop(PROBE, None)
    if own is None or probe is None or probe.shape != own.shape or not _same_scale(probe, own):
        raise InvalidArchitectureError(
            f"{os.fspath(path)} was trained for other descriptors of {metadata['space']}; train again with pretrain()"
        )
    in_channels, config = read_json(metadata, "in_channels", int, path), read_json(metadata, "config", dict, path)
    # The meta device neither draws weights that are replaced, nor allocates a network that the file does not match.
    with foreign_file(path, "a weight file of the process"), torch.device("meta"):
        model = ConvNP(in_channels, **config)
    load_module(model, state, path)
    return model.eval()


def _same_scale(probe: Tensor, own: Tensor) -> bool:
    return torch.allclose(probe.to(own.dtype), own, atol=1e-2, rtol=1e-2)


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    r"""Returns the card of a weight file of this package: data, seed, steps, minutes.

    Raises:
        DataFileError: If the file is missing, cut or has no card.
    """
    card: dict[str, Any] = read_json(read_metadata(path, required=("card",)), "card", dict, path)
    return card


@fixed_defaults
def _probe(space: CellSpace[Any]) -> Tensor:
    """Leading descriptors of a few cells; not the costs, which differ between the data sets of one space."""
    descriptors = shared_descriptors(space)
    groups = descriptors.groups
    columns = [
        column for name, part in groups.items() if name not in ("cost", TREND) for column in part[:LEADING_COORDINATES]
    ]
    first: Tensor = descriptors.table(torch.arange(min(8, len(space))))
    return first[:, columns]


def shipped_model(space: CellSpace[Any]) -> ConvNP:
    r"""Returns the process whose weights the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    return space.keep(_read_shipped)


def _read_shipped(space: CellSpace[Any]) -> ConvNP:
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
