from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np import ops
from pyg_nas_np.nn import SetConv, SetConvFromGrid, SetConvToGrid, grid_over
from pyg_nas_np.ops import window_for

BATCH_SRC = torch.tensor([0] * 5 + [1] * 7 + [3] * 1)  # set 2 has no sources
BATCH_DST = torch.tensor([0] * 4 + [1] * 3 + [2] * 2 + [3] * 2)
PTR_SRC, PTR_DST = torch.tensor([0, 5, 12, 12, 13]), torch.tensor([0, 4, 7, 9, 11])
GRID = {"spacing": 0.25, "window": window_for(1.0, 0.25, 1e-9)}


def points(dim: int = 2, channels: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((13, dim), (13, channels), (11, dim))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def dense_weights(x_src: torch.Tensor, x_dst: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """RBF weights [M, N], zero between sets."""
    square = ((x_dst[:, None] - x_src[None]) / scale).square().sum(-1)
    return torch.exp(-0.5 * square) * (BATCH_DST[:, None] == BATCH_SRC[None])


def make_full() -> SetConv:
    return SetConv(3, 5, dim=2, heads=2, ard=True, hidden_channels=4, kernel="matern52").double()


# ---------------------------------------------------------------------------------------------------------------------
# Off the grid
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ard", [False, True])
def test_is_the_dense_formula(ard):
    x_src, y_src, x_dst = points()
    scale = torch.tensor([0.7, 1.3]) if ard else 0.7
    out = SetConv(3, dim=2, lengthscale=scale, ard=ard).double()(x_src, y_src, x_dst, BATCH_SRC, BATCH_DST)
    weights = dense_weights(x_src, x_dst, scale)
    density = weights.sum(1, keepdim=True)
    torch.testing.assert_close(out, torch.cat([density, weights @ y_src / (density + 1e-8)], 1), rtol=1e-6, atol=1e-8)


def test_heads_are_single_convolutions_between_linear_maps():
    x_src, y_src, x_dst = points()
    conv = SetConv(3, 5, dim=2, heads=2, hidden_channels=4, lengthscale=[[0.5], [2.0]], eps=1e-4).double()
    values = conv.lin_in(y_src)
    densities, signals = [], []
    for head, scale in enumerate((0.5, 2.0)):
        weights = dense_weights(x_src, x_dst, scale)
        densities.append(weights.sum(1, keepdim=True))
        signals.append(weights @ values[:, 2 * head : 2 * head + 2] / (densities[-1] + 1e-4))
    expected = conv.lin_out(torch.cat([*densities, *signals], 1))
    out = conv(x_src, y_src, x_dst, ptr_src=PTR_SRC, ptr_dst=PTR_DST)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-7)


def test_one_number_is_spread_over_the_heads():
    assert SetConv(1, heads=3, lengthscale=4.0).lengthscale.flatten().tolist() == pytest.approx([2.0, 4.0, 8.0])


def test_embeddings_of_each_head():
    x_src, y_src, x_dst = points(dim=4)
    conv = SetConv(3, dim=2, heads=2, lengthscale=[[0.5], [2.0]]).double()
    out = conv(x_src.view(-1, 2, 2), y_src, x_dst.view(-1, 2, 2), BATCH_SRC, BATCH_DST)
    for head, scale in enumerate((0.5, 2.0)):
        part = slice(2 * head, 2 * head + 2)
        single = SetConv(3, dim=2, lengthscale=scale).double()
        own = single(x_src[:, part], y_src, x_dst[:, part], BATCH_SRC, BATCH_DST)
        both = torch.cat([out[:, head : head + 1], out[:, 2 + 3 * head : 5 + 3 * head]], 1)
        torch.testing.assert_close(both, own, rtol=1e-6, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_any_order_of_sources_and_targets(seed):
    generator = torch.Generator().manual_seed(seed)
    x_src, y_src, x_dst = points(seed=seed)
    conv = make_full()
    expected = conv(x_src, y_src, x_dst, ptr_src=PTR_SRC, ptr_dst=PTR_DST)
    torch.testing.assert_close(conv(x_src, y_src, x_dst, BATCH_SRC, BATCH_DST), expected)
    src, dst = torch.randperm(13, generator=generator), torch.randperm(11, generator=generator)
    out = conv(x_src[src], y_src[src], x_dst[dst], BATCH_SRC[src], BATCH_DST[dst], batch_size=4)
    torch.testing.assert_close(out, expected[dst])


def test_without_batch_all_points_are_one_set():
    x_src, y_src, x_dst = points()
    zeros = torch.zeros(13, dtype=torch.long), torch.zeros(11, dtype=torch.long)
    conv = make_full()
    torch.testing.assert_close(conv(x_src, y_src, x_dst), conv(x_src, y_src, x_dst, *zeros))


def test_grids_lie_on_the_device_of_either_corner(cuda):
    corner = torch.ones(1, device=cuda)
    assert grid_over(0.0, corner, 0.25)[0].is_cuda
    assert grid_over(-corner, 0.0, 0.25)[0].is_cuda


def test_empty_sets_give_zeros():
    x_src, y_src, x_dst = points()
    for per_channel in (False, True):
        conv = SetConv(3, dim=2, per_channel=per_channel).double()
        out = conv(x_src, y_src, x_dst, BATCH_SRC, BATCH_DST)
        assert (out[7:9] == 0).all()
        assert (out[:7, 0] > 0).all()
        assert conv(x_src[:0], y_src[:0], x_dst).count_nonzero() == 0
        assert conv(x_src, y_src, x_dst[:0]).shape == (0, 4)
        empty = BATCH_SRC[:0]
        assert conv(x_src[:0], y_src[:0], x_dst[:0], empty, empty).shape == (0, 4)


def test_density_and_division_can_be_left_out():
    x_src, y_src, x_dst = points()
    out = SetConv(3, dim=2, density=False, normalize=False).double()(x_src, y_src, x_dst, BATCH_SRC, BATCH_DST)
    torch.testing.assert_close(out, dense_weights(x_src, x_dst, 1.0) @ y_src, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------------------------------------------------------------
# The conventions of the papers
# ---------------------------------------------------------------------------------------------------------------------


def test_convcnp_has_a_kernel_for_each_channel():
    x_src, y_src, x_dst = points()
    conv = SetConv.convcnp(3, None, points_per_unit=2, dim=2).double()
    scales = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    assert conv.lengthscale.flatten().tolist() == pytest.approx([1.0] * 4)
    with torch.no_grad():
        conv.raw_lengthscale.copy_((scales - conv.min_lengthscale).log().unsqueeze(1))
    sums = [dense_weights(x_src, x_dst, scales[0]).sum(1)]
    sums += [dense_weights(x_src, x_dst, scales[c + 1]) @ y_src[:, c] for c in range(3)]
    expected = torch.stack([sums[0], *(s / (sums[0] + 1e-8) for s in sums[1:])], 1)
    torch.testing.assert_close(conv(x_src, y_src, x_dst, BATCH_SRC, BATCH_DST), expected, rtol=1e-6, atol=1e-8)


def test_neural_process_family_is_a_softmax():
    x_src, y_src, x_dst = points()
    out = SetConv.neural_process_family(3, sigma=0.8, dim=2).double()(x_src, y_src, x_dst)
    logits = -((x_dst[:, None] - x_src[None]) / 0.8).square().sum(-1)
    torch.testing.assert_close(out[:, 0], logits.exp().sum(1), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(out[:, 1:], logits.softmax(1) @ y_src, rtol=1e-4, atol=1e-6)


def test_neuralprocesses_agrees_with_the_package():
    nps = pytest.importorskip("neuralprocesses.torch")
    x_src, y_src, x_dst = (t.float() for t in points())
    theirs = nps.Chain(nps.PrependDensityChannel(), nps.SetConv(0.5), nps.DivideByFirstChannel(epsilon=1e-4))
    _, expected = nps.code(theirs, x_src.T[None], y_src.T[None], x_dst.T[None], root=True)
    out = SetConv.neuralprocesses(3, points_per_unit=2, dim=2)(x_src, y_src, x_dst)
    torch.testing.assert_close(out, expected[0].T, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Onto the grid and back
# ---------------------------------------------------------------------------------------------------------------------


def cells(origin: torch.Tensor, shape: tuple[int, ...], spacing: float) -> torch.Tensor:
    axes = [o + spacing * torch.arange(n, dtype=torch.float64) for o, n in zip(origin, shape, strict=True)]
    return torch.cartesian_prod(*axes).view(-1, len(shape))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_grid_pair_is_the_set_convolution_with_cells(dim):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(6, n, generator=generator, dtype=torch.float64) for n in (dim, 2))
    origin, shape = grid_over(0.0, [1.0, 0.75, 0.5][:dim], 0.25)
    # A window of more than twice the grid reaches every cell: no truncation.
    options = {"spacing": 0.25, "window": 12, "lengthscale": 0.4}
    where = cells(origin, shape, 0.25)
    exact = SetConv(2, dim=dim, lengthscale=0.4).double()
    to_grid = SetConvToGrid(2, dim=dim, **options).double()
    out = to_grid(x, y, origin, shape)
    assert out.shape == (1, *shape, 3)
    torch.testing.assert_close(out.view(-1, 3), exact(x, y, where), rtol=1e-6, atol=1e-7)
    from_grid = SetConvFromGrid(3, dim=dim, density=True, **options).double()
    expected = SetConv(3, dim=dim, lengthscale=0.4).double()(where, out.view(-1, 3), x)
    torch.testing.assert_close(from_grid(out, x, origin), expected, rtol=1e-6, atol=1e-7)


def test_grid_pair_in_any_order_and_by_offsets():
    x, y, z = points(dim=1)
    origin, shape = grid_over(-3.0, 3.0, 0.25)
    to_grid, from_grid = SetConvToGrid(3, 4, **GRID).double(), SetConvFromGrid(4, 2, **GRID).double()
    grid = to_grid(x, y, origin, shape, ptr=PTR_SRC)
    out = from_grid(grid, z, origin, ptr=PTR_DST)
    src, dst = torch.randperm(13), torch.randperm(11)
    torch.testing.assert_close(to_grid(x[src], y[src], origin, shape, BATCH_SRC[src]), grid)
    torch.testing.assert_close(from_grid(grid, z[dst], origin, BATCH_DST[dst]), out[dst])
    torch.testing.assert_close(grid[2], to_grid.lin_out.bias.expand_as(grid[2]))  # the empty set


@settings(max_examples=15, deadline=None)
@given(st.integers(-40, 40), st.floats(-0.1, 0.1))
def test_grid_pair_is_translation_equivariant(steps, jitter):
    """Also with an origin off the multiples of the spacing: both modules move it to the same one."""
    x, y, z = points(dim=1)
    to_grid, from_grid = SetConvToGrid(3, **GRID).double(), SetConvFromGrid(4, **GRID).double()
    origin, shape = grid_over(-4.0, 4.0, 0.25)
    shift = 0.25 * steps
    grid = to_grid(x, y, origin, shape, ptr=PTR_SRC)
    moved = to_grid(x + shift, y, origin + shift + jitter, shape, ptr=PTR_SRC)
    torch.testing.assert_close(moved, grid)
    out = from_grid(grid.sin(), z, origin, ptr=PTR_DST)
    torch.testing.assert_close(from_grid(moved.sin(), z + shift, origin + shift + jitter, ptr=PTR_DST), out)


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(0, 20), st.sampled_from([0.1, 0.25, 1 / 64]), st.integers(-100, 100))
def test_grid_covers_its_box_on_multiples_of_the_spacing(low, extent, spacing, steps):
    origin, shape = grid_over(low, low + extent, spacing)
    ticks = float(origin) / spacing
    assert ticks == pytest.approx(round(ticks), abs=1e-9)
    assert float(origin) <= low + 1e-5 * spacing
    assert float(origin) + (shape[0] - 1) * spacing >= low + extent - 1e-5 * spacing
    assert shape[0] <= extent / spacing + 3
    # A box on the multiples keeps its number of cells wherever it lies.
    assert grid_over(steps * spacing, (steps + 7) * spacing, spacing)[1] == (8,)


def test_grid_of_each_set():
    low = torch.tensor([[0.1, -1.0], [5.0, 5.0]])
    origin, shape = grid_over(low, low + 1.0, 0.5, margin=0.5)
    assert origin.tolist() == [[-0.5, -1.5], [4.5, 4.5]]
    assert shape == (6, 5)
    x, y = low.double() + 0.5, torch.ones(2, 1, dtype=torch.float64)
    conv = SetConvToGrid(1, dim=2, spacing=0.5, window=14).double()
    out = conv(x, y, origin, shape, torch.tensor([0, 1]))
    alone = conv(x[1:], y[1:], origin[1], shape)
    torch.testing.assert_close(out[1:], alone)


# ---------------------------------------------------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------------------------------------------------


def run(conv: torch.nn.Module) -> torch.Tensor:
    x, y, z = points(dim=conv.dim, channels=conv.in_channels)
    if isinstance(conv, SetConv):
        return conv(x, y, z, BATCH_SRC, BATCH_DST)
    origin, shape = grid_over([-3.0] * conv.dim, 3.0, conv.spacing)
    if isinstance(conv, SetConvToGrid):
        return conv(x, y, origin, shape, BATCH_SRC)
    grid = torch.linspace(0, 1, 4 * shape[0] * conv.in_channels, dtype=torch.float64).sin()
    return conv(grid.view(4, *shape, conv.in_channels), z, origin, BATCH_DST)


MODULES = {
    "full": make_full,
    "per_channel": lambda: SetConv(3, 5, dim=2, per_channel=True, hidden_channels=4).double(),
    "to_grid": lambda: SetConvToGrid(3, 5, hidden_channels=4, **GRID).double(),
    "from_grid": lambda: SetConvFromGrid(3, 5, hidden_channels=4, density=True, **GRID).double(),
}
each_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES.keys())


@each_module
def test_every_parameter_has_the_right_gradient(make):
    conv = make()
    names, parameters = zip(*conv.named_parameters(), strict=True)
    assert {"raw_lengthscale", "lin_in.weight", "lin_in.bias", "lin_out.weight", "lin_out.bias"} == set(names)

    def loss(*values):
        with torch.nn.utils.stateless._reparametrize_module(conv, dict(zip(names, values, strict=True))):
            return run(conv).square().mean()

    values = [p.detach().clone().requires_grad_() for p in parameters]
    # The window of the grid modules is constant: its edge is below the tolerance.
    assert torch.autograd.gradcheck(loss, values, atol=1e-6, rtol=1e-4, fast_mode=True)
    for name, gradient in zip(names, torch.autograd.grad(loss(*values), values), strict=True):
        assert gradient.abs().sum() > 0, name


@each_module
def test_reset_parameters_restores_the_start(make):
    conv = make()
    start = conv.lengthscale.detach().clone()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(7.0)
    conv.reset_parameters()
    torch.testing.assert_close(conv.lengthscale.detach(), start)
    assert all((p != 7.0).all() for p in conv.parameters())


@each_module
def test_state_dict_round_trip(make):
    conv, other = make(), make()
    with torch.no_grad():
        conv.raw_lengthscale.sub_(0.3)
    other.load_state_dict(conv.state_dict())
    assert torch.equal(run(conv), run(other))


@pytest.mark.parametrize("cls", [SetConv, SetConvToGrid, SetConvFromGrid])
def test_fixed_length_scales_are_a_buffer(cls):
    options = {"min_lengthscale": 0.1, **({} if cls is SetConv else GRID)}
    fixed = cls(3, lengthscale=0.5, learnable=False, **options).double()
    assert not list(fixed.parameters())
    learnt = cls(3, lengthscale=0.7, **options).double()
    fixed.load_state_dict(learnt.state_dict())  # the same keys
    torch.testing.assert_close(run(fixed), run(learnt))
    assert "learnable=False" in repr(fixed)


def test_length_scales_keep_above_their_bound():
    conv = SetConv(1, lengthscale=2.0, min_lengthscale=0.5)
    assert conv.lengthscale.item() == pytest.approx(2.0)
    with torch.no_grad():
        conv.raw_lengthscale.fill_(-200.0)
    assert conv.lengthscale.item() == 0.5
    assert SetConvToGrid(1, spacing=0.1, window=20).min_lengthscale == pytest.approx(0.05)


def test_repr():
    conv = SetConv(3, 16, dim=2, heads=4, hidden_channels=8)
    assert repr(conv) == "SetConv(3, 16, dim=2, kernel='rbf', heads=4)"
    grid = SetConvToGrid(3, 16, spacing=0.1, window=20)
    assert repr(grid) == "SetConvToGrid(3, 16, dim=1, kernel='rbf', spacing=[0.1], window=[20])"


def test_compiles_into_one_graph():
    conv = make_full()
    x_src, y_src, x_dst = points()
    src, dst = torch.randperm(13), torch.randperm(11)
    arguments = (x_src[src], y_src[src], x_dst[dst], BATCH_SRC[src], BATCH_DST[dst])
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    out, expected = compiled(*arguments, batch_size=4), conv(*arguments)
    torch.testing.assert_close(out, expected)
    gradients = (torch.autograd.grad(o.square().sum(), list(conv.parameters())) for o in (out, expected))
    torch.testing.assert_close(*gradients)
    to_grid = SetConvToGrid(3, **GRID).double()
    origin, shape = grid_over(-3.0, 3.0, 0.25)
    x, y, _ = points(dim=1)
    compiled = torch.compile(to_grid, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y, origin, shape, ptr=PTR_SRC), to_grid(x, y, origin, shape, ptr=PTR_SRC))


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "'in_channels' must be at least 1 but is 0"),
        ({"out_channels": 0}, "'out_channels' must be at least 1 but is 0"),
        ({"heads": 0}, "'heads' must be at least 1"),
        ({"heads": 3, "hidden_channels": 4}, "'hidden_channels' = 4 must be divisible by 'heads' = 3"),
        ({"heads": 2, "per_channel": True}, "'heads' must be 1"),
        ({"lengthscale": 0.0}, "'lengthscale' must be positive and finite but is 0.0"),
        ({"lengthscale": float("nan")}, "'lengthscale' must be positive and finite but is nan"),
        ({"lengthscale": [1.0, 2.0]}, r"must be a number or broadcast to \[heads, D\] = \[1, 1\].*\[2\]"),
        ({"min_lengthscale": 2.0}, "'min_lengthscale' must be positive and below .* is 2 "),
        ({"kernel": "cosine"}, "'kernel' must be one of .* 'cosine'"),
        ({"eps": 0.0}, "'eps' must be positive but is 0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SetConv(**{"in_channels": 1, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 4}, "'dim' must be at most 3 on a grid but is 4"),
        ({"spacing": 0.0}, r"'spacing' must be positive and finite but is \[0.0\]"),
        ({"spacing": [0.1, 0.1]}, "'spacing' must be a number or one per axis"),
        ({"window": 3}, r"'window' = \[3\] drops weights above tolerance = 0.01 .* at least \[13\]"),
    ],
)
def test_bad_grid_options(options, message):
    with pytest.raises(ValueError, match=message):
        SetConvToGrid(**{"in_channels": 1, "spacing": 0.1, "window": 20, **options})


