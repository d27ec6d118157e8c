r"""Weight files of the generator, and those that the package ships."""

from __future__ import annotations

import json
import os
from typing import Any

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.graph_codec import graph_codec
from pyg_nas_np.utils import (
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

FORMAT = "pyg_nas_np.metad2a_generator/1"


def write_generator(path: str | os.PathLike[str], generator: MetaD2AGenerator, card: dict[str, Any]) -> None:
    r"""Writes a generator and its card as safetensors, atomically."""
    metadata = {
        "format": FORMAT,
        "space": generator.codec.space.name,
        "config": json.dumps(generator.config),
        "card": json.dumps(card),
    }
    write_tensors(path, generator.state_dict(), metadata)


@fixed_defaults
def read_generator(path: str | os.PathLike[str], space: CellSpace[Any]) -> MetaD2AGenerator:
    r"""Reads a generator for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format, or its tensors do not fit its network.
        InvalidArchitectureError: If the weights are for another space.
    """
    metadata, state = read_tensors(path, FORMAT, ("space", "config"))
    if metadata["space"] != space.name:
        raise InvalidArchitectureError(f"{os.fspath(path)} generates {metadata['space']}, not {space.name}")
    codec, config = graph_codec(space), read_json(metadata, "config", dict, path)
    # On the meta device, a network that does not match the file allocates no memory.
    with foreign_file(path, "a weight file of the generator"), FixedDefaults(device="meta"):
        generator = MetaD2AGenerator(codec, **config)
    load_module(generator, {name: value.float() for name, value in state.items()}, path)
    return generator.eval()


def shipped_generator(space: CellSpace[Any]) -> MetaD2AGenerator:
    r"""Returns the generator whose weights the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    path = WEIGHTS / f"metad2a-generator-{space.name}.safetensors"
    if not path.exists():
        have = [file.stem.removeprefix("metad2a-generator-") for file in WEIGHTS.glob("metad2a-generator-*")]
        raise MissingWeightsError(
            f"no generator is shipped for the space '{space.name}' (shipped: {', '.join(sorted(have)) or 'none'}). "
            "Train one with pyg-nas-np train metad2a-generator, read it with read_generator(path, space) and pass it "
            "as generator="
        )
    return read_generator(path, space)
