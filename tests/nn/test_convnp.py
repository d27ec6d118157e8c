from __future__ import annotations

import pytest
import torch

from pyg_nas_np.nn import ConvNP, OffGridSetConv
from pyg_nas_np.tasks import Task, TaskBatch


def make_task(n: int, m: int, generator: torch.Generator) -> Task:
    shapes = ((n, 3), (n,), (m, 3), (n, 2, 2), (m, 2, 2), (m,))
    return Task(*(torch.randn(shape, generator=generator) for shape in shapes))


def make_tasks(contexts=(6, 7, 1), targets=(10, 3, 4)) -> TaskBatch:
    generator = torch.Generator().manual_seed(0)
    return TaskBatch.from_tasks([make_task(n, m, generator) for n, m in zip(contexts, targets, strict=True)])


def make_model() -> ConvNP:
    torch.manual_seed(0)
    model = ConvNP(3, channels=16, heads=4, dim=2)
    # A random head, so that the correction takes part.
    torch.nn.init.normal_(model.head.weight, std=0.3)
    return model.eval()


def select(batch: TaskBatch, b: int, order=None, keep=None) -> TaskBatch:
    """Task ``b`` alone, its context reordered, a part of its targets."""
    context, target = batch.ptr_context.tolist(), batch.ptr_target.tolist()
    own = torch.arange(context[b], context[b + 1])[slice(None) if order is None else order]
    other = torch.arange(target[b], target[b + 1])[slice(None) if keep is None else keep]
    return TaskBatch(
        batch.x_context[own],
        batch.z_context[own],
        batch.x_target[other],
        batch.context_moments[own],
        batch.target_moments[other],
        torch.tensor([0, own.numel()]),
        torch.tensor([0, other.numel()]),
    )


def test_untrained_process_is_the_mixture_of_its_base():
    batch = make_tasks()
    mean, std = ConvNP(3, channels=16, heads=4, dim=2)(batch)
    weights = torch.softmax(torch.tensor([3.0, 0.0]), dim=0)
    base_mean, base_std = batch.target_moments[..., 0], batch.target_moments[..., 1].exp()
    expected = base_mean @ weights
    second_moment = (base_std.square() + base_mean.square()) @ weights
    assert torch.allclose(mean, expected, atol=1e-6)
    assert torch.allclose(std, (second_moment - expected.square()).sqrt(), atol=1e-5)


@torch.no_grad()
def test_ragged_batch_equals_single_tasks():
    model, batch = make_model(), make_tasks()
    mean, std = model(batch)
    single = [model(select(batch, b)) for b in range(3)]
    assert torch.allclose(mean, torch.cat([m for m, _ in single]), atol=1e-5)
    assert torch.allclose(std, torch.cat([s for _, s in single]), atol=1e-5)


@torch.no_grad()
def test_context_order_does_not_matter_and_targets_do_not_interact():
    model, batch = make_model(), make_tasks()
    mean, std = model(select(batch, 0))
    keep = torch.randperm(10)[:4]
    again = model(select(batch, 0, torch.randperm(6), keep))
    assert torch.allclose(mean[keep], again[0], atol=1e-5)
    assert torch.allclose(std[keep], again[1], atol=1e-5)


def test_every_parameter_learns():
    model, batch = make_model(), make_tasks()
    mean, std = model(batch)
    (((batch.z_target - mean) / std).square() + std.log()).sum().backward()
    for name, parameter in model.named_parameters():
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
        ConvNP(3, channels=10, heads=4)


def test_reset_parameters_forgets_the_correction():
    model, batch = make_model(), make_tasks()
    model.reset_parameters()
    assert torch.allclose(model(batch)[0], ConvNP(3, channels=16, heads=4, dim=2)(batch)[0])
    assert "OffGridSetConv(16, heads=4, dim=2)" in repr(model.layers)
