from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyg_nas_np.convnp.weights import WEIGHTS
from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.mobilenetv3.predictor import SubNetworkModel
from pyg_nas_np.metad2a.predictor_training import PerformanceModel, train_performance_model
from pyg_nas_np.metad2a.predictor_weights import (
    read_performance_model,
    shipped_performance_model,
    write_performance_model,
)
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.registry import space_by_name
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, MissingWeightsError

SPACE = space_by_name("nasbench201")
CARD = {"data": "made up"}


def make(count: int = 120, classes: int = 20, size: int = 4) -> MetaD2ADatabase:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(classes, 8, generator=generator)
    datasets = torch.stack([torch.randperm(classes, generator=generator)[:size] for _ in range(count)])
    arch = torch.randint(len(SPACE), (count,), generator=generator)
    ease = torch.nn.functional.normalize(pool, dim=1)[:, 0]
    accuracy = 60 + 8 * ease[datasets].mean(dim=1) + 3 * shared_descriptors(SPACE).table(arch)[:, -1]
    return MetaD2ADatabase(
        SPACE,
        FeatureSets.from_datasets([pool.split(1)]),
        datasets.flatten(),
        torch.arange(count + 1) * size,
        torch.arange(count),
        arch,
        accuracy.double(),
        torch.zeros(count, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def model() -> PerformanceModel:
    return train_performance_model(make(), epochs=1)


def test_files_give_the_same_model_back(model: PerformanceModel, tmp_path: Path) -> None:
    write_performance_model(tmp_path / "m.safetensors", model, SPACE, CARD)
    again = read_performance_model(tmp_path / "m.safetensors", SPACE)
    database = make()[:10]
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
