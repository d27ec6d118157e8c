from __future__ import annotations

import pytest
import torch

from pyg_nas_np.nn import OnGridProcess
from pyg_nas_np.nn.on_grid import SeparableConv, UNet

dims = pytest.mark.parametrize("grid_dim", [1, 2])


def make(grid_dim: int = 1, **kwargs) -> OnGridProcess:
    torch.manual_seed(0)
    return OnGridProcess(8, **({"heads": 2, "grid_dim": grid_dim, "points": 16} | kwargs))


def sets(sources=(5, 1), targets=(3, 4)):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(sum(sources), 8, generator=generator),
        torch.randn(sum(targets), 8, generator=generator),
        torch.tensor([0, *sources]).cumsum(0),
        torch.tensor([0, *targets]).cumsum(0),
    )


@torch.no_grad()
@dims
def test_convolution_sees_five_cells_and_may_halve_the_grid(grid_dim):
    x = torch.zeros(2, 3, *[8] * grid_dim)
    assert SeparableConv(3, 4, grid_dim, stride=2)(x).shape == (2, 4, *[4] * grid_dim)
    conv = SeparableConv(3, 4, grid_dim)
    torch.nn.init.constant_(conv.pointwise.bias, 100.0)  # above the ReLU's kink
    middle = x.clone()
    middle[(0, slice(None), *[4] * grid_dim)] = 1.0
    changed = (conv(middle) - conv(x)).abs().amax(dim=1) > 1e-4  # a hundred is rounded by 4e-6
    expected = torch.zeros_like(changed)
    expected[(0, *[slice(2, 7)] * grid_dim)] = True
    assert torch.equal(changed, expected)


@torch.no_grad()
@dims
def test_u_net_keeps_the_grid_and_reaches_far(grid_dim):
    net = UNet(3, 4, grid_dim)
    x = torch.randn(2, 3, *[16] * grid_dim, generator=torch.Generator().manual_seed(0))
    out = net(x)
    assert out.shape == (2, 4, *[16] * grid_dim)
    torch.testing.assert_close(net(x[1:]), out[1:], rtol=1e-4, atol=1e-5)
    before = net.last.weight.clone()
    net.reset_parameters()
    assert not torch.equal(net.last.weight, before)


@torch.no_grad()
@dims
def test_grid_holds_density_and_signal_of_every_head(grid_dim):
    """The grid of the context against a dense evaluation at every node."""
    process, (context, _, ptr, _) = make(grid_dim), sets()
    grid = process._to_grid(context, ptr)
    assert grid.shape == (2, 2 * (1 + 4), *[16] * grid_dim)
    line = torch.linspace(-1.25, 1.25, 16)
    nodes = torch.cartesian_prod(*[line] * grid_dim).view(-1, grid_dim)
    coordinates = process.project(context).tanh().view(-1, 2, grid_dim)
    scale = float(process._scale(0))
    for b in range(2):
        own = slice(*ptr[b : b + 2].tolist())
        for head in range(2):
            distance = torch.cdist(nodes, coordinates[own, head])
            kernel = (-0.5 * (distance / scale).square()).exp()
            values = process.value(context[own])[:, 4 * head : 4 * head + 4]
            density = kernel.sum(dim=1)
            found = grid[b, 5 * head : 5 * head + 5].flatten(1)
            # The kernel is cut off far away.
            torch.testing.assert_close(found[0], density.log1p(), rtol=1e-3, atol=2e-3)
            near = density > 0.1
            expected = (kernel @ values / density.unsqueeze(1)).t()
            torch.testing.assert_close(found[1:, near], expected[:, near], rtol=1e-2, atol=1e-2)


@torch.no_grad()
@dims
def test_sets_of_a_batch_do_not_mix(grid_dim):
    process, (context, target, ptr_context, ptr_target) = make(grid_dim), sets()
    out = process(context, target, ptr_context, ptr_target)
    assert out.shape == (7, 8)
    first = process(context[:5], target[:3], torch.tensor([0, 5]), torch.tensor([0, 3]))
    second = process(context[5:], target[3:], torch.tensor([0, 1]), torch.tensor([0, 4]))
    torch.testing.assert_close(out, torch.cat([first, second]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_empty_context_keeps_finite():
    process = make(latent_channels=2)
    out = process(torch.zeros(0, 8), torch.randn(4, 8), torch.tensor([0, 0]), torch.tensor([0, 4]))
    assert out.isfinite().all()


@torch.no_grad()
@dims
def test_latent_path(grid_dim):
    process, (context, target, ptr_context, ptr_target) = make(grid_dim, latent_channels=3), sets()
    grid, mean, log_std = process.latent(context, ptr_context)
    assert grid.shape == (2, 10, *[16] * grid_dim)
    assert mean.shape == log_std.shape == (2, 3, *[16] * grid_dim)
    assert bool(((log_std >= -5) & (log_std <= 2)).all())

    def sample(seed, latent=None):
        generator = torch.Generator().manual_seed(seed)
        return process(context, target, ptr_context, ptr_target, latent, generator)

    assert torch.equal(sample(0), sample(0))
    assert not torch.allclose(sample(0), sample(1))
    # The default latent is that given the context.
    torch.testing.assert_close(sample(0), sample(0, (mean, log_std)))
    certain = mean, torch.full_like(log_std, -20.0)
    torch.testing.assert_close(sample(0, certain), sample(1, certain), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(sample(0, certain), sample(0, (mean + 1, certain[1])))


@dims
def test_every_parameter_learns(grid_dim):
    process = make(grid_dim, latent_channels=2)
    process(*sets()).square().sum().backward()
    for name, parameter in process.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("kwargs", [{"grid_dim": 3}, {"points": 18}, {"heads": 3}])
def test_invalid_arguments(kwargs):
    with pytest.raises(ValueError, match="must be 1 or 2"):
        make(**kwargs)


def test_reset_parameters_draws_new_weights():
    process = make(latent_channels=2)
    before = process.decoder.last.weight.clone(), process.encoder.last.weight.clone()
    torch.nn.init.constant_(process.raw_lengthscale, 9.0)
    process.reset_parameters()
    assert not torch.equal(process.decoder.last.weight, before[0])
    assert not torch.equal(process.encoder.last.weight, before[1])
    # Two cells and the half that is the least.
    torch.testing.assert_close(process._scale(0).detach(), torch.tensor(2.5 * process.spacing))
    assert repr(process) == "OnGridProcess(8, heads=2, grid_dim=1, points=16, latent_channels=2)"
