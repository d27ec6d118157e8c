from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import softplus

from pyg_nas_np.nn import OffGridProcess, OffGridSetConv


def sets(sources=(5, 1), targets=(3, 4), channels: int = 8):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(sum(sources), channels, generator=generator),
        torch.randn(sum(targets), channels, generator=generator),
        torch.tensor([0, *sources]).cumsum(0),
        torch.tensor([0, *targets]).cumsum(0),
    )


@torch.no_grad()
def test_layer_equals_dense_kernels_head_by_head():
    torch.manual_seed(0)
    layer, (source, target, ptr_source, ptr_target) = OffGridSetConv(8, heads=2, dim=3), sets()
    out = layer(source, target, ptr_source, ptr_target)
    s, t = layer.norm_source(source), layer.norm_target(target)
    lengths = (softplus(layer.raw_lengthscale) + 1e-3).flatten()
    for b in range(2):
        own, other = slice(*ptr_source[b : b + 2].tolist()), slice(*ptr_target[b : b + 2].tolist())
        signals, densities = [], []
        for head in range(2):
            x, y = (layer.embed(part).view(-1, 2, 3)[:, head] for part in (s[own], t[other]))
            kernel = (-0.5 * torch.cdist(y, x).square() / lengths[head].square()).exp()
            density = kernel.sum(dim=1)
            signals.append(kernel @ layer.value(s[own])[:, 4 * head : 4 * head + 4] / density.unsqueeze(1))
            densities.append(density.log())
        inputs = torch.cat([t[other], *signals, torch.stack(densities, dim=1)], dim=1)
        torch.testing.assert_close(out[other], target[other] + layer.mix(inputs), rtol=1e-3, atol=1e-4)


def test_length_scales_start_around_the_typical_distance():
    layer = OffGridSetConv(16, heads=3, dim=4)
    lengths = softplus(layer.raw_lengthscale).flatten()
    torch.testing.assert_close(lengths, 2.0 * torch.tensor([0.5, 1.0, 2.0]))


@torch.no_grad()
def test_an_empty_source_keeps_finite():
    layer = OffGridSetConv(8, heads=2, dim=3)
    out = layer(torch.zeros(0, 8), torch.randn(4, 8), torch.tensor([0, 0]), torch.tensor([0, 4]))
    assert out.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [1, 3])
def test_sets_of_a_batch_do_not_mix(num_layers):
    torch.manual_seed(0)
    process, (context, target, ptr_context, ptr_target) = OffGridProcess(8, heads=2, num_layers=num_layers), sets()
    out = process(context, target, ptr_context, ptr_target)
    alone = process(context[:5], target[:3], torch.tensor([0, 5]), torch.tensor([0, 3]))
    torch.testing.assert_close(out[:3], alone, rtol=1e-4, atol=1e-5)
    changed = process(context + torch.tensor([0.0] * 5 + [1.0]).unsqueeze(1), target, ptr_context, ptr_target)
    torch.testing.assert_close(changed[:3], out[:3], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    process = OffGridProcess(8, heads=2, dim=3)
    process(*sets()).square().sum().backward()
    for name, parameter in process.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_reset_parameters_draws_new_weights():
    process = OffGridProcess(8, heads=2)
    before = process.layers[1].value.weight.clone()
    torch.nn.init.constant_(process.layers[0].raw_lengthscale, 9.0)
    process.reset_parameters()
    assert not torch.equal(process.layers[1].value.weight, before)
    scale = softplus(process.layers[0].raw_lengthscale.detach())[0]
    assert float(scale) == pytest.approx(math.sqrt(6) / 2, rel=1e-5)
    assert repr(process) == "OffGridProcess(2 x OffGridSetConv(8, heads=2, dim=6))"
