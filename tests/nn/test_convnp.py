from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_nas_np import ops
from pyg_nas_np.nn import ConvNP, Task, TaskBatch
from pyg_nas_np.nn.convnp import FREE_CONTEXT, MAX_RATIO, MAX_SHIFT, NOISE_UNIT, evidence, freedom, noise_channels
from pyg_nas_np.ops import cpu

FORMS = {
    "hybrid": {},
    "off-grid": {"form": "off-grid"},
    "on-grid-1d": {"form": "on-grid"},
    "on-grid-2d": {"form": "on-grid", "grid_dim": 2},
}
forms = pytest.mark.parametrize("form", list(FORMS))


def make_task(n: int, m: int, generator: torch.Generator) -> Task:
    shapes = ((n, 3), (n,), (m, 3), (n, 2, 2), (m, 2, 2), (m,))
    return Task(*(torch.randn(shape, generator=generator) for shape in shapes))


def make_tasks(contexts=(6, 7, 1), targets=(10, 3, 4)) -> TaskBatch:
    generator = torch.Generator().manual_seed(0)
    return TaskBatch.from_tasks([make_task(n, m, generator) for n, m in zip(contexts, targets, strict=True)])


def untrained(form: str = "hybrid", **kwargs) -> ConvNP:
    torch.manual_seed(0)
    return ConvNP(3, **({"num_base": 2, "channels": 16, "heads": 4, "dim": 2} | FORMS[form] | kwargs))


def make_model(form: str = "hybrid", **kwargs) -> ConvNP:
    model = untrained(form, **kwargs)
    # Random last layers, so that the correction and the weights take part.
    torch.nn.init.normal_(model.head.weight, std=0.3)
    if model.num_base:
        torch.nn.init.normal_(model.weigh[-1].weight, std=0.3)
    return model.eval()


def make_latent() -> ConvNP:
    return make_model("on-grid-1d", latent_channels=2)


def make_noisy() -> ConvNP:
    return make_model(noise_channel=True)


MAKERS = {form: partial(make_model, form) for form in FORMS} | {"latent": make_latent, "noise": make_noisy}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


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
        noise=None if batch.noise is None else batch.noise[own],
    )


def with_noise(batch: TaskBatch, seed: int = 0) -> TaskBatch:
    generator = torch.Generator().manual_seed(seed)
    return replace(batch, noise=torch.rand(batch.z_context.shape, generator=generator) + 0.05)


