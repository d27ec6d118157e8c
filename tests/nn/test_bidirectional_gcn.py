from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCNConv

from pyg_nas_np.nn import BidirectionalGCN
from pyg_nas_np.spaces import NASBench101Space
from pyg_nas_np.spaces.dense import DenseGraphs

SPACE = NASBench101Space()


def network(**kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BidirectionalGCN(5, channels=6, hidden=4, **kwargs).double().eval()


@settings(max_examples=25)
@given(index=st.integers(0, 423_623), data=st.data())
def test_the_order_of_the_nodes_does_not_matter(index, data):
    cell, net = SPACE.dense(torch.tensor([index])), network()
    order = torch.tensor(data.draw(st.permutations(range(int(cell.num_nodes)))))
    shuffled = DenseGraphs(cell.adjacency[:, order][:, :, order], cell.ops[:, order], cell.num_nodes)
    torch.testing.assert_close(net(shuffled), net(cell))


def test_padding_does_not_matter():
    """The two-node cell alone, and padded to seven nodes."""
    small = int((SPACE.dense().num_nodes == 2).nonzero()[0])
    cell, net = SPACE.dense(torch.tensor([small])), network()
    trimmed = DenseGraphs(cell.adjacency[:, :2, :2], cell.ops[:, :2], cell.num_nodes)
    torch.testing.assert_close(net(trimmed), net(cell))


def test_one_layer_is_the_formula():
    cell, net = SPACE.dense(torch.tensor([16569])), network(num_layers=1)
    x = torch.eye(5, dtype=torch.double)[cell.ops[0].clamp_min(0)]
    edges = cell.adjacency[0].double() + torch.eye(7, dtype=torch.double)
    total = 0
    for matrix, linear in ((edges.t(), net.along[0]), (edges, net.against[0])):
        conv = GCNConv(5, 6, normalize=False, add_self_loops=False).double()
        with torch.no_grad():
            conv.lin.weight.copy_(linear.weight)
            conv.bias.zero_()
        weight = matrix / matrix.sum(1, keepdim=True)
        target, source = weight.nonzero(as_tuple=True)
        total = total + 0.5 * torch.relu(conv(x, torch.stack([source, target]), weight[target, source]) + linear.bias)
    mean = total[: int(cell.num_nodes)].mean(0)
    expected = net.head(torch.relu(net.hidden(mean)))
    torch.testing.assert_close(net(cell), expected)


def test_reset_and_repr():
    net = network()
    before = net.head.weight.clone()
    with torch.random.fork_rng(devices=[]):
        net.reset_parameters()
    assert not torch.equal(before, net.head.weight)
    assert repr(net) == "BidirectionalGCN(5, channels=6, layers=3)"
