from __future__ import annotations

import pytest
import torch

from pyg_nas_np.features import Descriptors, MetaFeatures, RandomNetworks, shared_descriptors


def make(space) -> Descriptors:
    return Descriptors(MetaFeatures(space), RandomNetworks(space, num_functions=32, rank=8))


@pytest.fixture(scope="module")
def averaging_space(toy_space):
    """The toy space, its pooling known to average."""
    return type("Averaging", (type(toy_space),), {"averaging_ops": ("pool",)})()


def test_groups_partition_the_columns(toy_space, averaging_space):
    for space, last in ((toy_space, "networks"), (averaging_space, "trend")):
        descriptors = make(space)
        columns = [column for part in descriptors.groups.values() for column in part]
        assert sorted(columns) == list(range(descriptors.num_columns))
        assert list(descriptors.groups)[-1] == last
        assert descriptors.table().shape == (128, descriptors.num_columns)


def test_columns_are_those_of_the_parts(averaging_space):
    descriptors = make(averaging_space)
    rows = torch.tensor([7, 0, 99])
    table, groups = descriptors.table(rows), descriptors.groups
    meta = descriptors.features.table(rows)
    torch.testing.assert_close(table[:, : meta.size(1)], meta)
    assert {name: groups[name] for name in descriptors.features.feature_groups} == descriptors.features.feature_groups
    torch.testing.assert_close(table[:, groups["networks"]], descriptors.networks.table(rows))
    torch.testing.assert_close(descriptors.table()[rows], table, rtol=1e-4, atol=1e-5)


def test_trend_rises_with_computation_and_falls_with_pooling(averaging_space):
    descriptors = make(averaging_space)
    trend = descriptors.table()[:, descriptors.groups["trend"][0]]
    value = {
        ops: float(trend[averaging_space.index((*ops, 7))])
        for ops in (("conv", "conv"), ("conv", "pool"), ("pool", "pool"))
    }
    assert value["conv", "conv"] > value["conv", "pool"] > value["pool", "pool"]
    assert float(trend.abs().max()) <= 2.5
    assert float(trend.std()) > 0.5


def test_a_space_without_averaging_operations_has_no_trend(toy_space):
    assert "trend" not in make(toy_space).groups


def test_parts_must_fit(toy_space, averaging_space):
    networks = RandomNetworks(toy_space, num_functions=32, rank=8)
    with pytest.raises(ValueError, match="take one space"):
        Descriptors(MetaFeatures(averaging_space), networks)
    with pytest.raises(ValueError, match="standardize=True"):
        Descriptors(MetaFeatures(toy_space, standardize=False), networks)


def test_one_table_a_space(toy_space):
    descriptors = shared_descriptors(toy_space)
    assert descriptors is shared_descriptors(toy_space)
    assert descriptors.space is toy_space
