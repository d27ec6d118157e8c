from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from pyg_nas_np.convnp.weights import WEIGHTS, read_card
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.metad2a.generator_weights import read_generator, shipped_generator, write_generator
from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.graph_codec import NASBench201GraphCodec
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    MissingWeightsError,
    NASError,
    read_tensors,
    write_tensors,
)

SPACE = NASBench201Space()


@pytest.fixture
def written(tmp_path):
    model = MetaD2AGenerator(NASBench201GraphCodec(), 16, hidden_channels=8).eval()
    write_generator(tmp_path / "w.safetensors", model, {"seed": 3})
    return model, tmp_path / "w.safetensors"


def test_round_trip(written):
    model, path = written
    again = read_generator(path, SPACE)
    assert again.config == model.config
    assert read_card(path) == {"seed": 3}
    sets = FeatureSets.from_datasets([[torch.ones(2, 16)]])
    draws = [m.generate(sets, 20, generator=torch.Generator().manual_seed(0)) for m in (model, again)]
    assert draws[0] == draws[1]


def test_refuses_other_files(written, tmp_path):
    with pytest.raises(InvalidArchitectureError, match="generates nasbench201, not mobilenetv3"):
        read_generator(written[1], MobileNetV3Space())
    (tmp_path / "cut.safetensors").write_bytes(written[1].read_bytes()[:100])
    with pytest.raises(DataFileError, match="corrupt"):
        read_generator(tmp_path / "cut.safetensors", SPACE)
    with pytest.raises(DataFileError, match="missing"):
        read_generator(tmp_path / "absent.safetensors", SPACE)
    with pytest.raises(DataFileError, match=r"expected .pyg_nas_np[.]metad2a_generator"):
        read_generator(WEIGHTS / "convnp-nasbench201.safetensors", SPACE)


def test_shipped():
    model = shipped_generator(SPACE)
    assert (WEIGHTS / "metad2a-generator-nasbench201.safetensors").stat().st_size < 3e6
    sets = FeatureSets.from_datasets([[torch.zeros(1, model.in_channels), torch.ones(1, model.in_channels)]])
    draw = torch.Generator().manual_seed(0)
    cells = model.generate(sets, 500, generator=draw)
    assert len(set(cells)) == 500
    # It has learned what good cells have in common: convolutions on the way, no dead output.
    convolutions = sum(op.startswith("nor_conv") for cell in cells for op in cell.ops) / 3000
    assert convolutions > 0.45
    with pytest.raises(MissingWeightsError, match="shipped: mobilenetv3, nasbench201"):
        shipped_generator(NASBench101Space())


def test_damaged_files_raise_named_errors(tmp_path, mutations):
    source, path, space = WEIGHTS / "metad2a-generator-nasbench201.safetensors", tmp_path / "w", NASBench201Space()
    for content in mutations(source.read_bytes(), count=24):
        path.write_bytes(content)
        with suppress(NASError):
            read_generator(path, space)


@pytest.mark.parametrize(
    "config", ["{}", "[]", "{", '{"in_channels": -1}', '{"in_channels": 1280, "hidden_channels": 1000000}', '{"x": 1}']
)
def test_headers_that_do_not_fit_are_told(tmp_path, config):
    metadata, tensors = read_tensors(WEIGHTS / "metad2a-generator-nasbench201.safetensors")
    write_tensors(tmp_path / "w", tensors, {**metadata, "config": config})
    with pytest.raises(DataFileError):
        read_generator(tmp_path / "w", NASBench201Space())
