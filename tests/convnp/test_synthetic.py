from __future__ import annotations

import itertools

import pytest
import torch

from pyg_nas_np.convnp import AdditiveGPPrior, SyntheticTasks, synthetic
from pyg_nas_np.convnp.synthetic import score_deviations
from pyg_nas_np.predictors.labels import robust_scores

TABLE = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
PRIOR = AdditiveGPPrior(TABLE, {"first": [0, 1], "second": [2, 3, 4]})


def sizes_as_moments(x_context, z_context, x_target, variances=None):
    """Moments that tell what the base predictors were given."""
    assert x_context.size(1) == x_target.size(1) == 5
    context, target = torch.zeros(len(x_context), 1, 2), torch.zeros(len(x_target), 1, 2)
    context[:, 0, 0], target[:, 0, 0] = z_context, x_target[:, 4]
    context[:, 0, 1] = 0.0 if variances is None else variances
    return context, target


def stream(table=TABLE, prior=PRIOR, **kwargs) -> SyntheticTasks:
    sizes = {"num_context": (4, 60), "num_target": 20, "batch_size": 3}
    return SyntheticTasks(table, [0, 2], prior, robust_scores, sizes_as_moments, **(sizes | kwargs))


def test_stream_is_seeded_and_random_access():
    first = list(itertools.islice(stream(seed=1), 3))
    assert torch.equal(first[2].z_target, stream(seed=1).batch(2).z_target)
    assert torch.equal(first[2].z_target, next(iter(stream(seed=1, start=2))).z_target)
    assert not torch.equal(first[0].x_target, stream(seed=2).batch(0).x_target)
    # Seed and number are mixed: streams of neighbouring seeds are not shifted copies.
    assert not torch.equal(stream(seed=1).batch(2).x_target, stream(seed=2).batch(1).x_target)


def test_tasks_are_ragged_disjoint_and_standardised():
    sizes = []
    for batch in itertools.islice(stream(), 20):
        context, target = batch.ptr_context.tolist(), batch.ptr_target.tolist()
        for b in range(3):
            own, other = slice(context[b], context[b + 1]), slice(target[b], target[b + 1])
            both = torch.cat([batch.x_context[own], batch.x_target[other]])
            assert both.unique(dim=0).size(0) == both.size(0)
            assert batch.x_target[other].size(0) == 20
            assert batch.z_context[own].mean().abs() < 1e-5
            assert float(batch.z_context[own].std(unbiased=False)) == pytest.approx(1, abs=1e-4)
            sizes.append(own.stop - own.start)
    assert min(sizes) >= 4
    assert max(sizes) <= 60
    # Log-uniform: half of the contexts are smaller than the geometric mean.
    assert 0.3 < sum(n < 15.5 for n in sizes) / len(sizes) < 0.7


def test_process_sees_its_columns_and_the_base_all():
    batch = stream().batch(0)
    assert batch.x_context.size(1) == batch.x_target.size(1) == 2
    # The base predictors get the scores of the context, and rows of the same architectures.
    assert torch.equal(batch.context_moments[:, 0, 0], batch.z_context)
    for seen, last in zip(batch.x_target, batch.target_moments[:, 0, 0], strict=True):
        row = (TABLE[:, [0, 2]] == seen).all(dim=1).nonzero()
        assert float(TABLE[row, 4]) == float(last)


def test_scores_of_the_context_know_nothing_of_the_targets():
    """A function of which only the context is known has the same context scores, whatever the targets are."""

    def prior_of(value):
        def draw(rows, generator):
            values = torch.rand(rows.numel(), generator=generator, dtype=torch.float64)
            values[-20:] += value
            return values

        return draw

    low, high = (stream(prior=prior_of(value)).batch(0) for value in (0.0, 100.0))
    assert torch.equal(low.z_context, high.z_context)
    assert float(high.z_target.mean()) > float(low.z_target.mean())