def test_untrained_hybrid_is_the_mean_of_its_base():
    batch = make_tasks()
    mean, std = untrained()(batch)
    base_mean, base_std = batch.target_moments[..., 0], batch.target_moments[..., 1].exp()
    torch.testing.assert_close(mean, base_mean.mean(dim=1), rtol=1e-4, atol=1e-5)
    second_moment = (base_std.square() + base_mean.square()).mean(dim=1)
    torch.testing.assert_close(std, (second_moment - mean.square()).sqrt(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["off-grid", "on-grid-1d", "on-grid-2d"])
def test_untrained_forms_without_base_are_standard_normal(form):
    mean, std = untrained(form)(make_tasks())
    torch.testing.assert_close(mean, torch.zeros(17))
    torch.testing.assert_close(std, torch.ones(17))


@torch.no_grad()
@forms
def test_ragged_batch_equals_single_tasks(form):
    model, batch = make_model(form), make_tasks()
    mean, std = model(batch)
    single = [model(select(batch, b)) for b in range(3)]
    torch.testing.assert_close(mean, torch.cat([m for m, _ in single]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std, torch.cat([s for _, s in single]), rtol=1e-4, atol=1e-4)


@forms
@given(order=st.permutations(range(6)), keep=st.sets(st.integers(0, 9), min_size=1))
@settings(max_examples=10)
@torch.no_grad()
def test_context_order_does_not_matter_and_targets_do_not_interact(form, order, keep):
    model, batch = make_model(form), make_tasks()
    mean, std = model(select(batch, 0))
    again = model(select(batch, 0, torch.tensor(order), torch.tensor(sorted(keep))))
    torch.testing.assert_close(again[0], mean[sorted(keep)], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again[1], std[sorted(keep)], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@forms
def test_scores_of_the_context_matter_and_those_of_the_targets_cannot(form):
    model, batch = make_model(form), make_tasks()
    mean, _ = model(batch)
    batch.z_target = torch.full_like(batch.z_target, math.nan)
    torch.testing.assert_close(model(batch)[0], mean)
    batch.z_context = -batch.z_context
    assert not torch.allclose(model(batch)[0], mean)


@forms
def test_every_parameter_learns(form):
    model, batch = make_model(form), make_tasks()
    mean, std = model(batch)
    (((batch.z_target - mean) / std).square() + std.log()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@makers
def test_no_tensor_is_made_on_another_device(make):
    # An operation on tensors of the CPU and of the meta device raises.
    model, batch = make().to("meta"), make_tasks().to("meta")
    mean, std = model(batch, generator=torch.Generator())
    assert mean.is_meta
    assert std.is_meta
    assert mean.shape == std.shape == (17,)
    (((batch.z_target - mean) / std).square() + std.log()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.is_meta, name
    if model.latent_channels:
        assert all(value.is_meta for value in model.latent(batch.with_targets_as_context()))


def run_on(make, device: str, backend: str) -> tuple[list[torch.Tensor], set[str]]:
    """The prediction and every gradient, on the CPU; and the back ends that ran."""
    model, batch = make().to(device), make_tasks().to(device)
    with ops.backend(backend), ops.used_backends() as used:
        mean, std = model(batch, generator=torch.Generator().manual_seed(0))
        (((batch.z_target - mean) / std).square() + std.log()).mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return [value.detach().cpu() for value in (mean, std, *gradients)], used


def same_as_the_reference(make, device: str, backend: str) -> set[str]:
    found, used = run_on(make, device, backend)
    expected, own = run_on(make, "cpu", "reference")
    assert own == {"reference"}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    return used


@makers
def test_each_device_runs_its_own_kernels(make, device):
    used = same_as_the_reference(make, device, "auto")
    assert used == {"reference" if device == "cpu" and not cpu.is_available() else device}


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the kernels are compiled")
@pytest.mark.parametrize("make", [MAKERS["hybrid"], MAKERS["latent"]], ids=["off the grid", "on the grid"])
def test_interpreted_triton_kernels_give_the_same_process(make):
    pytest.importorskip("triton")
    assert same_as_the_reference(make, "cpu", "cuda") == {"cuda"}


@torch.no_grad()
@pytest.mark.parametrize("grid_dim", [1, 2])
def test_latent_variables(grid_dim):
    model, batch = make_model("on-grid-1d", grid_dim=grid_dim, latent_channels=2), make_tasks()
    assert model.latent_channels == 2
    prior = model.latent(batch)
    assert prior[0].shape == prior[1].shape == (3, 2, *[64] * grid_dim)

    def sample(seed, latent=None):
        return model(batch, latent, torch.Generator().manual_seed(seed))[0]

    torch.testing.assert_close(sample(0), sample(0, prior))
    assert not torch.allclose(sample(0), sample(1))
    # The posterior knows the targets.
    posterior = model.latent(batch.with_targets_as_context())
    assert posterior[0].shape == prior[0].shape
    assert not torch.allclose(posterior[0], prior[0])


@forms
def test_deterministic_processes_have_no_latent_variables(form):
    model = untrained(form)
    assert model.latent_channels == 0
    with pytest.raises(ValueError, match="has no latent variables"):
        model.latent(make_tasks())


def test_what_was_learned_gives_way_to_many_labels():
    sizes = (3, FREE_CONTEXT, 4 * FREE_CONTEXT)
    tasks, model = make_tasks(sizes, (5, 5, 5)), make_model()
    assert freedom(tasks).tolist() == pytest.approx([1.0, 1.0, 0.25])
    with torch.no_grad():
        # As far as the bounds allow.
        torch.nn.init.normal_(model.weigh[-1].weight, std=1e4)
        torch.nn.init.constant_(model.head.bias, 1e4)
        weights, (mean, std) = model.weights(tasks), model(tasks)
    ratio = weights.max(dim=1).values / weights.min(dim=1).values
    assert bool((ratio <= MAX_RATIO ** torch.tensor([1.0, 1.0, 0.25]) + 1e-4).all())
    mixture = (weights.repeat_interleave(5, dim=0) * tasks.target_moments[..., 0]).sum(dim=1)
    stretch = math.exp(3.0)  # The bias stretches too, as far as it may.
    shift = ((mean - mixture) / (std / stretch)).view(3, 5).mean(dim=1)
    torch.testing.assert_close(shift, MAX_SHIFT * torch.tensor([1.0, 1.0, 0.25]), atol=1e-4, rtol=1e-4)


def test_bounds_can_be_chosen():
    tasks = make_tasks((3,), (5,))
    model = untrained(max_shift=2.0, max_ratio=1.0)
    with torch.no_grad():
        torch.nn.init.normal_(model.weigh[-1].weight, std=1e4)
        model.head.bias.copy_(torch.tensor([1e4, 0.0]))
        mean, std = model(tasks)
        torch.testing.assert_close(model.weights(tasks), torch.full((1, 2), 0.5))
    torch.testing.assert_close(mean, tasks.target_moments[..., 0].mean(dim=1) + 2.0 * std)
    assert ConvNP(3, **model.config).max_shift == 2.0


@pytest.mark.parametrize("bound", [{"max_ratio": 0.5}, {"max_shift": -0.1}, {"max_shift": math.nan}])
def test_impossible_bounds_are_refused(bound):
    with pytest.raises(ValueError, match="max_ratio must be at least 1 and max_shift at least 0"):
        ConvNP(3, **bound)


def test_evidence_is_what_the_errors_say():
    batch = make_tasks((2, 1), (1, 1))
    batch.z_context = torch.tensor([1.0, -1.0, 100.0])
    batch.context_moments = torch.zeros(3, 2, 2)
    batch.context_moments[:, 1, 1] = math.log(2.0)
    size, error, density = evidence(batch).split([1, 2, 2], dim=1)
    torch.testing.assert_close(size.flatten(), torch.tensor([2.0, 1.0]).log1p())
    torch.testing.assert_close(error, torch.tensor([[1.001] * 2, [10000.001] * 2]).log())
    # Clamped, so that one outlier is not everything.
    expected = torch.tensor([[-0.5, -0.125 - math.log(2.0)], [-10.0, -10.0]])
    torch.testing.assert_close(density, expected)


@forms
def test_config_rebuilds_the_process(form):
    model = make_model(form, num_layers=1)
    again = ConvNP(3, **model.config)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(make_tasks())[0], model(make_tasks())[0])
    assert repr(again) == repr(model)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"channels": 10, "heads": 4}, "channels=10 must be divisible by heads=4"),
        ({"form": "grid"}, "form must be one of hybrid, off-grid, on-grid, got 'grid'"),
        ({"latent_channels": 2}, "needs form='on-grid', got 'hybrid'"),
        ({"form": "on-grid", "grid_dim": 3}, "grid_dim=3 must be 1 or 2"),
    ],
)
def test_invalid_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ConvNP(3, **kwargs)


