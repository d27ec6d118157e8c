from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2APredictor
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubNetworkModel
from pyg_nas_np.metad2a.predictor_training import PerformanceModel, train_performance_model
from pyg_nas_np.metad2a.predictor_weights import (
    read_performance_model,
    shipped_performance_model,
    write_performance_model,
)
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.registry import space_by_name
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    MissingWeightsError,
    NASError,
    read_tensors,
    write_tensors,
)
from tests.metad2a.conftest import SPACE, make_database

CARD = {"data": "made up"}


@pytest.fixture(scope="module")
def model() -> PerformanceModel:
    return train_performance_model(make_database(), epochs=1)


def test_files_give_the_same_model_back(model: PerformanceModel, tmp_path: Path) -> None:
    write_performance_model(tmp_path / "m.safetensors", model, SPACE, CARD)
    again = read_performance_model(tmp_path / "m.safetensors", SPACE)
    database = make_database()[:10]
    sets, cells = database.sets(database.dataset), shared_descriptors(SPACE).table(database.arch)
    for estimator in ("gp", "network"):
        for a, b in zip(
            again.predict(estimator, sets, torch.arange(10), cells),  # type: ignore[arg-type]
            model.predict(estimator, sets, torch.arange(10), cells),  # type: ignore[arg-type]
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_bad_files_are_told(model: PerformanceModel, tmp_path: Path, toy_space: CellSpace) -> None:  # type: ignore[type-arg]
    path = tmp_path / "m.safetensors"
    with pytest.raises(DataFileError, match=r"missing|corrupt"):
        read_performance_model(path, SPACE)
    write_performance_model(path, model, SPACE, CARD)
    with pytest.raises(InvalidArchitectureError, match="was trained for other descriptors of nasbench201"):
        read_performance_model(path, toy_space)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataFileError, match=r"missing|corrupt"):
        read_performance_model(path, SPACE)


def test_spaces_without_weights_are_told(toy_space: CellSpace) -> None:  # type: ignore[type-arg]
    with pytest.raises(MissingWeightsError, match="no meta-trained predictor is shipped for the space 'toy'"):
        shipped_performance_model(toy_space)


def test_the_header_names_the_reader() -> None:
    space = space_by_name("mobilenetv3")
    assert isinstance(
        read_performance_model(WEIGHTS / "metad2a-predictor-mobilenetv3.safetensors", space), SubNetworkModel
    )
    with pytest.raises(DataFileError, match=r"has format 'pyg_nas_np.metad2a_generator/1', expected '.*' or '.*'"):
        read_performance_model(WEIGHTS / "metad2a-generator-nasbench201.safetensors", SPACE)


@pytest.mark.parametrize("name", ["nasbench201", "mobilenetv3"])
def test_damaged_files_raise_named_errors(tmp_path: Path, mutations: Callable[..., Iterator[bytes]], name: str) -> None:
    source, path, space = WEIGHTS / f"metad2a-predictor-{name}.safetensors", tmp_path / "w", space_by_name(name)
    for content in mutations(source.read_bytes(), count=24):
        path.write_bytes(content)
        with suppress(NASError):
            read_performance_model(path, space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("process.theta"), "tensor 'process.theta' must have shape"),
        (lambda t, m: t.update({"process.archs": t["process.archs"] + 20_000}), "must hold indices of nasbench201"),
        (lambda t, m: t.update({"process.cell_weight": t["process.cell_weight"][1:]}), "must have shape"),
        (lambda t, m: t.update({"network.cell.0.bias": t["network.cell.0.bias"] * torch.nan}), "NaN or infinite"),
        (lambda t, m: t.pop("network.cell.0.bias"), "lacks the tensor 'cell.0.bias'"),
        (lambda t, m: t.update({"network.more": torch.zeros(1)}), "'more'"),
        (lambda t, m: t.update({"process.more": torch.zeros(1)}), "'process.more'"),
        (lambda t, m: t.pop("cell_scale"), "lacks the tensor 'cell_scale'"),
        (lambda t, m: m.pop("scalars"), "lacks the entry 'scalars'"),
        (lambda t, m: m.update(scalars="[1, 0, 1]"), "must be mean, scale and noise"),
        (lambda t, m: m.update(scalars="{"), "corrupt"),
        (lambda t, m: m.update(config='{"in_channels": 1000000000000}'), "shape|corrupt"),
        (lambda t, m: m.update(config='{"in_channels": 1280, "extra": 1}'), "corrupt"),
    ],
)
def test_files_that_do_not_fit_are_told(tmp_path: Path, change: Callable[..., object], message: str) -> None:
    metadata, tensors = read_tensors(WEIGHTS / "metad2a-predictor-nasbench201.safetensors", infinite=("cell_scale",))
    change(tensors, metadata)
    write_tensors(tmp_path / "w", tensors, {k: v for k, v in metadata.items() if k != "sha256"})
    with pytest.raises(DataFileError, match=message):
        read_performance_model(tmp_path / "w", SPACE)


@pytest.mark.parametrize("content", [b"", b"\x00" * 16, b"\xff" * 64, b"PK\x03\x04 no weights", b"{}" * 40])
def test_foreign_files_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(DataFileError):
        read_performance_model(tmp_path / "w", SPACE)


def test_a_fitted_predictor_does_not_need_the_file(tmp_path: Path, model: PerformanceModel) -> None:
    path = tmp_path / "m.safetensors"
    write_performance_model(path, model, SPACE, CARD)
    dataset, cells = FeatureSets.from_datasets([[torch.randn(2, 8)]]), SPACE.batch_encode(torch.arange(3))
    predictor = MetaD2APredictor(SPACE, weights=path).fit(dataset)
    path.unlink()
    assert predictor.predict(cells).shape == (3,)
