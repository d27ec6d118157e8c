from __future__ import annotations

import pytest
import torch

from pyg_nas_np.nn import Task, TaskBatch
from pyg_nas_np.ops import validation
from pyg_nas_np.utils import InvalidLabelsError


def constant_task(n: int, m: int, scored: bool = True) -> Task:
    """Every entry is the size of the set it belongs to."""
    return Task(
        torch.full((n, 2), float(n)),
        torch.full((n,), float(n)),
        torch.full((m, 2), float(m)),
        torch.full((n, 1, 2), float(n)),
        torch.full((m, 1, 2), float(m)),
        torch.full((m,), float(m)) if scored else None,
    )


def test_tasks_are_concatenated_without_padding():
    batch = TaskBatch.from_tasks([constant_task(3, 5), constant_task(1, 2)])
    assert len(batch) == 2
    assert batch.ptr_context.tolist() == [0, 3, 4]
    assert batch.ptr_target.tolist() == [0, 5, 7]
    assert batch.x_context.tolist() == [[3, 3]] * 3 + [[1, 1]]
    assert batch.context_moments[:, 0, 0].tolist() == [3, 3, 3, 1]
    assert batch.target_moments.shape == (7, 1, 2)
    assert batch.z_target.tolist() == [5] * 5 + [2] * 2


@pytest.mark.parametrize("scored", [True, False])
def test_every_tensor_moves_and_none_stays(scored):
    task = constant_task(3, 5, scored)._replace(noise=torch.ones(3) if scored else None)
    batch = TaskBatch.from_tasks([task, task])
    for given, moved in ((task._asdict(), task.to("meta")._asdict()), (vars(batch), vars(batch.to("meta")))):
        assert given.keys() == moved.keys()
        for name, value in given.items():
            assert (moved[name] is None) == (value is None), name
            assert value is None or (moved[name].is_meta and moved[name].shape == value.shape), name
    assert not batch.x_context.is_meta
    assert TaskBatch.from_tasks([task.to("meta")]).ptr_target.is_meta


def test_rows_of_the_context_are_summed_within_tasks():
    batch = TaskBatch.from_tasks([constant_task(3, 1), constant_task(0, 4), constant_task(1, 0)])
    assert batch.context_sums(torch.tensor([[1.0], [2.0], [4.0], [8.0]])).tolist() == [[7.0], [0.0], [8.0]]


def test_rows_of_tasks_are_repeated_for_their_architectures():
    batch = TaskBatch.from_tasks([constant_task(3, 1), constant_task(0, 4), constant_task(1, 0)])
    assert batch.per_context(torch.tensor([7, 8, 9])).tolist() == [7, 7, 7, 9]
    assert batch.per_target(torch.tensor([[7.0], [8.0], [9.0]])).flatten().tolist() == [7, 8, 8, 8, 8]


def test_targets_may_be_unknown():
    batch = TaskBatch.from_tasks([constant_task(1, 3, scored=False)])
    assert batch.z_target is None
    with pytest.raises(ValueError, match="z_target is None"):
        batch.with_targets_as_context()


def test_targets_join_the_context_of_their_own_task():
    batch = TaskBatch.from_tasks([constant_task(3, 5), constant_task(1, 2)])
    joined = batch.with_targets_as_context()
    assert joined.ptr_context.tolist() == [0, 8, 11]
    expected = [3] * 3 + [5] * 5 + [1] + [2] * 2
    assert joined.z_context.tolist() == expected
    assert joined.x_context[:, 1].tolist() == expected
    assert joined.context_moments[:, 0, 1].tolist() == expected
    assert torch.equal(joined.x_target, batch.x_target)
    assert torch.equal(joined.ptr_target, batch.ptr_target)
    assert batch.z_context.numel() == 4


def test_noise_is_absent_or_that_of_every_task():
    quiet, noisy = constant_task(3, 5), constant_task(2, 1)._replace(noise=torch.tensor([0.5, 0.1]))
    assert TaskBatch.from_tasks([quiet, quiet]).noise is None
    batch = TaskBatch.from_tasks([quiet, noisy])
    torch.testing.assert_close(batch.noise, torch.tensor([0.0, 0.0, 0.0, 0.5, 0.1]))
    # Scores of targets have no known noise.
    joined = batch.with_targets_as_context()
    torch.testing.assert_close(joined.noise, torch.tensor([0.0] * 8 + [0.5, 0.1, 0.0]))
    assert TaskBatch.from_tasks([quiet]).with_targets_as_context().noise is None


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ([0.1, -0.5, 0.0], "finite and not negative, got -0.5 at position 1; give 0 where none is known"),
        ([0.1, 0.0, float("nan")], "got nan at position 2"),
        ([float("inf"), 0.0, 0.0], "got inf at position 0"),
        ([0.1, 0.1], r"noise has shape \[2\]; one standard deviation for each of the 3 scores"),
        ([[0.1, 0.1, 0.1]], r"noise has shape \[1, 3\]"),
    ],
)
def test_what_is_no_noise_is_refused(noise, message):
    with pytest.raises(InvalidLabelsError, match=message):
        TaskBatch.from_tasks([constant_task(3, 5)._replace(noise=torch.tensor(noise))])


def test_values_are_not_read_where_checks_are_off():
    task = constant_task(1, 1)._replace(noise=torch.tensor([-1.0]))
    with validation(False):
        assert len(TaskBatch.from_tasks([task])) == 1
