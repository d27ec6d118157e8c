from __future__ import annotations

import pytest
import torch

from pyg_nas_np.nn import ConvNP, OffGridSetConv
from pyg_nas_np.tasks import TaskBatch


def make_tasks(contexts=(6, 7, 1), targets=(10, 3, 4)) -> TaskBatch:
    generator = torch.Generator().manual_seed(0)
    parts = [
        (
            torch.randn(n, 3, generator=generator),
            torch.randn(n, generator=generator),
            torch.randn(m, 3, generator=generator),
            torch.randn(m, generator=generator),
        )
        for n, m in zip(contexts, targets, strict=True)
    ]
    return TaskBatch.from_tasks(parts)


def make_model() -> ConvNP:
    torch.manual_seed(0)
    model = ConvNP(3, [[0], [1, 2]], channels=16, heads=4, dim=2, num_members=2)
    # Random heads, so that the correction takes part.
    torch.nn.init.normal_(model.head.weight, std=0.3)
    return model.eval()


def select(batch: TaskBatch, b: int) -> TaskBatch:
    context, target = batch.ptr_context.tolist(), batch.ptr_target.tolist()
    own, other = slice(context[b], context[b + 1]), slice(target[b], target[b + 1])
    sizes = torch.tensor([0, own.stop - own.start]), torch.tensor([0, other.stop - other.start])
    return TaskBatch(batch.x_context[own], batch.z_context[own], batch.x_target[other], *sizes)


def test_untrained_process_is_the_evidence_weighted_bank():
    model, batch = ConvNP(3, [[0], [1, 2]], num_members=2), make_tasks()
    bank = model.bank(batch)
    evidence = torch.repeat_interleave(bank.evidence, batch.ptr_target.diff(), dim=0)
    weights = torch.softmax(model.evidence_scale.exp() * evidence, dim=1)
    mean, std = model(batch)
    assert torch.allclose(mean, (weights * bank.target_mean).sum(1), atol=1e-6)
    assert (std > 0).all()


@torch.no_grad()
def test_ragged_batch_equals_single_tasks():
    model, batch = make_model(), make_tasks()
    mean, std = model(batch)
    single = [model(select(batch, b)) for b in range(3)]
    assert torch.allclose(mean, torch.cat([m for m, _ in single]), atol=1e-5)
    assert torch.allclose(std, torch.cat([s for _, s in single]), atol=1e-5)


@torch.no_grad()
def test_context_order_does_not_matter_and_targets_do_not_interact():
    model, batch = make_model(), select(make_tasks(), 0)
    mean, std = model(batch)
    order, keep = torch.randperm(6), torch.randperm(10)[:4]
    part = TaskBatch(
        batch.x_context[order], batch.z_context[order], batch.x_target[keep], batch.ptr_context, torch.tensor([0, 4])
    )
    again = model(part)
    assert torch.allclose(mean[keep], again[0], atol=1e-5)
    assert torch.allclose(std[keep], again[1], atol=1e-5)


def test_every_parameter_learns():
    model, batch = make_model(), make_tasks()
    mean, std = model(batch)
    (((batch.z_target - mean) / std).square() + std.log()).sum().backward()
    for name, parameter in model.named_parameters():
        # Nothing follows the context's own update in the last layer, so that all parameters are shared with the targets'.
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@torch.no_grad()
def test_set_conv_layer_of_an_empty_source_keeps_finite():
    layer = OffGridSetConv(8, heads=2, dim=3)
    out = layer(torch.zeros(0, 8), torch.randn(4, 8), torch.tensor([0, 0]), torch.tensor([0, 4]))
    assert out.isfinite().all()


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="channels=10"):
        ConvNP(3, [[0]], channels=10, heads=4)


def test_reset_parameters_starts_again_from_the_bank():
    model, batch = make_model(), make_tasks()
    model.reset_parameters()
    assert model.head.weight.abs().max() == 0
    fresh = ConvNP(3, [[0], [1, 2]], channels=16, heads=4, dim=2, num_members=2)
    assert torch.allclose(model(batch)[0], fresh(batch)[0])
    assert "OffGridSetConv(16, heads=4, dim=2)" in repr(model.layers)
