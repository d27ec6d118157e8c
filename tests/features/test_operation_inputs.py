import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.features import OperationInputs
from pyg_nas_np.features.operation_inputs import (
    ATTRIBUTES,
    GRAPH_CHANNELS,
    NODE_CHANNELS,
    OTHER,
    ROLES,
    SIZES,
    role_of,
    shared_operation_inputs,
)
from pyg_nas_np.spaces import (
    GraphSpace,
    NASBench101Space,
    NASBench201Space,
    Operation,
    OperationGraph,
    ParameterSpace,
    SampledGraphSpace,
)
from pyg_nas_np.utils import InvalidArchitectureError

SPACE = NASBench201Space()


def chain(*nodes):
    return OperationGraph.of(list(nodes), [(i, i + 1) for i in range(len(nodes) - 1)])


def cells(convs, names):
    """Chains of convolutions whose operations are called as in `names`."""
    operations = [Operation(name, kind="conv", kernel=kernel) for name, kernel in zip(names, (1, 3), strict=True)]
    return GraphSpace([chain(*((names[i], {}) for i in row)) for row in convs], operations=operations)


def test_shapes_and_types():
    inputs = OperationInputs(SPACE)(torch.tensor([6111, 0, 77]))
    assert inputs.x.shape[1] == NODE_CHANNELS
    assert inputs.sizes.shape == (3, GRAPH_CHANNELS)
    assert inputs.x.dtype == inputs.sizes.dtype == torch.float32
    assert bool((inputs.batch.diff() >= 0).all())
    assert bool((inputs.batch[inputs.edge_index[0]] == inputs.batch[inputs.edge_index[1]]).all())
    assert bool((inputs.x[:, : len(ROLES)].sum(dim=1) == 1).all())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 15624), min_size=1, max_size=8))
def test_rows_do_not_depend_on_the_batch(index):
    inputs = OperationInputs(SPACE)
    together = inputs(torch.tensor(index))
    for row, arch in enumerate(index):
        alone, own = inputs(torch.tensor([arch])), together.select(torch.tensor([row]))
        for a, b in zip(alone, own, strict=True):
            torch.testing.assert_close(a, b)


def test_select_repeats_and_reorders():
    inputs = OperationInputs(SPACE)(torch.tensor([6111, 0, 77]))
    twice = inputs.select(torch.tensor([2, 0, 2]))
    torch.testing.assert_close(twice.sizes, inputs.sizes[[2, 0, 2]])
    first, last = twice.select(torch.tensor([0])), twice.select(torch.tensor([2]))
    for a, b in zip(first, last, strict=True):
        torch.testing.assert_close(a, b)


def test_attributes_are_standardised_over_the_space():
    space = GraphSpace([chain(("conv", {"channels": width}), ("linear", {})) for width in (8, 16, 32, 64)])
    x = OperationInputs(space)(None).x
    column = len(ROLES) + ATTRIBUTES.index("width")
    present = len(ROLES) + len(ATTRIBUTES) + ATTRIBUTES.index("width")
    known = x[:, present] == 1
    assert known.tolist() == [True, False] * 4
    torch.testing.assert_close(x[known, column].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    # Equal steps of a logarithm.
    assert x[known, column].diff().std() < 1e-5
    assert bool((x[~known, column] == 0).all())


def test_sizes_are_read_by_common_names():
    graphs = [chain(*[("conv", {})] * depth) for depth in (1, 2, 4)]
    with_costs = GraphSpace(graphs, costs={"MACs": [80.0, 160.0, 320.0]})
    sizes = OperationInputs(with_costs)(None).sizes
    marks = sizes[:, len(SIZES) :]
    assert marks[:, SIZES.index("multiply-accumulates")].tolist() == [1.0] * 3
    assert marks[:, SIZES.index("parameters")].tolist() == [0.0] * 3
    assert bool((sizes[:, SIZES.index("depth")].diff() > 0).all())
    nameless = OperationInputs(GraphSpace(graphs, costs={"price": [1.0, 2.0, 3.0]}))(None).sizes
    assert nameless[:, len(SIZES)].tolist() == [0.0] * 3


def test_unknown_costs_stand_at_the_mean():
    graphs = [chain(*[("conv", {})] * depth) for depth in (1, 2, 4)]

    class Partly(GraphSpace):
        def costs(self, archs=None):
            found = super().costs(archs)
            return found | {"macs": torch.where(found["macs"] == 2.0, torch.nan, found["macs"])}

    sizes = OperationInputs(Partly(graphs, costs={"macs": [1.0, 2.0, 3.0]}))(None).sizes
    column = SIZES.index("multiply-accumulates")
    assert sizes[1, column] == 0
    assert sizes[:, len(SIZES) + column].tolist() == [1.0, 0.0, 1.0]


def test_kinds_have_roles():
    assert role_of("Conv2d") == "conv"
    assert role_of("SELF_ATTENTION") == "attention"
    assert role_of("something new") == OTHER
    assert set(ROLES) >= {role_of(kind) for kind in ("conv", "ffn", "lstm", "gelu", "pool", "add")}


def test_names_do_not_count_in_fingerprints():
    rows = [(0, 1), (1, 0), (1, 1, 0)]
    first, second = cells(rows, ("small", "large")), cells(rows, ("conv1x1", "conv3x3"))
    ours, theirs = (OperationInputs(space).fingerprints(list(space.enumerate())) for space in (first, second))
    assert ours.tolist() == theirs.tolist()
    assert len(set(ours.tolist())) == 3


def test_fingerprints_tell_graphs_apart():
    prints = OperationInputs(SPACE).fingerprints(torch.arange(15625))
    # 6,466 of the cells are different networks, of which some differ in what is no operation on a way through.
    assert 6000 < prints.unique().numel() < 6466
    equivalent = [SPACE.index(SPACE.from_str(text)) for text in (
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|nor_conv_1x1~0|none~1|+|none~0|none~1|none~2|",
    )]  # fmt: skip
    # Neither has a way from the input to the output.
    assert prints[equivalent].tolist() == [0, 0]


def test_fingerprints_do_not_depend_on_the_order_of_nodes():
    a = OperationGraph.of([("in", {}), ("conv", {}), ("pool", {}), ("out", {})], [(0, 1), (0, 2), (1, 3), (2, 3)])
    space = SampledGraphSpace.around([a])
    b = OperationGraph.of([("in", {}), ("pool", {}), ("conv", {}), ("out", {})], [(0, 1), (0, 2), (1, 3), (2, 3)])
    prints = OperationInputs(space).fingerprints([a, b])
    assert prints[0] == prints[1]


def test_recurrent_edges_are_edges():
    nodes = [("in", {}), ("tanh", {}), ("out", {})]
    looped = OperationGraph.of(nodes, [(0, 1), (1, 2)], [(1, 1)])
    space = SampledGraphSpace.around([looped])
    assert OperationInputs(space)([looped]).edge_index.size(1) == 3


def test_cells_of_large_spaces():
    inputs = OperationInputs(NASBench101Space())(torch.tensor([0, 423623]))
    assert inputs.sizes.size(0) == 2


def test_spaces_without_graphs_are_refused():
    with pytest.raises(InvalidArchitectureError, match="no graphs of operations"):
        OperationInputs(ParameterSpace.from_records([{"a": 1}, {"a": 2}]))


def test_a_space_keeps_its_inputs():
    assert shared_operation_inputs(SPACE) is shared_operation_inputs(SPACE)
    assert shared_operation_inputs(SPACE) is not shared_operation_inputs(NASBench201Space())
