r"""Reference predictions of every shipped weight file, so that an upgrade that changes rankings is noticed.

A change on purpose is written by ``python tests/test_pinned.py --write`` and stands in the changelog. Values may differ
by the rounding of processors (:data:`TOLERANCE`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pyg_nas_np
from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.metad2a import FeatureSets, MetaD2APredictor
from pyg_nas_np.metad2a.generator_weights import shipped_generator
from pyg_nas_np.spaces import space_by_name

WEIGHTS = Path(pyg_nas_np.__file__).parent / "weights"
PINNED = Path(__file__).parent / "pinned_predictions.json"
TOLERANCE = {"rtol": 2e-3, "atol": 2e-3}


def some(name: str, count: int, first: int = 0) -> tuple[Any, list[Any]]:
    """A space and some of its architectures, which are the same on every machine."""
    space = space_by_name(name)
    if name == "mobilenetv3":
        archs = space.sample(count, torch.Generator().manual_seed(first))
        return space, [replace(arch, resolution=224) for arch in archs]  # the one at which accuracies were measured
    return space, [space[int(i)] for i in torch.linspace(first, len(space) - 1, count).long()]


def images(channels: int = 1280) -> FeatureSets:
    """Features of a data set of three classes, without random numbers."""
    values = torch.sin(torch.arange(12 * channels, dtype=torch.float64)).view(12, channels).float()
    return FeatureSets.from_datasets([list(values.split(4))])


def process(name: str) -> dict[str, Tensor]:
    space, labelled = some(name, 12, first=7)
    y = torch.sin(torch.arange(12, dtype=torch.float64)) + torch.log(space.batch_num_parameters(labelled).double() + 1)
    predictor = ConvNPPredictor(space, encoder=None).fit(labelled, y)
    mean, std = predictor.predict(some(name, 10)[1], return_std=True)
    return {"mean": mean, "std": std}


def encoder() -> dict[str, Tensor]:
    return {
        name: ConvNPPredictor(some(name, 1)[0]).predict(some(name, 10)[1]) for name in ("nasbench101", "nasbench201")
    }


def accuracies(name: str) -> dict[str, Tensor]:
    space, archs = some(name, 10)
    mean, std = MetaD2APredictor(space).fit(images()).predict(archs, return_std=True)
    return {"mean": mean, "std": std}


def generator(name: str) -> dict[str, Tensor]:
    space, archs = some(name, 10)
    model = shipped_generator(space)
    return {"log_prob": model.log_prob(images(model.in_channels)[[0] * 10], model.codec.types(archs))}


CASES: dict[str, Callable[[], dict[str, Tensor]]] = {
    "convnp-nasbench101": partial(process, "nasbench101"),
    "convnp-nasbench201": partial(process, "nasbench201"),
    "convnp-nasbenchgraph": partial(process, "nasbenchgraph"),
    "metad2a-generator-mobilenetv3": partial(generator, "mobilenetv3"),
    "metad2a-generator-nasbench201": partial(generator, "nasbench201"),
    "metad2a-predictor-mobilenetv3": partial(accuracies, "mobilenetv3"),
    "metad2a-predictor-nasbench201": partial(accuracies, "nasbench201"),
    "universal": encoder,
}


def test_every_weight_file_is_pinned():
    assert sorted(path.stem for path in WEIGHTS.glob("*.safetensors")) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_those_that_were_pinned(name):
    pinned = json.loads(PINNED.read_text())[name]
    for what, values in CASES[name]().items():
        expected = torch.tensor(pinned[what], dtype=torch.float64)
        torch.testing.assert_close(
            values.double(), expected, **TOLERANCE, msg=lambda text, what=what: f"{what}: {text}"
        )


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    found = {
        name: {k: [round(v, 5) for v in values.tolist()] for k, values in case().items()}
        for name, case in CASES.items()
    }
    PINNED.write_text(json.dumps(found, indent=1) + "\n")