def test_workers_draw_streams_of_their_own():
    loader = torch.utils.data.DataLoader(stream(), batch_size=None, num_workers=2)
    found = [batch.z_target for batch in itertools.islice(loader, 4)]
    for number, z in enumerate(found):
        torch.testing.assert_close(z, stream().batch(number).z_target)


def test_ranks_draw_streams_of_their_own(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    found = [batch.z_target for batch in itertools.islice(stream(start=3), 2)]
    assert torch.equal(found[0], stream().batch(4).z_target)
    assert torch.equal(found[1], stream().batch(6).z_target)


def test_a_task_may_take_the_whole_table():
    table = TABLE[:30]
    prior = AdditiveGPPrior(table, {"all": [0, 1, 2, 3, 4]})
    tasks = stream(table, prior, num_context=(10, 10), num_target=20, batch_size=8)
    batch = tasks.batch(0)
    assert batch.ptr_context.diff().tolist() == [10] * 8
    assert batch.ptr_target.diff().tolist() == [20] * 8
    both = torch.cat([batch.x_context[:10], batch.x_target[:20]])
    assert both.unique(dim=0).size(0) == 30


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_context": (1, 5)}, "num_context"),
        ({"num_context": (9, 5)}, "num_context"),
        ({"num_target": 0}, "num_target=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"noise_share": -0.1}, "noise_share must lie between 0 and 1, got -0.1"),
        ({"noise_share": float("nan")}, "got nan"),
        ({"num_context": (4, 390)}, "up to 410 architectures, the table has 400"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        stream(**sizes)


def test_a_share_of_the_tasks_has_known_noise():
    assert stream().batch(0).noise is None
    batches = list(itertools.islice(stream(noise_share=0.5), 20))
    assert torch.equal(batches[3].z_context, stream(noise_share=0.5).batch(3).z_context)
    noisy = 0
    for batch in batches:
        noise = torch.zeros_like(batch.z_context) if batch.noise is None else batch.noise
        # The base predictors get its square.
        torch.testing.assert_close(batch.context_moments[:, 0, 1], noise.square())
        assert noise.isfinite().all()
        noisy += int((batch.context_sums(noise.unsqueeze(1)) > 0).sum())
    assert 15 < noisy < 45
    torch.testing.assert_close(stream(noise_share=0.0).batch(1).z_context, stream().batch(1).z_context)


def test_noise_is_in_the_context_and_of_the_size_that_is_told(monkeypatch):
    monkeypatch.setattr(synthetic, "known_noise", lambda count, generator: torch.full((count,), 2.0).double())
    batches = [stream(noise_share=1.0, num_context=(100, 100)).batch(number) for number in range(5)]
    for batch in batches:
        # The function adds a quarter of its own to the variance.
        assert 0.5 < float(batch.noise.mean()) < 1.2
        both = torch.cat([batch.x_context, batch.x_target])
        assert both.isfinite().all()


def test_scores_of_targets_are_those_without_the_noise(monkeypatch):
    quiet = {"num_context": (10, 10), "noise_share": 1.0}
    batches = []
    for size in (1e-3, 2.0):
        monkeypatch.setattr(synthetic, "known_noise", lambda n, _, size=size: torch.full((n,), size).double())
        batches.append(stream(**quiet, batch_size=1).batch(0))
    assert torch.equal(batches[0].z_target, batches[1].z_target)
    assert not torch.allclose(batches[0].z_context, batches[1].z_context, atol=1e-2)


def test_deviations_follow_the_slope_of_the_scores():
    labels = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    found = score_deviations(labels, labels**3, torch.full_like(labels, 1e-3))
    torch.testing.assert_close(found[1:-1], 3e-3 * labels[1:-1] ** 2, rtol=0.1, atol=1e-5)
    assert bool((score_deviations(labels, labels, torch.zeros_like(labels)) == 0).all())
    # Equal labels have no slope.
    assert score_deviations(torch.ones(3).double(), torch.zeros(3).double(), torch.ones(3)).tolist() == [0.0] * 3