def test_a_length_scale_that_outgrows_its_window_raises():
    conv = SetConvToGrid(1, spacing=0.1, window=20)
    with torch.no_grad():
        conv.raw_lengthscale.add_(2.0)
    with pytest.raises(ValueError, match="drops weights"):
        conv(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1), [50])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x_src": torch.zeros(13, 3)}, ValueError, r"'x_src' must have shape \[N, 2\] or \[N, H, 2\] .*\[13, 3\]"),
        ({"x_dst": torch.zeros(11)}, ValueError, r"'x_dst' must have shape .*\[11\]"),
        ({"y_src": torch.zeros(13, 4)}, ValueError, r"'y_src' must have 2 axes, .* = 3, but has shape \[13, 4\]"),
        ({"y_src": torch.zeros(12, 3)}, ValueError, r"'y_src' must have one row per location, 13, .*\[12, 3\]"),
        ({"batch_src": BATCH_SRC[1:]}, ValueError, r"'batch_src' must have shape \[13\] but has shape \[12\]"),
        ({"batch_src": BATCH_SRC - 1}, ValueError, r"'batch_src' must lie in \[0, 4\) but contains -1"),
        ({"batch_size": 2}, ValueError, r"'batch_src' must lie in \[0, 2\) but contains 3"),
        ({"batch_src": BATCH_SRC.float()}, TypeError, "'batch_src' must be int64 but is torch.float32"),
        ({"batch_dst": None}, ValueError, "'batch_dst' is missing: the rows belong to 4 sets"),
        ({"ptr_src": PTR_SRC}, ValueError, "'batch_src' and its 'ptr' are both given"),
        ({"batch_src": None, "ptr_src": PTR_SRC.flip(0)}, ValueError, "'ptr_src' must run from 0"),
    ],
)
def test_bad_inputs(change, error, message):
    x_src, y_src, x_dst = (t.float() for t in points())
    good = {"x_src": x_src, "y_src": y_src, "x_dst": x_dst, "batch_src": BATCH_SRC, "batch_dst": BATCH_DST}
    with pytest.raises(error, match=message):
        SetConv(3, dim=2)(**{**good, **change})


