from __future__ import annotations

import gc
import pickle
import weakref

import pytest
import torch

from pyg_nas_np.features import Descriptors, MetaFeatures, RandomNetworks, shared_descriptors, shared_features
from pyg_nas_np.spaces import NASBench201Space, NASBenchGraphSpace


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


def test_what_is_handed_out_may_be_written_into(toy_space):
    descriptors = make(toy_space)
    for source in (descriptors.features, descriptors.networks, descriptors):
        for rows in (None, torch.arange(128), torch.arange(3), [toy_space[5]]):
            before = source.table(rows).clone()
            source.table(rows).fill_(7.0)
            torch.testing.assert_close(source.table(rows), before, rtol=0, atol=0)
    for mapping in (descriptors.groups, descriptors.features.feature_groups):
        next(iter(mapping.values())).append(99)
        mapping.clear()
    descriptors.features.feature_names.clear()
    assert descriptors.groups == make(toy_space).groups
    assert descriptors.features.feature_names == make(toy_space).features.feature_names


def test_a_discarded_space_takes_its_tables_along(toy_space):
    gone = []
    for _ in range(3):
        space = type(toy_space)()
        descriptors = shared_descriptors(space)
        descriptors.table()
        parts = (space, descriptors, descriptors.features, descriptors.networks._basis.axes)
        gone += [weakref.ref(part) for part in parts]
    del space, descriptors, parts
    gc.collect()
    assert [part() for part in gone] == [None] * 12


def test_a_pickled_space_carries_no_tables():
    space = NASBench201Space()
    shared_features(space).table()
    assert len(pickle.dumps(space)) < 1000
    assert pickle.loads(pickle.dumps(space))[7] == space[7]


def test_one_table_a_space(toy_space):
    descriptors = shared_descriptors(toy_space)
    assert descriptors is shared_descriptors(toy_space)
    assert descriptors.space is toy_space


def test_prior_trend_is_the_trend_or_the_mean_of_sizes_and_depth():
    space = NASBench201Space()
    descriptors = shared_descriptors(space)
    table = descriptors.table(torch.arange(50))
    torch.testing.assert_close(descriptors.prior_trend(table), table[:, descriptors.groups["trend"][0]])
    space = NASBenchGraphSpace()
    descriptors = shared_descriptors(space)
    table = descriptors.table(torch.arange(50))
    names = descriptors.features.feature_names
    sizes = [names.index(name) for name in ("log_params", "log_flops", "depth")]
    torch.testing.assert_close(descriptors.prior_trend(table), table[:, sizes].mean(dim=1))
