import pytest
import torch
from torch import nn

from pyg_nas_np.features import OperationInputs
from pyg_nas_np.nn import OperationEncoder
from pyg_nas_np.nn.off_grid import OffGridSetConv
from pyg_nas_np.spaces import NASBench201Space

INPUTS = OperationInputs(NASBench201Space())(torch.arange(0, 15625, 700))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return OperationEncoder(channels=16, num_layers=2, out_channels=8).double()


def as_double(inputs):
    return inputs._replace(x=inputs.x.double(), sizes=inputs.sizes.double())


def test_a_batch_equals_single_graphs(encoder):
    inputs = as_double(INPUTS)
    together = encoder(*inputs)
    for row in range(5):
        alone = encoder(*inputs.select(torch.tensor([row])))
        torch.testing.assert_close(alone.embedding[0], together.embedding[row])
        torch.testing.assert_close(alone.score[0], together.score[row])


def test_the_order_of_nodes_does_not_matter(encoder):
    inputs = as_double(INPUTS.select(torch.tensor([9])))
    order = torch.randperm(inputs.x.size(0), generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    permuted = inputs._replace(x=inputs.x[order], edge_index=place[inputs.edge_index])
    torch.testing.assert_close(encoder(*permuted).score, encoder(*inputs).score)


def test_edges_have_a_direction(encoder):
    inputs = as_double(INPUTS.select(torch.tensor([9])))
    turned = inputs._replace(edge_index=inputs.edge_index.flip(0))
    assert not torch.allclose(encoder(*turned).score, encoder(*inputs).score)


def test_graphs_without_nodes_have_finite_scores(encoder):
    # Cells without a way from the input to the output.
    dead = OperationInputs(NASBench201Space())(torch.tensor([NASBench201Space().index(NASBench201Space().from_str(
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    ))]))  # fmt: skip
    assert dead.x.size(0) == 0
    assert bool(encoder(*as_double(dead)).score.isfinite().all())


def test_gradients_reach_the_encoder_through_a_set_convolution(encoder):
    embedding = encoder(*as_double(INPUTS)).embedding
    layer = OffGridSetConv(8, heads=2, dim=3).double()
    ptr = torch.tensor([0, 10])
    out = layer(embedding[:10], embedding[10:20], ptr, torch.tensor([0, 10]))
    out.sum().backward()
    for name in ("embed", "layers", "read"):
        module = getattr(encoder, name)
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        assert grads
        assert any(float(grad.abs().max()) > 0 for grad in grads)


def test_reset_draws_new_weights(encoder):
    before = encoder(*as_double(INPUTS)).score
    encoder.reset_parameters()
    assert not torch.allclose(before, encoder(*as_double(INPUTS)).score)


def test_it_runs_on_the_meta_device():
    encoder = OperationEncoder().to("meta")
    inputs = [value.to("meta") for value in INPUTS]
    assert encoder(*inputs).score.shape == (INPUTS.sizes.size(0),)


def test_other_widths_are_refused(encoder):
    with pytest.raises(ValueError, match="columns, got"):
        encoder(INPUTS.x[:, 1:].double(), INPUTS.edge_index, INPUTS.batch, INPUTS.sizes.double())


def test_repr(encoder):
    assert repr(encoder) == "OperationEncoder(channels=16, num_layers=2, out_channels=8)"
    assert isinstance(encoder, nn.Module)