def test_bad_grids():
    with pytest.raises(ValueError, match="'spacing' must be positive"):
        grid_over(0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="not above 'high'"):
        grid_over(1.0, 0.0, 0.1)
    with pytest.raises(ValueError, match="must be finite"):
        grid_over(0.0, float("nan"), 0.1)
    conv = SetConvFromGrid(2, **GRID)
    with pytest.raises(ValueError, match=r"'y' must have 3 axes, .* = 2, but has shape \[1, 5, 3\]"):
        conv(torch.zeros(1, 5, 3), torch.zeros(1, 1), torch.zeros(1))


def test_values_are_not_looked_at_without_validation():
    """Then the operators trust them as well: no device is waited for."""
    x_src, y_src, x_dst = points()
    with ops.validation(False):
        out = SetConv(3, dim=2).double()(x_src, y_src, x_dst, BATCH_SRC, BATCH_DST, batch_size=4)
    assert out.shape == (11, 4)


@pytest.mark.parametrize("how", ["nothing", "batch", "ptr"])
def test_no_value_is_read_from_a_device_that_cannot_tell_any(how: str):
    # As while a CUDA graph is captured: meta tensors raise where a value is read.
    conv = SetConv(3, 4, dim=2, heads=2, hidden_channels=4).to("meta")
    x, y = torch.randn(6, 2, device="meta"), torch.randn(6, 3, device="meta")
    sets = {
        "nothing": {},
        "batch": {f"batch_{side}": torch.empty(6, dtype=torch.int64, device="meta") for side in ("src", "dst")},
        "ptr": {f"ptr_{side}": torch.empty(3, dtype=torch.int64, device="meta") for side in ("src", "dst")},
    }[how]
    assert conv(x, y, x, **sets, batch_size=1 if how == "nothing" else 2).shape == (6, 4)