def test_reset_parameters_forgets_the_correction():
    model, batch = make_model(), make_tasks()
    torch.nn.init.zeros_(model.embed_evidence.weight)
    model.reset_parameters()
    torch.testing.assert_close(model(batch)[0], untrained()(batch)[0])
    assert model.embed_evidence.weight.any()
    assert "OffGridSetConv(16, heads=4, dim=2)" in repr(model)


def widened(model: ConvNP) -> ConvNP:
    """The same process with a channel of the noise, whose weights are random."""
    wide = ConvNP(3, **model.config | {"noise_channel": True}).eval()
    state = {name: torch.randn_like(value) for name, value in wide.state_dict().items()}
    for name, value in model.state_dict().items():
        state[name][tuple(slice(size) for size in value.shape)] = value
    wide.load_state_dict(state)
    return wide


@forms
@torch.no_grad()
def test_absent_noise_is_no_noise_and_the_process_without_the_channel(form):
    model, batch = make_model(form), make_tasks()
    wide = widened(model)
    assert wide.noise_channel
    assert not model.noise_channel
    for quiet in (batch, replace(batch, noise=torch.zeros_like(batch.z_context))):
        torch.testing.assert_close(wide(quiet), model(quiet), rtol=1e-4, atol=1e-5)
    # A process without the channel does not see the noise.
    torch.testing.assert_close(model(with_noise(batch)), model(batch))
    assert not torch.allclose(wide(with_noise(batch))[0], wide(batch)[0], atol=1e-4)


