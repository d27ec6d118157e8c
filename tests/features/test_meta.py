from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from pyg_nas_np.features import MetaFeatures, meta, shared_features
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()
FEATURES = shared_features(SPACE)


def shuffled(data, order):
    position = torch.tensor(order)
    return Data(x=data.x[position.argsort()], edge_index=position[data.edge_index])


def test_columns():
    table = FEATURES.table()
    assert table.shape == (15625, len(FEATURES.feature_names))
    assert table.dtype == torch.float32
    assert table.isfinite().all()
    assert len(set(FEATURES.feature_names)) == len(FEATURES.feature_names)
    columns = [column for group in FEATURES.feature_groups.values() for column in group]
    assert columns == list(range(table.size(1)))
    sizes = {name: len(group) for name, group in FEATURES.feature_groups.items()}
    assert (sizes["paths"], sizes["strings"], sizes["ops"], sizes["cost"]) == (20, 40, 5, 4)


def test_standardisation():
    table = FEATURES.table().double()
    torch.testing.assert_close(table.mean(0), torch.zeros(table.size(1)).double(), atol=1e-5, rtol=0)
    variance = table.var(0, unbiased=False)
    for group, columns in FEATURES.feature_groups.items():
        assert variance[columns].mean() == pytest.approx(1.0, abs=1e-4)
        if group not in ("bigrams", "strings"):
            torch.testing.assert_close(variance[columns], torch.ones(len(columns)).double(), atol=1e-4, rtol=0)
    raw = MetaFeatures(SPACE, standardize=False)
    assert raw.feature_names == FEATURES.feature_names
    assert raw.table([SPACE[6111]])[0, raw.feature_names.index("count_nor_conv_3x3")] == 4


@pytest.mark.parametrize("group", list(FEATURES.feature_groups))
def test_groups_can_be_chosen(group):
    chosen = MetaFeatures(SPACE, groups=[group])
    torch.testing.assert_close(
        chosen.table(torch.arange(9)), FEATURES.table(torch.arange(9))[:, FEATURES.feature_groups[group]]
    )


@given(st.integers(0, 15624), st.permutations(range(8)))
@settings(max_examples=50)
def test_a_single_graph_equals_its_row_whatever_its_node_order(index, order):
    data = FEATURES(shuffled(SPACE.encode(SPACE[index]), order))
    assert data.meta.shape == (1, len(FEATURES.feature_names))
    torch.testing.assert_close(data.meta[0], FEATURES.table()[index])


def test_forms_of_architectures_agree(monkeypatch):
    fresh = MetaFeatures(SPACE)
    index = torch.tensor([5, 6111, 3, 5])
    rows = fresh.table(index)
    assert "_whole" not in fresh.__dict__
    torch.testing.assert_close(rows, fresh.table([SPACE[i] for i in index.tolist()]))
    torch.testing.assert_close(rows, fresh.table()[index])
    monkeypatch.setattr(meta, "CHUNK", 3)
    torch.testing.assert_close(rows, fresh.table([SPACE[i] for i in index.tolist()]))
    assert torch.equal(fresh.table(), fresh.table(None))
    assert fresh.table([]).shape == (0, rows.size(1))


def test_large_spaces_are_standardised_by_a_sample(monkeypatch):
    monkeypatch.setattr(meta, "REFERENCE", 4096)
    sampled = MetaFeatures(SPACE)
    assert sampled.feature_names == FEATURES.feature_names
    torch.testing.assert_close(sampled.table(torch.arange(50)), sampled.table()[:50])
    torch.testing.assert_close(sampled.table().mean(0), torch.zeros(len(sampled.feature_names)), atol=0.1, rtol=0)


def test_third_party_space(toy_space):
    features = MetaFeatures(toy_space)
    table = features.table()
    assert table.shape == (128, len(features.feature_names))
    assert "paths" not in features.feature_groups
    assert "count_same" in features.feature_names
    for index in (0, 17, 127):
        raw = toy_space.encode(toy_space[index])
        torch.testing.assert_close(features(shuffled(raw, [2, 0, 3, 1])).meta[0], table[index])


class Renumbered(NASBench201Space):
    """NAS-Bench-201 whose graphs list their nodes backwards."""

    shared_paths = {}  # noqa: RUF012

    def dense(self, archs=None):
        adjacency, ops, num_nodes = super().dense(archs)
        return DenseGraphs(adjacency.flip(1, 2), ops.flip(1), num_nodes)


def test_features_do_not_depend_on_the_numbering_of_the_space():
    groups = ("ops", "live", "shape", "bigrams", "cost", "spectrum")
    first, second = MetaFeatures(SPACE, groups=groups), MetaFeatures(Renumbered(), groups=groups)
    assert first.feature_names == second.feature_names
    index = torch.arange(300)
    torch.testing.assert_close(first.table(index), second.table(index), atol=1e-5, rtol=1e-5)


def test_errors(toy_space):
    with pytest.raises(ValueError, match="unknown feature group 'colour'"):
        MetaFeatures(SPACE, groups=["ops", "colour"])
    with pytest.raises(ValueError, match="constant"):
        MetaFeatures(toy_space, groups=["paths"]).table()
    with pytest.raises(IndexError, match="15625"):
        FEATURES.table(torch.tensor([15625]))
    with pytest.raises(InvalidArchitectureError):
        FEATURES(Data(x=torch.eye(7)[[0, 2, 1]], edge_index=torch.tensor([[0, 1], [1, 2]])))
    larger = type("Larger", (Renumbered,), {"dense": lambda self, archs=None: grown(SPACE.dense(archs), archs)})
    with pytest.raises(InvalidArchitectureError, match="9 nodes"):
        MetaFeatures(larger()).table([SPACE[0]])


def grown(graphs, archs):
    """Adds a node to graphs given as a list of architectures only."""
    if not isinstance(archs, list):
        return graphs
    adjacency = torch.nn.functional.pad(graphs.adjacency, (0, 1, 0, 1))
    return DenseGraphs(adjacency, torch.nn.functional.pad(graphs.ops, (0, 1), value=2), graphs.num_nodes + 1)


def test_repr_tells_configurations_apart():
    assert repr(FEATURES) == repr(MetaFeatures(NASBench201Space()))
    assert repr(FEATURES) != repr(MetaFeatures(SPACE, standardize=False))
    assert repr(FEATURES) != repr(MetaFeatures(NASBench201Space("cifar100")))


def test_a_space_object_has_one_features_object():
    space = NASBench201Space()
    assert shared_features(space) is shared_features(space)
    assert shared_features(space).space is space


def test_the_latest_part_of_a_large_space_is_kept(monkeypatch):
    space = NASBench201Space()
    features, index = MetaFeatures(space, groups=("ops",)), torch.arange(5000)
    expected = features.table(index)
    monkeypatch.setattr(MetaFeatures, "_finish", None)
    again = features.table(index.clone())
    assert torch.equal(again, expected)
    again.zero_()
    assert torch.equal(features.table(index), expected)
    with pytest.raises(TypeError):
        features.table(index.flip(0))
