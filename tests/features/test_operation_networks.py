"""Random networks over graphs of described operations."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np.features.operation_dag import live_graphs
from pyg_nas_np.features.operation_networks import OperationNetworks, share
from pyg_nas_np.spaces import GraphSpace, Operation, OperationGraph
from pyg_nas_np.spaces.operation_graph import pack


def chain(*nodes):
    return OperationGraph.of(list(nodes), [(i, i + 1) for i in range(len(nodes) - 1)])


def test_nodes_that_compute_the_same_are_one_state():
    first = chain(("input", {}), ("conv", {"width": 8}), ("relu", {}), ("output", {}))
    second = chain(("input", {}), ("conv", {"width": 8}), ("tanh", {}), ("output", {}))
    third = chain(("input", {}), ("conv", {"width": 16}), ("relu", {}), ("output", {}))
    batch = pack([first, second, third])
    shared = share(live_graphs(batch), batch.attributes.nan_to_num(0.0).float())
    # One input, two convolutions, and what follows each.
    assert shared.op.numel() == 1 + 2 + 3 + 3
    assert shared.owner.tolist() == [0, 1, 2]


def test_related_operations_compute_related_things():
    names = ["conv3x3", "conv5x5", "attention"]
    space = GraphSpace(
        [chain(("input", {}), (name, {}), (name, {}), ("output", {})) for name in names],
        [Operation("conv3x3", kind="conv"), Operation("conv5x5", kind="conv")],
    )
    table = OperationNetworks(space, num_functions=256).table()
    assert float((table[0] - table[1]).norm()) < float((table[0] - table[2]).norm())


def test_coordinates_are_scaled_and_follow_the_seed():
    space = GraphSpace([chain(("input", {}), ("conv", {"width": w}), ("output", {})) for w in (8, 16, 32, 64)])
    table = OperationNetworks(space, num_functions=16, rank=3).table()
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(table.size(1)), rtol=0, atol=1e-5)
    torch.testing.assert_close(table.square().sum(dim=1).mean(), torch.tensor(1.0), rtol=0.05, atol=0.3)
    torch.testing.assert_close(OperationNetworks(space, num_functions=16, rank=3).table(), table)
    other = OperationNetworks(space, num_functions=16, rank=3, seed=1)
    assert other.num_coordinates == other.table().size(1)


@pytest.mark.parametrize("option", ["num_functions", "width", "rank"])
def test_numbers_must_be_positive(option):
    with pytest.raises(ValueError, match=f"{option}=0"):
        OperationNetworks(GraphSpace([chain(("a", {}))]), **{option: 0})
