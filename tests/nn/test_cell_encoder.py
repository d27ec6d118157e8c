from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np.nn import BidirectionalConv, CellEncoder
from pyg_nas_np.spaces import NASBench101Space, NASBench201Space
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch, to_batch

SPACE = NASBench101Space()
CELLS = SPACE.dense(torch.tensor([0, 1, 16569, 400_000, 423_623]))


def encoder(**kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CellEncoder(5, channels=8, num_layers=3, **kwargs).double()


@pytest.mark.parametrize("num_meta", [0, 2])
def test_both_forms_agree(num_meta):
    net, batch = encoder(num_meta=num_meta), to_batch(CELLS, 5)
    meta = torch.randn(5, 2, dtype=torch.double) if num_meta else None
    sparse = net(batch.x.double(), batch.edge_index, batch.batch, meta)
    assert sparse.shape == (5, net.out_channels) == (5, 24 + num_meta)
    torch.testing.assert_close(net.forward_dense(CELLS, meta), sparse)
    sparse.sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net.forward_dense(CELLS, meta).sum().backward()
    torch.testing.assert_close([p.grad for p in net.parameters()], expected)


@settings(max_examples=25)
@given(index=st.integers(0, 423_623), data=st.data())
def test_the_order_of_the_nodes_does_not_matter(index, data):
    cell, net = SPACE.dense(torch.tensor([index])), encoder()
    size = int(cell.num_nodes)
    order = torch.tensor(data.draw(st.permutations(range(size))))
    shuffled = DenseGraphs(cell.adjacency[:, order][:, :, order], cell.ops[:, order], cell.num_nodes)
    torch.testing.assert_close(net.forward_dense(shuffled), net.forward_dense(cell))
    batch = to_batch(shuffled, 5)
    torch.testing.assert_close(net(batch.x.double(), batch.edge_index), net.forward_dense(cell))


def test_padding_does_not_matter():
    net = encoder()
    for row in range(5):
        alone = to_batch(CELLS.select(torch.tensor([row])), 5)
        trimmed = from_batch(alone.x, alone.edge_index)
        torch.testing.assert_close(net.forward_dense(trimmed)[0], net.forward_dense(CELLS)[row])


def test_direction_and_operations_matter():
    net = encoder()
    path = torch.zeros(3, 4, 4, dtype=torch.bool)
    path[:, [0, 1, 2], [1, 2, 3]] = True
    ops, num_nodes = torch.tensor([[0, 2, 3, 1], [0, 3, 2, 1], [0, 2, 2, 1]]), torch.full((3,), 4)
    codes = net.forward_dense(DenseGraphs(path, ops, num_nodes))
    assert torch.pdist(codes).min() > 1e-3
    backwards = net.forward_dense(DenseGraphs(path.mT, ops, num_nodes))
    assert (codes - backwards).norm(dim=1).min() > 1e-3


def test_readout_holds_output_state_mean_and_sum():
    codes = encoder().forward_dense(CELLS)
    _, mean, total = codes.split(8, dim=1)
    torch.testing.assert_close(mean * CELLS.num_nodes.unsqueeze(1), total)
    lone = DenseGraphs(torch.zeros(1, 1, 1, dtype=torch.bool), torch.tensor([[1]]), torch.tensor([1]))
    output, mean, _ = encoder().forward_dense(lone).split(8, dim=1)
    torch.testing.assert_close(output, mean)


def test_convolution_by_hand():
    conv = BidirectionalConv(2)
    with torch.no_grad():
        conv.linear.weight.zero_()
        conv.linear.bias.zero_()
        conv.linear.weight[0, 2] = conv.linear.weight[1, 5] = 1.0
    h = torch.tensor([[1.0, 3.0], [5.0, 1.0]])
    # The norm gives (-1, 1) and (1, -1); node 1 reads its predecessor, node 0 its successor.
    expected = h + torch.nn.functional.gelu(torch.tensor([[0.0, -1.0], [-1.0, 0.0]]))
    torch.testing.assert_close(conv(h, torch.tensor([[0], [1]])), expected, atol=1e-4, rtol=0)


def test_reset_and_repr():
    net = encoder(num_meta=3)
    before = [p.clone() for p in net.parameters()]
    with torch.random.fork_rng(devices=[]):
        net.reset_parameters()
    changed = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert any(changed)
    assert repr(net) == "CellEncoder(5, channels=8, layers=3, meta=3)"
    assert repr(net.layers[0]) == "BidirectionalConv(8)"


def test_no_cells():
    net = encoder()
    assert net.forward_dense(CELLS.select(torch.tensor([], dtype=torch.long))).shape == (0, 24)


def test_wrong_inputs_are_refused():
    net = encoder(num_meta=2)
    cells = NASBench201Space().batch_encode(torch.arange(2))
    with pytest.raises(ValueError, match=r"x must have shape \[num_nodes, 5\], got \[16, 7\]"):
        net(cells.x, cells.edge_index, cells.batch)
    with pytest.raises(ValueError, match="operation id 6 is none of the encoder's 5"):
        net.forward_dense(NASBench201Space().dense(torch.tensor([0])), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="built for 2 meta-features a cell, got 0"):
        net.forward_dense(CELLS)
    with pytest.raises(ValueError, match="built for 0 meta-features a cell, got 3"):
        encoder().forward_dense(CELLS, torch.zeros(5, 3))
