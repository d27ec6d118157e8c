from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_nas_np.datasets import ArchData, ArchitectureDataset
from pyg_nas_np.features import MetaFeatures, shared_features
from pyg_nas_np.predictors.inputs import arch_indices, count_graphs, labels_of, live_cells, meta_features, space_of
from pyg_nas_np.spaces import NASBench201Space
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError


class ToyData(ArchitectureDataset):
    default_metrics = ("accuracy",)
    label_help = "There are none."
    space = None

    def sources(self):
        return []

    def published(self):
        return []


@pytest.fixture(scope="module")
def dataset(toy_space, tmp_path_factory):
    kind = type("ToyData", (ToyData,), {"space": toy_space})
    return kind(str(tmp_path_factory.mktemp("toy")), source="graphs-only")


INDEX = torch.tensor([100, 3, 64, 3])


def forms(dataset, space):
    """The same four architectures in every accepted form."""
    graphs = [dataset[i] for i in INDEX.tolist()]
    return {
        "data set": dataset[INDEX],
        "list": graphs,
        "batch": Batch.from_data_list(graphs),
        "collated": space.batch_encode(INDEX),
        "plain": [space.encode(space[i]) for i in INDEX.tolist()],
        "mixed": [*graphs[:2], *(space.encode(space[i]) for i in INDEX.tolist()[2:])],
    }


@pytest.mark.parametrize("form", ["data set", "list", "batch", "collated", "plain", "mixed"])
def test_every_form_gives_the_same_features(dataset, toy_space, form):
    graphs = forms(dataset, toy_space)[form]
    assert count_graphs(graphs) == 4
    features = shared_features(toy_space)
    torch.testing.assert_close(meta_features(graphs, features), features.table()[INDEX])
    assert torch.equal(arch_indices(graphs, toy_space), INDEX)


def test_live_cells_keep_their_ends(toy_space):
    archs = [("zero", "conv", 1), ("conv", "conv", 0)]
    index = torch.tensor([toy_space.index(arch) for arch in archs])
    live = live_cells(toy_space, index)
    # Input → conv → output is what is left of both: one conv has no way in, or follows a zero.
    assert live.num_nodes.tolist() == [3, 3]
    assert live.ops.tolist() == [[0, -1, 2, 1], [0, 2, -1, 1]]
    dead = live_cells(toy_space, torch.tensor([toy_space.index(("zero", "zero", 3))]))
    assert (dead.ops.tolist(), dead.num_nodes.tolist()) == ([[0, -1, -1, 1]], [2])
    assert not dead.adjacency.any()


def test_single_graph_and_none(dataset, toy_space):
    features = shared_features(toy_space)
    torch.testing.assert_close(meta_features(dataset[7], features), features.table()[[7]])
    assert meta_features([], features).shape == (0, len(features.feature_names))
    assert (count_graphs(dataset[7]), count_graphs([])) == (1, 0)


def test_batch_of_plain_data_undoes_the_shift_of_indices(toy_space):
    """PyG shifts every attribute with "index" in its name when it batches plain graphs."""
    graphs = []
    for i in INDEX.tolist():
        graphs.append(toy_space.encode(toy_space[i]))
        graphs[-1].arch_index = torch.tensor([i])
    features = shared_features(toy_space)
    torch.testing.assert_close(meta_features(Batch.from_data_list(graphs), features), features.table()[INDEX])


def test_edited_graphs_are_not_looked_up_by_their_old_index(dataset, toy_space):
    graph = dataset[100].clone()
    graph.x[1] = torch.eye(6)[3]
    other = toy_space.index(toy_space.decode(graph))
    assert other != 100
    features = shared_features(toy_space)
    torch.testing.assert_close(meta_features([dataset[5], graph], features), features.table()[[5, other]])


def test_features_made_by_pre_transform_are_used(toy_space, tmp_path, monkeypatch):
    kind = type("ToyData", (ToyData,), {"space": toy_space})
    dataset = kind(str(tmp_path), source="graphs-only", pre_transform=MetaFeatures(toy_space))
    features = MetaFeatures(toy_space)
    expected = features.table()[INDEX]
    monkeypatch.setattr(MetaFeatures, "table", None)
    torch.testing.assert_close(meta_features(dataset[INDEX], features), expected)


def test_raw_features_made_by_pre_transform_are_not_mistaken(toy_space, tmp_path):
    kind = type("ToyData", (ToyData,), {"space": toy_space})
    dataset = kind(str(tmp_path), source="graphs-only", pre_transform=MetaFeatures(toy_space, standardize=False))
    features = shared_features(toy_space)
    torch.testing.assert_close(meta_features(dataset[INDEX], features), features.table()[INDEX])


def test_collated_batch_is_looked_up_without_decoding(toy_space, monkeypatch):
    batch = toy_space.batch_encode(INDEX)
    assert [int(graph.arch_index) for graph in batch.to_data_list()] == INDEX.tolist()
    features = shared_features(toy_space)
    expected = features.table()[INDEX]
    monkeypatch.setattr(type(toy_space), "decode", None)
    torch.testing.assert_close(meta_features(batch, features), expected)


def test_edited_graph_of_a_batch_is_decoded(toy_space):
    batch, features = toy_space.batch_encode(INDEX), shared_features(toy_space)
    batch.x[1] = torch.eye(6)[3]
    edited = toy_space.index(toy_space.decode(batch[0]))
    assert edited != INDEX[0]
    torch.testing.assert_close(meta_features(batch, features), features.table()[[edited, *INDEX[1:].tolist()]])
    batch.arch_index[2] = 1000
    torch.testing.assert_close(meta_features(batch, features), features.table()[[edited, *INDEX[1:].tolist()]])


def test_unknown_operations_are_refused(dataset, toy_space):
    graph = dataset[0].clone()
    graph.x = torch.eye(9)[[0, 8, 3, 1]]
    with pytest.raises(InvalidArchitectureError):
        meta_features([dataset[1], graph], shared_features(toy_space))
    with pytest.raises(InvalidArchitectureError, match="node view"):
        meta_features([Data(x=torch.eye(9)[:8], edge_index=torch.zeros(2, 0).long())], shared_features(SPACE))
    graph.x = torch.full((4, 6), 0.5)
    with pytest.raises(InvalidArchitectureError, match="one-hot"):
        meta_features([graph], shared_features(toy_space))


SPACE = NASBench201Space()


def test_space_of(dataset, toy_space):
    assert space_of(dataset, None) is toy_space
    assert space_of([dataset[0]], SPACE) is SPACE
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        space_of([dataset[0]], None)
    with pytest.raises(InvalidArchitectureError, match="nasbench201, the data set holds toy"):
        space_of(dataset, SPACE)


def test_labels_of(dataset):
    assert labels_of(dataset[:3]).isnan().all()
    graphs = [
        ArchData(x=torch.eye(6)[[0, 1]], edge_index=torch.tensor([[0], [1]]), y=torch.tensor([float(i)]))
        for i in range(3)
    ]
    assert labels_of(graphs).tolist() == [0.0, 1.0, 2.0]
    assert labels_of(Batch.from_data_list(graphs)).tolist() == [0.0, 1.0, 2.0]
    assert labels_of(graphs[1]).tolist() == [1.0]
    assert labels_of([]).numel() == 0
    with pytest.raises(InvalidLabelsError, match="graph 0 carries no label"):
        labels_of([Data(x=torch.eye(6)), *graphs])
    graphs[2].y = torch.ones(2)
    with pytest.raises(InvalidLabelsError, match="3 graphs carry 4 values"):
        labels_of(graphs)
