from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.predictor_training import (
    PerformanceModel,
    cell_inputs,
    train_performance_model,
)
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import InvalidFeaturesError
from tests.metad2a.conftest import SPACE, make_database


@pytest.fixture(scope="module")
def model() -> PerformanceModel:
    return train_performance_model(make_database(), epochs=40, batch_size=32)


def correlation(model: PerformanceModel, estimator: str, database: MetaD2ADatabase) -> float:
    sets, cells = database.sets(database.dataset), shared_descriptors(SPACE).table(database.arch)
    mean, std = model.predict(estimator, sets, torch.arange(len(database)), cells)  # type: ignore[arg-type]
    assert bool((std > 0).all())
    return float(torch.corrcoef(torch.stack([mean.double(), database.accuracy]))[0, 1])


@pytest.mark.parametrize("estimator", ["gp", "network"])
def test_both_estimators_learn(model: PerformanceModel, estimator: str) -> None:
    assert correlation(model, estimator, make_database()) > 0.8


def test_training_leaves_the_global_generator_alone_and_is_repeatable() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    one, two = (train_performance_model(make_database(30), epochs=1) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)
    other = train_performance_model(make_database(30), epochs=1, seed=1)
    assert not torch.equal(other.network.direct.weight, one.network.direct.weight)


def test_features_of_another_network_are_told(model: PerformanceModel) -> None:
    sets = FeatureSets.from_datasets([[torch.randn(2, 9)]])
    cells = shared_descriptors(SPACE).table(torch.tensor([0]))
    with pytest.raises(InvalidFeaturesError, match="was trained on 8 features a class, got 9"):
        model.predict("gp", sets, torch.tensor([0]), cells)


def test_the_network_sees_descriptors_of_every_space(toy_space: CellSpace) -> None:  # type: ignore[type-arg]
    for space in (SPACE, toy_space):
        columns = cell_inputs(shared_descriptors(space))
        assert len(columns) == len(set(columns))
        assert max(columns) < shared_descriptors(space).num_columns


def test_defaults_of_the_process_do_not_matter(other_defaults: Callable[[], AbstractContextManager[None]]) -> None:
    data = make_database(30)
    cells, of = shared_descriptors(SPACE).table(data.arch), torch.arange(30)
    expected = train_performance_model(data, epochs=1)
    with other_defaults():
        found = train_performance_model(data, epochs=1)
        mean, std = found.predict("both", data.sets(data.dataset), of, cells)
    wanted = expected.predict("both", data.sets(data.dataset), of, cells)
    torch.testing.assert_close(mean, wanted[0], atol=0.05, rtol=1e-3)
    torch.testing.assert_close(std, wanted[1], atol=0.05, rtol=1e-2)
