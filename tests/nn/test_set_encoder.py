from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.metad2a import FeatureSets
from pyg_nas_np.nn import DatasetEncoder, SetEncoder


def encode(encoder: DatasetEncoder, sets: FeatureSets) -> torch.Tensor:
    return encoder(sets.features, sets.class_ptr, sets.dataset_ptr)  # type: ignore[no-any-return]


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_neither_the_order_of_images_nor_that_of_classes_matters(datasets: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    given_ = [[torch.randn(n, 6, generator=generator) for n in dataset] for dataset in datasets]
    mixed = []
    for dataset in given_:
        order = torch.randperm(len(dataset), generator=generator).tolist()
        mixed.append([dataset[i][torch.randperm(dataset[i].size(0), generator=generator)] for i in order])
    encoder = DatasetEncoder(6, hidden_channels=8)
    encoded = encode(encoder, FeatureSets.from_datasets(given_))
    assert encoded.shape == (len(datasets), 8)
    torch.testing.assert_close(encode(encoder, FeatureSets.from_datasets(mixed)), encoded)


def test_data_sets_do_not_see_each_other() -> None:
    sets = FeatureSets.from_datasets([[torch.randn(3, 6), torch.randn(1, 6)], [torch.randn(2, 6)]])
    encoder = DatasetEncoder(6, hidden_channels=8)
    torch.testing.assert_close(encode(encoder, sets)[1:], encode(encoder, sets[1]))


def test_the_size_is_that_of_the_paper() -> None:
    # Two set encoders 512 -> 56 and 56 -> 56: three attention blocks of four linear layers, a seed, a linear layer.
    def linear(i: int, o: int) -> int:
        return i * o + o

    def encoder(i: int, o: int) -> int:
        return 3 * linear(i, o) + 9 * linear(o, o) + o + linear(o, o)

    count = sum(parameter.numel() for parameter in DatasetEncoder(512, 56).parameters())
    assert count == encoder(512, 56) + encoder(56, 56)


def test_gradients_reach_every_weight() -> None:
    sets = FeatureSets.from_datasets([[torch.randn(3, 6), torch.randn(1, 6)], [torch.randn(2, 6)]])
    encoder = DatasetEncoder(6, hidden_channels=8)
    encode(encoder, sets).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_features_of_another_width_are_named() -> None:
    with pytest.raises(ValueError, match=r"features must have shape \[N, 6\], got \[2, 5\]"):
        DatasetEncoder(6)(torch.zeros(2, 5), torch.tensor([0, 2]), torch.tensor([0, 1]))


def test_reset_draws_new_weights() -> None:
    encoder = SetEncoder(4, 4)
    before = encoder.out.weight.clone()
    encoder.reset_parameters()
    assert not torch.equal(before, encoder.out.weight)
