r"""Weight files of the generator, and those that the package ships."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import Any

from safetensors.torch import save_file

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.graph_codec import graph_codec
from pyg_nas_np.utils import InvalidArchitectureError, MissingWeightsError, atomic_path, read_tensors

FORMAT = "pyg_nas_np.metad2a_generator/1"


def write_generator(path: str | os.PathLike[str], generator: MetaD2AGenerator, card: dict[str, Any]) -> None:
    r"""Writes a generator as safetensors, with a card of how it was made, atomically."""
    metadata = {
        "format": FORMAT,
        "space": generator.codec.space.name,
        "config": json.dumps(generator.config),
        "card": json.dumps(card),
    }
    with atomic_path(path) as tmp:
        save_file({name: value.detach().contiguous() for name, value in generator.state_dict().items()}, tmp, metadata)


def read_generator(path: str | os.PathLike[str], space: SearchSpace[Any]) -> MetaD2AGenerator:
    r"""Reads a generator for a space.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
        InvalidArchitectureError: If the weights are for another space.
    """
    metadata, state = read_tensors(path, FORMAT)
    if metadata["space"] != space.name:
        raise InvalidArchitectureError(f"{os.fspath(path)} generates {metadata['space']}, not {space.name}")
    generator = MetaD2AGenerator(graph_codec(space), **json.loads(metadata["config"]))
    generator.load_state_dict(state)
    return generator.eval()


@lru_cache(maxsize=8)
def shipped_generator(space: SearchSpace[Any]) -> MetaD2AGenerator:
    r"""Returns the generator whose weights the package ships for a space.

    Raises:
        MissingWeightsError: If it ships none.
    """
    path = WEIGHTS / f"metad2a-generator-{space.name}.safetensors"
    if not path.exists():
        have = [file.stem.removeprefix("metad2a-generator-") for file in WEIGHTS.glob("metad2a-generator-*")]
        raise MissingWeightsError(
            f"no generator is shipped for the space '{space.name}' (shipped: {', '.join(sorted(have)) or 'none'}). "
            f"Train one with pyg_nas_np.metad2a.generator_training.train_generator(database), pass it as generator="
        )
    return read_generator(path, space)
