from __future__ import annotations

import pytest
import torch

from pyg_nas_np.metad2a import FeatureSets, PairRegressor
from pyg_nas_np.metad2a.pair_regressor import class_directions


@pytest.fixture
def sets() -> FeatureSets:
    generator = torch.Generator().manual_seed(0)
    datasets = [[torch.randn(n, 6, generator=generator) for n in sizes] for sizes in ((3, 1), (2, 2, 5))]
    return FeatureSets.from_datasets(datasets)


def test_a_pair_depends_on_its_own_task_and_cell_alone(sets: FeatureSets) -> None:
    model = PairRegressor(6, torch.ones(4), channels=8).eval()
    cells, dataset = torch.randn(5, 4), torch.tensor([1, 0, 1, 1, 0])
    together = model(sets.features, sets.class_ptr, sets.dataset_ptr, dataset, cells)
    for i in range(5):
        one = sets[int(dataset[i])]
        first = torch.zeros(1, dtype=torch.long)
        alone = model(one.features, one.class_ptr, one.dataset_ptr, first, cells[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1])


def test_neither_the_scale_nor_the_number_of_images_matters(sets: FeatureSets) -> None:
    model = PairRegressor(6, torch.ones(4), channels=8).eval()
    prototypes = sets.prototypes()
    expected = model.embed(sets.features, sets.class_ptr, sets.dataset_ptr)
    torch.testing.assert_close(
        model.embed(7.0 * prototypes.features, prototypes.class_ptr, prototypes.dataset_ptr), expected
    )


def test_directions_are_of_class_means(sets: FeatureSets) -> None:
    directions = class_directions(sets.features, sets.class_ptr)
    means = sets.prototypes().features
    torch.testing.assert_close(directions, means / means.norm(dim=1, keepdim=True))


def test_gradients_reach_every_weight(sets: FeatureSets) -> None:
    model = PairRegressor(6, torch.ones(4), channels=8)
    model(sets.features, sets.class_ptr, sets.dataset_ptr, torch.tensor([0, 1]), torch.randn(2, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_reset_draws_new_weights() -> None:
    model = PairRegressor(6, torch.ones(4), channels=8)
    before = [model.direct.weight.clone(), model.cell[0].weight.clone(), model.encoder.between.out.weight.clone()]
    model.reset_parameters()
    after = [model.direct.weight, model.cell[0].weight, model.encoder.between.out.weight]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_other_widths_are_told(sets: FeatureSets) -> None:
    model = PairRegressor(5, torch.ones(4), channels=8)
    with pytest.raises(ValueError, match=r"features must have shape \[N, 5\], got \[13, 6\]"):
        model.embed(sets.features, sets.class_ptr, sets.dataset_ptr)
    with pytest.raises(ValueError, match="cells must have 4 descriptors, got 3"):
        model.join(torch.zeros(2, 8), torch.zeros(2, 3))