@forms
@given(order=st.permutations(range(6)))
@settings(max_examples=5)
@torch.no_grad()
def test_noise_follows_its_label_in_any_order(form, order):
    model, batch = make_model(form, noise_channel=True), with_noise(make_tasks())
    alone, again = model(select(batch, 0)), model(select(batch, 0, torch.tensor(order)))
    torch.testing.assert_close(again, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(batch)[0][:10], alone[0], rtol=1e-4, atol=1e-4)


@forms
def test_gradients_reach_the_noise_and_its_weights(form):
    model, batch = make_model(form, noise_channel=True), with_noise(make_tasks())
    noise = batch.noise.requires_grad_()
    mean, std = model(batch)
    (((batch.z_target - mean) / std).square() + std.log()).sum().backward()
    assert noise.grad.isfinite().all()
    assert (noise.grad != 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if name in ("embed_context.weight", "embed_evidence.weight", "weigh.0.weight"):
            assert (parameter.grad != 0).any(dim=0).all(), name


def test_gradients_are_finite_without_noise():
    model, batch = make_model(noise_channel=True), make_tasks()
    batch = replace(batch, noise=torch.zeros_like(batch.z_context).requires_grad_())
    model(batch)[0].sum().backward()
    assert batch.noise.grad.isfinite().all()


def test_channels_grow_with_the_noise():
    batch = replace(make_tasks((4,), (1,)), noise=torch.tensor([0.0, NOISE_UNIT, 3 * NOISE_UNIT, 1e6]))
    level, share = noise_channels(batch)
    torch.testing.assert_close(share, torch.tensor([0.0, 0.5, 0.9, 1.0]))
    torch.testing.assert_close(level[:3], torch.tensor([0.0, 2.0, 10.0]).clamp_min(1.0).log())
    assert bool(level.isfinite().all())


def test_errors_of_noisy_scores_count_less():
    batch = make_tasks((2, 2), (1, 1))
    batch.z_context = torch.tensor([1.0, 3.0, 1.0, 3.0])
    batch.context_moments = torch.zeros(4, 2, 2)
    plain, weighted = evidence(batch), evidence(batch, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(weighted[0], plain[0])
    torch.testing.assert_close(weighted[:, 0], plain[:, 0])
    torch.testing.assert_close(weighted[1, 1:3], torch.tensor([1.001] * 2).log())
    assert bool(evidence(batch, torch.zeros(4)).isfinite().all())


@torch.no_grad()
def test_config_rebuilds_the_process_with_its_channel():
    model, batch = make_noisy(), with_noise(make_tasks())
    again = ConvNP(3, **model.config)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(batch), model(batch))
    assert "noise_channel" not in make_model().config
