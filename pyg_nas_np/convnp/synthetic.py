r"""Synthesised tasks: functions over a search space drawn from a prior, split into context and target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from pyg_nas_np.convnp.priors import Prior, known_noise
from pyg_nas_np.nn.task_batch import Task, TaskBatch
from pyg_nas_np.utils.defaults import fixed_defaults


class Moments(Protocol):
    r"""Base predictions of a task."""

    def __call__(
        self, x_context: Tensor, z_context: Tensor, x_target: Tensor, variances: Tensor | None = None, /
    ) -> tuple[Tensor, Tensor]:
        r"""Returns ``[n, K, 2]`` and ``[m, K, 2]``, given the known variances of the scores, ``[n]``, if some are."""


class SyntheticTasks(IterableDataset[TaskBatch]):
    r"""An endless, seeded stream of task batches over a table of architectures.

    Args:
        table: Descriptors of the architectures in the tasks, ``[A, F]``.
        inputs: Its columns that the process sees; the base predictors see all.
        prior: Draws functions.
        standardize: Turns values into scores; it sees the context alone, and context and target together.
        moments: Computes the base predictions, input channels of the process.
        num_context: Smallest and largest context; drawn log-uniformly.
        num_target: Targets per task.
        batch_size: Tasks per batch.
        noise_share: Share of the tasks whose context has noise of known sizes, drawn by
            :func:`~pyg_nas_np.convnp.priors.known_noise`.
        seed: Seed of the stream; workers and ranks get separate streams.
        start: Batches to skip at the beginning, so that a resumed training sees new ones.

    Raises:
        ValueError: If a size is not positive, the table is too small for a task, or the share is not one.
    """

    def __init__(
        self,
        table: Tensor,
        inputs: Sequence[int],
        prior: Prior,
        standardize: Callable[[Tensor], Tensor],
        moments: Moments,
        *,
        num_context: tuple[int, int] = (4, 200),
        num_target: int = 128,
        batch_size: int = 8,
        noise_share: float = 0.0,
        seed: int = 0,
        start: int = 0,
    ) -> None:
        low, high = num_context
        if not 1 < low <= high or num_target < 1 or batch_size < 1:
            raise ValueError(
                f"num_context={num_context} must be at least 2 and increasing, num_target={num_target} and "
                f"batch_size={batch_size} positive"
            )
        if high + num_target > table.size(0):
            raise ValueError(
                f"a task needs up to {high + num_target} architectures, the table has {table.size(0)}; "
                f"lower num_context or num_target"
            )
        if not 0.0 <= noise_share <= 1.0:
            raise ValueError(f"noise_share must lie between 0 and 1, got {noise_share}")
        self.table, self.inputs = table, torch.tensor(inputs)
        self.prior, self.standardize, self.moments = prior, standardize, moments
        self.num_context, self.num_target, self.batch_size = num_context, num_target, batch_size
        self.noise_share, self.seed, self.start = noise_share, seed, start

    @fixed_defaults
    def batch(self, number: int) -> TaskBatch:
        r"""Returns batch :obj:`number` of the stream, independently of those before it."""
        # PyTorch's generator uses only 32 bits of a seed, so the two numbers must be mixed.
        (mixed,) = np.random.SeedSequence([self.seed, number]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed))
        return TaskBatch.from_tasks([self._task(generator) for _ in range(self.batch_size)])

    def _task(self, generator: torch.Generator) -> Task:
        low, high = (math.log(n) for n in self.num_context)
        n = round(math.exp(low + (high - low) * float(torch.rand((), generator=generator))))
        total = n + self.num_target
        # Drawing with replacement and dropping the few duplicates is cheaper than a permutation of a large space.
        rows = torch.randint(self.table.size(0), (2 * total,), generator=generator)
        rows = torch.tensor(list(dict.fromkeys(rows.tolist()))[:total])
        if rows.numel() < total:
            rows = torch.randperm(self.table.size(0), generator=generator)[:total]
        x = self.table[rows]
        y = self.prior(rows, generator)
        z_target = self.standardize(y)[n:].float()
        seen = x[:, self.inputs]
        # Without noise nothing more is drawn, so that a stream is that of earlier versions.
        if not self.noise_share or float(torch.rand((), generator=generator)) >= self.noise_share:
            z_context = self.standardize(y[:n]).float()
            return Task(seen[:n], z_context, seen[n:], *self.moments(x[:n], z_context, x[n:]), z_target)
        deviations = known_noise(n, generator) * y.std()
        labels = y[:n] + deviations * torch.randn(n, generator=generator, dtype=y.dtype)
        scores = self.standardize(labels)
        noise = score_deviations(labels, scores, deviations).float()
        moments = self.moments(x[:n], scores.float(), x[n:], noise.square())
        return Task(seen[:n], scores.float(), seen[n:], *moments, z_target, noise)

    def __iter__(self) -> Iterator[TaskBatch]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
            first, step = first + step * rank, step * world
        number = self.start + first
        while True:
            yield self.batch(number)
            number += step


def score_deviations(labels: Tensor, scores: Tensor, deviations: Tensor) -> Tensor:
    r"""Maps standard deviations of labels to those of their scores, by the mean slope over label ± deviation.

    Args:
        labels: Labels, ``[n]`` float64.
        scores: Their scores, increasing with the labels, ``[n]``.
        deviations: Standard deviations of the labels, ``[n]``.

    Example:
        >>> labels = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        >>> score_deviations(labels, 10.0 * labels, torch.tensor([0.0, 0.5, 4.0])).tolist()
        [0.0, 5.0, 40.0]
    """
    known, order = labels.sort()
    first, last = float(known[0]), float(known[-1])
    if first == last:
        return torch.zeros_like(labels)
    low, high = ((labels + sign * deviations).clamp(first, last) for sign in (-1.0, 1.0))
    rise = torch.from_numpy(np.interp(high, known, scores[order]) - np.interp(low, known, scores[order]))
    slope: Tensor = rise / (high - low).clamp_min(1e-9 * (last - first))
    return deviations * slope
