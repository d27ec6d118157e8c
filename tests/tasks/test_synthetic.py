from __future__ import annotations

import itertools

import pytest
import torch

from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.tasks import SyntheticTasks, additive_gp_prior

TABLE = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
GROUPS = {"first": [0, 1], "second": [2, 3, 4]}


def no_moments(x_context, z_context, x_target):
    return torch.zeros(len(x_context), 1, 2), torch.zeros(len(x_target), 1, 2)


def stream(**kwargs) -> SyntheticTasks:
    sizes = {"num_context": (4, 60), "num_target": 20, "batch_size": 3}
    return SyntheticTasks(TABLE, additive_gp_prior(GROUPS), rank_gauss, no_moments, **(sizes | kwargs))


def test_prior_has_unit_signal_and_its_own_smoothness():
    prior = additive_gp_prior(GROUPS)
    x = torch.cat([torch.zeros(1, 5), torch.full((1, 5), 1e-3), torch.full((1, 5), 50.0)])
    draws = torch.stack([prior(x, torch.Generator().manual_seed(seed)) for seed in range(3000)])
    variance = draws.var(dim=0)
    # Signal 1 plus the mean of the log-normal noise, .08 exp(1/2).
    assert variance.tolist() == pytest.approx([1 + 0.08 * 1.6487] * 3, rel=0.15)
    correlation = torch.corrcoef(draws.t())
    assert correlation[0, 1] > 0.8
    assert abs(correlation[0, 2]) < 0.1


def test_stream_is_seeded_and_random_access():
    first = list(itertools.islice(stream(seed=1), 3))
    assert torch.equal(first[2].z_target, stream(seed=1).batch(2).z_target)
    assert torch.equal(first[2].z_target, next(iter(stream(seed=1, start=2))).z_target)
    assert not torch.equal(first[0].x_target, stream(seed=2).batch(0).x_target)


def test_tasks_are_ragged_disjoint_and_standardised():
    sizes = []
    for batch in itertools.islice(stream(), 20):
        context, target = batch.ptr_context.tolist(), batch.ptr_target.tolist()
        for b in range(3):
            x_context, x_target = (
                batch.x_context[context[b] : context[b + 1]],
                batch.x_target[target[b] : target[b + 1]],
            )
            both = torch.cat([x_context, x_target])
            assert both.unique(dim=0).size(0) == both.size(0)
            assert x_target.size(0) == 20
            assert batch.z_context[context[b] : context[b + 1]].mean().abs() < 1e-5
            sizes.append(x_context.size(0))
    assert min(sizes) >= 4
    assert max(sizes) <= 60
    # Log-uniform: half of the contexts are smaller than the geometric mean.
    assert 0.3 < sum(n < 15.5 for n in sizes) / len(sizes) < 0.7


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_context": (1, 5)}, "num_context"),
        ({"num_context": (9, 5)}, "num_context"),
        ({"num_target": 0}, "num_target=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_context": (4, 390)}, "up to 410 architectures, the table has 400"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        stream(**sizes)
