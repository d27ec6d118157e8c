"""The set-convolution layers."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np.nn import Grid, SetConv, SetConvFromGrid, SetConvToGrid, cover
from pyg_nas_np.ops import set_conv


def points(n: int, dim: int, channels: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, dim, generator=generator), torch.randn(n, channels, generator=generator)


def test_set_conv_is_the_op_and_a_linear_map():
    x, y = points(10, 2, 3)
    conv = SetConv(3, 4, dim=2, lengthscale=0.4)
    ptr = torch.tensor([0, 4, 10])
    density, signal = set_conv(x, y, x, 0.4, ptr, ptr, normalize=True)
    expected = conv.lin(torch.cat([density.unsqueeze(-1), signal], dim=-1))
    torch.testing.assert_close(conv(x, y, x, ptr_src=ptr, ptr_dst=ptr), expected)


def test_set_conv_accepts_an_unsorted_batch():
    x, y = points(12, 2, 3)
    z, _ = points(7, 2, 1, seed=1)
    batch_src, batch_dst = torch.arange(12) % 3, torch.tensor([2, 0, 0, 3, 2, 2, 1])
    conv = SetConv(3, dim=2)
    out = conv(x, y, z, batch_src=batch_src, batch_dst=batch_dst)
    for row in range(7):
        mine = batch_src == batch_dst[row]
        torch.testing.assert_close(out[row : row + 1], conv(x[mine], y[mine], z[row : row + 1]))
    assert not out[3].any()  # a set without sources


@pytest.mark.parametrize(("heads", "ard"), [(1, False), (1, True), (3, False), (3, True)])
def test_heads_have_length_scales_of_their_own(heads: int, ard: bool):
    x, y = points(10, 2, 3)
    conv = SetConv(3, 5, dim=2, heads=heads, ard=ard, lengthscale=0.5)
    assert conv.lengthscale.shape == (heads, 2 if ard else 1)
    assert conv.lengthscale.log2().mean().item() == pytest.approx(-1, abs=1e-5)
    assert len(set(conv.lengthscale[:, 0].tolist())) == heads
    out = conv(x, y, x)
    assert out.shape == (10, 5)
    out.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in conv.parameters())
    assert conv(x.unsqueeze(1).repeat(1, heads, 1), y, x.unsqueeze(1).repeat(1, heads, 1)).shape == (10, 5)


@pytest.mark.parametrize("value", [1e-4, 0.3, 50.0])
def test_the_length_scale_starts_where_it_should_and_stays_positive(value: float):
    conv = SetConv(1, lengthscale=value)
    assert conv.lengthscale.item() == pytest.approx(value, rel=1e-3)
    with torch.no_grad():
        conv.scale.raw.fill_(-1e4)
    assert conv.lengthscale.item() == pytest.approx(1e-5)
    conv.reset_parameters()
    assert conv.lengthscale.item() == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("cls", [SetConv, SetConvToGrid, SetConvFromGrid])
def test_a_fixed_length_scale_is_saved_but_not_learned(cls: type[torch.nn.Module]):
    extra = {} if cls is SetConv else {"spacing": 0.1}
    conv = cls(1, learnable=False, lengthscale=0.3, **extra)
    assert not list(conv.parameters())
    other = cls(1, learnable=False, lengthscale=0.7, **extra)
    other.load_state_dict(conv.state_dict())
    assert other.lengthscale.item() == pytest.approx(0.3)


def test_reset_parameters_draws_the_linear_map_anew():
    conv = SetConvToGrid(2, 4, spacing=0.1)
    before = conv.lin.weight.clone()
    conv.reset_parameters()
    assert not torch.equal(before, conv.lin.weight)


def test_repr():
    assert repr(SetConv(3, 8, dim=2)) == "SetConv(3, 8, dim=2, kernel='rbf', learnable=True)"
    assert (
        repr(SetConvToGrid(1, spacing=0.1, kernel="matern52", learnable=False))
        == "SetConvToGrid(1, 2, dim=1, kernel='matern52', learnable=False)"
    )


@pytest.mark.parametrize("dim", [1, 2])
def test_there_and_back(dim: int):
    x, y = points(30, dim, 2)
    batch = torch.arange(30) % 2
    grid = cover(x, 0.1, margin=0.2, multiple=4)
    assert all(size % 4 == 0 for size in grid.shape)
    to_grid, from_grid = SetConvToGrid(2, 8, dim, spacing=0.1), SetConvFromGrid(8, 3, dim, spacing=0.1)
    fields = to_grid(x, y, grid, batch=batch)
    assert fields.shape == (2, *grid.shape, 8)
    out = from_grid(fields, x, grid, batch=batch)
    assert out.shape == (30, 3)
    out.square().sum().backward()
    for p in (*to_grid.parameters(), *from_grid.parameters()):
        assert torch.isfinite(p.grad).all()
    # An unsorted batch gives every point the row that it has in a sorted one.
    order = batch.argsort(stable=True)
    again = from_grid(to_grid(x[order], y[order], grid, batch=batch[order]), x[order], grid, batch=batch[order])
    torch.testing.assert_close(out[order], again)


def test_the_interpolation_of_a_constant_is_constant():
    grid = Grid(torch.zeros(1), (20,))
    conv = SetConvFromGrid(1, spacing=0.1, eps=1e-8)
    out = conv(torch.full((1, 20, 1), 3.0), torch.rand(9, 1), grid)
    torch.testing.assert_close(out, torch.full((9, 1), 3.0))


def test_moving_the_points_by_a_spacing_moves_the_fields_by_a_cell():
    x = torch.tensor([[0.25], [0.75], [1.5]])
    y = torch.tensor([[1.0], [-1.0], [2.0]])
    conv = SetConvToGrid(1, spacing=0.25)
    here, there = cover(x, 0.25, margin=1.0), cover(x + 0.25, 0.25, margin=1.0)
    assert here.shape == there.shape
    torch.testing.assert_close(conv(x, y, here), conv(x + 0.25, y, there))


def test_a_length_scale_that_outgrows_its_window_is_an_error():
    conv = SetConvToGrid(1, spacing=0.1)
    with torch.no_grad():
        conv.scale.raw.fill_(2.0)
    with pytest.raises(ValueError, match=r"'window' = \d+ on axis 0 drops weights"):
        conv(*points(3, 1, 1), Grid(torch.zeros(1), (200,)))


def test_set_conv_compiles_with_ptr():
    x, y = points(10, 2, 3)
    ptr = torch.tensor([0, 4, 10])
    conv = SetConv(3, 4, dim=2)
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y, x, ptr_src=ptr, ptr_dst=ptr), conv(x, y, x, ptr_src=ptr, ptr_dst=ptr))


def test_functional_call_batches_without_vmap():
    x, y = points(10, 2, 3)
    ptr = torch.tensor([0, 4, 10])
    conv = SetConv(3, 4, dim=2)
    parameters = {name: value.detach() * 1.1 for name, value in conv.named_parameters()}
    whole = torch.func.functional_call(conv, parameters, (x, y, x), {"ptr_src": ptr, "ptr_dst": ptr})
    parts = [torch.func.functional_call(conv, parameters, (x[s], y[s], x[s])) for s in (slice(0, 4), slice(4, 10))]
    torch.testing.assert_close(whole, torch.cat(parts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "'in_channels' must be at least 1 but is 0"),
        ({"in_channels": 1, "out_channels": 0}, "'out_channels' must be at least 1 but is 0"),
        ({"in_channels": 1, "dim": 0}, "'dim' must be at least 1 but is 0"),
        ({"in_channels": 1, "heads": 0}, "'heads' must be at least 1 but is 0"),
        ({"in_channels": 1, "lengthscale": -1.0}, "'lengthscale' must be finite and above"),
        ({"in_channels": 1, "lengthscale": float("nan")}, "'lengthscale' must be finite and above"),
        ({"in_channels": 1, "kernel": "box"}, "'kernel' must be one of"),
        ({"in_channels": 1, "eps": 0.0}, "'eps' must be positive but is 0.0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        SetConv(**arguments)


def test_bad_inputs_are_named():
    x, y = points(5, 1, 2)
    batch, ptr = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 5])
    conv = SetConv(2)
    with pytest.raises(ValueError, match=r"'y' must have 2 channels but has shape \[5, 1\]"):
        conv(x, x, x)
    with pytest.raises(ValueError, match="must be given for both"):
        conv(x, y, x, batch_src=batch)
    with pytest.raises(ValueError, match="give one of them"):
        conv(x, y, x, batch_src=batch, batch_dst=batch, ptr_src=ptr, ptr_dst=ptr)
    with pytest.raises(ValueError, match=r"'batch' must have shape \[5\] but has shape \[4\]"):
        conv(x, y, x, batch_src=batch[:4], batch_dst=batch)
    with pytest.raises(ValueError, match="'batch' must be within 0 and 0 but reaches 0 and 2"):
        conv(x, y, x, batch_src=batch + torch.tensor([0, 0, 0, 0, 2]), batch_dst=batch, batch_size=1)
    with pytest.raises(ValueError, match="'x' must be at least one finite point"):
        cover(x[:0], 0.1)
    with pytest.raises(ValueError, match="'spacing' must be positive"):
        SetConvToGrid(1, spacing=0.0)
    with pytest.raises(ValueError, match=r"does not fit a grid of \[7\] cells"):
        SetConvFromGrid(1, spacing=0.1)(torch.zeros(1, 8, 1), x, Grid(torch.zeros(1), (7,)))
