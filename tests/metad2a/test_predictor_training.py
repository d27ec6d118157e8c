from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.predictor_training import (
    PerformanceModel,
    cell_inputs,
    read_performance_model,
    shipped_performance_model,
    train_performance_model,
    write_performance_model,
)
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.registry import space_by_name
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidFeaturesError, MissingWeightsError

SPACE = space_by_name("nasbench201")
CARD = {"data": "made up"}


def make(count: int = 120, classes: int = 20, size: int = 4) -> MetaD2ADatabase:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(classes, 8, generator=generator)
    tasks = torch.stack([torch.randperm(classes, generator=generator)[:size] for _ in range(count)])
    arch = torch.randint(len(SPACE), (count,), generator=generator)
    ease = torch.nn.functional.normalize(pool, dim=1)[:, 0]
    accuracy = 60 + 8 * ease[tasks].mean(dim=1) + 3 * shared_descriptors(SPACE).table(arch)[:, -1]
    return MetaD2ADatabase(
        SPACE,
        FeatureSets.from_tasks([pool.split(1)]),
        tasks.flatten(),
        torch.arange(count + 1) * size,
        torch.arange(count),
        arch,
        accuracy.double(),
        torch.zeros(count, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def model() -> PerformanceModel:
    return train_performance_model(make(), epochs=40, batch_size=32)


def correlation(model: PerformanceModel, form: str, database: MetaD2ADatabase) -> float:
    sets, cells = database.sets(database.task), shared_descriptors(SPACE).table(database.arch)
    mean, std = model.predict(form, sets, torch.arange(len(database)), cells)  # type: ignore[arg-type]
    assert bool((std > 0).all())
    return float(torch.corrcoef(torch.stack([mean.double(), database.accuracy]))[0, 1])


@pytest.mark.parametrize("form", ["process", "regression"])
def test_both_forms_learn(model: PerformanceModel, form: str) -> None:
    assert correlation(model, form, make()) > 0.8


def test_training_leaves_the_global_generator_alone_and_is_repeatable() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    one, two = (train_performance_model(make(30), epochs=1) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)
    other = train_performance_model(make(30), epochs=1, seed=1)
    assert not torch.equal(other.network.direct.weight, one.network.direct.weight)


def test_files_give_the_same_model_back(model: PerformanceModel, tmp_path: Path) -> None:
    write_performance_model(tmp_path / "m.safetensors", model, SPACE, CARD)
    again = read_performance_model(tmp_path / "m.safetensors", SPACE)
    database = make()[:10]
    sets, cells = database.sets(database.task), shared_descriptors(SPACE).table(database.arch)
    for form in ("process", "regression"):
        for a, b in zip(
            again.predict(form, sets, torch.arange(10), cells),  # type: ignore[arg-type]
            model.predict(form, sets, torch.arange(10), cells),  # type: ignore[arg-type]
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_bad_files_are_told(model: PerformanceModel, tmp_path: Path, toy_space: SearchSpace) -> None:  # type: ignore[type-arg]
    path = tmp_path / "m.safetensors"
    with pytest.raises(DataFileError, match=r"missing|corrupt"):
        read_performance_model(path, SPACE)
    write_performance_model(path, model, SPACE, CARD)
    with pytest.raises(InvalidArchitectureError, match="was trained for other descriptors of nasbench201"):
        read_performance_model(path, toy_space)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataFileError, match=r"missing|corrupt"):
        read_performance_model(path, SPACE)


def test_features_of_another_network_are_told(model: PerformanceModel) -> None:
    sets = FeatureSets.from_tasks([[torch.randn(2, 9)]])
    cells = shared_descriptors(SPACE).table(torch.tensor([0]))
    with pytest.raises(InvalidFeaturesError, match="was trained on 8 features a class, got 9"):
        model.predict("process", sets, torch.tensor([0]), cells)


def test_the_network_sees_descriptors_of_every_space(toy_space: SearchSpace) -> None:  # type: ignore[type-arg]
    for space in (SPACE, toy_space):
        columns = cell_inputs(shared_descriptors(space))
        assert len(columns) == len(set(columns))
        assert max(columns) < shared_descriptors(space).num_columns


def test_spaces_without_weights_are_told(toy_space: SearchSpace) -> None:  # type: ignore[type-arg]
    with pytest.raises(MissingWeightsError, match="no meta-trained predictor is shipped for the space 'toy'"):
        shipped_performance_model(toy_space)
