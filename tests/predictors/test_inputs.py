from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from pyg_nas_np.datasets import ArchData, ArchitectureDataset
from pyg_nas_np.features import MetaFeatures, shared_features
from pyg_nas_np.predictors.inputs import Architectures, as_architectures, labels_of, live_cells
from pyg_nas_np.spaces import InferredSpace, Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError, InvalidSpaceError


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


def index_of(graphs, space):
    return as_architectures(graphs, space).index


def features_of(graphs, space):
    return shared_features(space).table(as_architectures(graphs, space).given)


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
        "indices": INDEX,
        "array": INDEX.numpy().astype(">i4")[::-1][::-1],
        "values": [space[i] for i in INDEX.tolist()],
        "strings": [space.to_str(space[i]) for i in INDEX.tolist()],
    }


FORMS = ["data set", "list", "batch", "collated", "plain", "mixed", "indices", "array", "values", "strings"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_features(dataset, toy_space, form):
    graphs = forms(dataset, toy_space)[form]
    archs = as_architectures(graphs, toy_space)
    assert len(archs) == 4
    assert torch.equal(archs.index, INDEX)
    assert list(archs) == [archs[i] for i in range(4)] == [toy_space[i] for i in INDEX.tolist()]
    torch.testing.assert_close(features_of(graphs, toy_space), shared_features(toy_space).table()[INDEX])
    assert torch.equal(archs[torch.tensor([True, False, False, True])].index, INDEX[[0, 3]])
    assert torch.equal(archs[1:3].index, INDEX[1:3])
    assert as_architectures(archs) is archs


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
    torch.testing.assert_close(features_of(dataset[7], toy_space), features.table()[[7]])
    assert features_of([], toy_space).shape == (0, len(features.feature_names))
    assert (len(as_architectures(dataset[7], toy_space)), len(as_architectures([], toy_space))) == (1, 0)


def test_batch_of_plain_data_undoes_the_shift_of_indices(toy_space):
    """PyG shifts every attribute with "index" in its name when it batches plain graphs."""
    graphs = []
    for i in INDEX.tolist():
        graphs.append(toy_space.encode(toy_space[i]))
        graphs[-1].arch_index = torch.tensor([i])
    features = shared_features(toy_space)
    torch.testing.assert_close(features_of(Batch.from_data_list(graphs), toy_space), features.table()[INDEX])


def test_edited_graphs_are_not_looked_up_by_their_old_index(dataset, toy_space):
    graph = dataset[100].clone()
    graph.x[1] = torch.eye(6)[3]
    other = toy_space.index(toy_space.decode(graph))
    assert other != 100
    features = shared_features(toy_space)
    torch.testing.assert_close(features_of([dataset[5], graph], toy_space), features.table()[[5, other]])


def test_raw_features_made_by_pre_transform_are_not_mistaken(toy_space, tmp_path):
    kind = type("ToyData", (ToyData,), {"space": toy_space})
    dataset = kind(str(tmp_path), source="graphs-only", pre_transform=MetaFeatures(toy_space, standardize=False))
    features = shared_features(toy_space)
    torch.testing.assert_close(features_of(dataset[INDEX], toy_space), features.table()[INDEX])


def test_collated_batch_is_looked_up_without_decoding(toy_space, monkeypatch):
    batch = toy_space.batch_encode(INDEX)
    assert [int(graph.arch_index) for graph in batch.to_data_list()] == INDEX.tolist()
    features = shared_features(toy_space)
    expected = features.table()[INDEX]
    monkeypatch.setattr(type(toy_space), "decode", None)
    torch.testing.assert_close(features_of(batch, toy_space), expected)


def test_edited_graph_of_a_batch_is_decoded(toy_space):
    batch, features = toy_space.batch_encode(INDEX), shared_features(toy_space)
    batch.x[1] = torch.eye(6)[3]
    edited = toy_space.index(toy_space.decode(batch[0]))
    assert edited != INDEX[0]
    torch.testing.assert_close(features_of(batch, toy_space), features.table()[[edited, *INDEX[1:].tolist()]])
    batch.arch_index[2] = 1000
    torch.testing.assert_close(features_of(batch, toy_space), features.table()[[edited, *INDEX[1:].tolist()]])


def test_unknown_operations_are_refused(dataset, toy_space):
    graph = dataset[0].clone()
    graph.x = torch.eye(9)[[0, 8, 3, 1]]
    with pytest.raises(InvalidArchitectureError):
        features_of([dataset[1], graph], toy_space)
    with pytest.raises(InvalidArchitectureError, match="node view"):
        features_of([Data(x=torch.eye(9)[:8], edge_index=torch.zeros(2, 0).long())], SPACE)
    graph.x = torch.full((4, 6), 0.5)
    with pytest.raises(InvalidArchitectureError, match="one-hot"):
        features_of([graph], toy_space)


SPACE = NASBench201Space()


def test_the_space(dataset, toy_space):
    assert as_architectures(dataset).space is toy_space
    assert as_architectures([SPACE.encode(SPACE[0])], SPACE).space is SPACE
    with pytest.raises(InvalidArchitectureError, match="pass space="):
        as_architectures([SPACE.encode(SPACE[0])])
    with pytest.raises(InvalidArchitectureError, match="nasbench201, the architectures are of toy"):
        as_architectures(dataset, SPACE)
    with pytest.raises(InvalidArchitectureError, match="nasbench201, the architectures are of toy"):
        as_architectures(Architectures(toy_space, INDEX), SPACE)


def test_what_is_not_of_the_space_is_refused():
    with pytest.raises(IndexError, match="15625"):
        as_architectures(torch.tensor([3, 15625]), SPACE)
    with pytest.raises(InvalidArchitectureError):
        as_architectures(["|nor_conv_9x9~0|"], SPACE)
    with pytest.raises(InvalidArchitectureError):
        as_architectures([SPACE[0], 3.5], SPACE)
    with pytest.raises(TypeError, match="float"):
        as_architectures(torch.tensor([0.5]), SPACE)


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
    with pytest.raises(InvalidLabelsError, match="architecture 0 carries no label"):
        labels_of([Data(x=torch.eye(6)), *graphs])
    graphs[2].y = torch.ones(2)
    with pytest.raises(InvalidLabelsError, match="3 graphs carry 4 values"):
        labels_of(graphs)


ROWS = [{"depth": 2, "act": "relu"}, {"depth": 4, "act": "gelu"}, {"depth": 8, "act": "relu"}]


def test_records_in_every_form():
    pandas = pytest.importorskip("pandas")
    space = ParameterSpace(depth=Integer(1, 9), act=["relu", "gelu"])
    wanted = [space.check(row) for row in ROWS]
    frame = pandas.DataFrame(ROWS)
    for x in (ROWS, frame, frame.to_dict("list"), frame.iloc[::1], wanted, [space.to_str(arch) for arch in wanted]):
        archs = as_architectures(x, space)
        assert archs.space is space
        assert list(archs) == wanted
    assert list(as_architectures(frame.iloc[[2]], space)) == wanted[2:]


def test_the_space_of_records_is_inferred_and_kept():
    archs = as_architectures(ROWS)
    assert isinstance(archs.space, InferredSpace)
    again = as_architectures([{"depth": 99, "act": "tanh"}], archs.space)
    assert again[0] == {"depth": 99, "act": "tanh"}
    with pytest.raises(InvalidArchitectureError, match=r"row 1: .*'act' is missing"):
        as_architectures([ROWS[0], {"depth": 3}], archs.space)
    with pytest.raises(InvalidArchitectureError, match=r"row 0: .*'width' is not one of the parameters depth, act"):
        as_architectures([{**ROWS[0], "width": 3}], archs.space)
    with pytest.raises(InvalidSpaceError, match="no column varies"):
        as_architectures(ROWS[:1])
    with pytest.raises(InvalidArchitectureError, match="has no records of parameters"):
        as_architectures(ROWS, SPACE)
    with pytest.raises(InvalidLabelsError, match="pass y="):
        labels_of(ROWS)


def test_graphs_and_modules_need_no_space():
    def net(width: int) -> nn.Module:
        module = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        module.example_input_array = torch.empty(1, 4)
        return module

    archs = as_architectures([net(8), net(16)])
    assert archs.space.costs(archs.given)["num_parameters"].tolist() == [40.0, 80.0]
    # Other modules and graphs than those that the space was made from.
    assert len(as_architectures([net(64)], archs.space)) == 1
    graph = nx.DiGraph([("a", "b")])
    for node, op in (("a", "linear"), ("b", "tanh")):
        graph.nodes[node]["op"] = op
    data = Data(op=["tanh", "linear"], edge_index=torch.tensor([[1], [0]]), num_nodes=2)
    assert (
        list(as_architectures([graph], archs.space)) == list(as_architectures([data])) == list(as_architectures(data))
    )
    with pytest.raises(InvalidArchitectureError, match=r"architecture 1: ReLU does not tell .* example_input_array"):
        as_architectures([net(8), nn.ReLU()])


def test_what_is_no_collection_of_architectures(toy_space):
    for x in (None, 5, 1.5, object()):
        with pytest.raises(InvalidArchitectureError, match=f"got {type(x).__name__}"):
            as_architectures(x, toy_space)
    with pytest.raises(TypeError, match="complex64"):
        as_architectures(torch.tensor([1j]), toy_space)
