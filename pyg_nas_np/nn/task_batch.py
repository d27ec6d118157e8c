r"""A ragged batch of context-target tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.ops.backends import checks_values
from pyg_nas_np.utils import InvalidLabelsError


class Task(NamedTuple):
    r"""A single context-target task; see :class:`TaskBatch`."""

    x_context: Tensor
    z_context: Tensor
    x_target: Tensor
    context_moments: Tensor
    target_moments: Tensor
    z_target: Tensor | None = None
    noise: Tensor | None = None

    def to(self, device: torch.device | str) -> Task:
        r"""Returns the task on a device."""
        return Task._make(value if value is None else value.to(device) for value in self)


@dataclass
class TaskBatch:
    r"""Context and target sets of ``B`` tasks, concatenated; nothing is padded.

    Shapes:
        - **x_context:** ``[N, F]``, features of the labelled architectures.
        - **z_context:** ``[N]``, their scores.
        - **x_target:** ``[M, F]``, features of the architectures to predict.
        - **context_moments:** ``[N, K, 2]``, leave-one-out means and log standard deviations of ``K`` base predictors.
        - **target_moments:** ``[M, K, 2]``, their predictions of the targets.
        - **ptr_context**, **ptr_target:** ``[B + 1]`` int64, where each task starts.
        - **z_target:** ``[M]`` scores to predict, or :obj:`None`.
        - **noise:** ``[N]``, known standard deviations of the scores of the context, or :obj:`None` where none is
          known, which is the same as zeros. Only a process with a channel for it sees it.

    Raises:
        InvalidLabelsError: If there is not one standard deviation a score, or one is negative, NaN or infinite.
    """

    x_context: Tensor
    z_context: Tensor
    x_target: Tensor
    context_moments: Tensor
    target_moments: Tensor
    ptr_context: Tensor
    ptr_target: Tensor
    z_target: Tensor | None = None
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        if self.noise is not None:
            _check_noise(self.noise, self.z_context)

    def __len__(self) -> int:
        return self.ptr_context.numel() - 1

    def to(self, device: torch.device | str) -> TaskBatch:
        r"""Returns the tasks on a device.

        Example:
            >>> task = Task(*(torch.zeros(2, 3), torch.zeros(2), torch.zeros(4, 3)), *2 * [torch.zeros(2, 0, 2)])
            >>> TaskBatch.from_tasks([task]).to("meta").ptr_target.device
            device(type='meta')
        """
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def per_context(self, values: Tensor) -> Tensor:
        r"""Repeats a row of each task, ``[B, ...]``, for each architecture of its context, ``[N, ...]``."""
        return _repeated(values, self.ptr_context, self.x_context.size(0))

    def per_target(self, values: Tensor) -> Tensor:
        r"""Repeats a row of each task, ``[B, ...]``, for each of its targets, ``[M, ...]``."""
        return _repeated(values, self.ptr_target, self.x_target.size(0))

    def context_sums(self, values: Tensor) -> Tensor:
        r"""Sums rows of the context, ``[N, C]``, within each task, ``[B, C]``."""
        owner = self.per_context(torch.arange(len(self), device=values.device))
        return values.new_zeros(len(self), values.size(1)).index_add(0, owner, values)

    def with_targets_as_context(self) -> TaskBatch:
        r"""Returns the tasks with all targets added to the context, the condition of the latent's posterior.

        Raises:
            ValueError: If the targets have no scores.
        """
        if self.z_target is None:
            raise ValueError("z_target is None; targets without scores cannot be context")
        tasks = torch.arange(len(self), device=self.ptr_context.device)
        owner = torch.cat([self.per_context(tasks), self.per_target(tasks)])
        order = owner.argsort(stable=True)
        return replace(
            self,
            x_context=torch.cat([self.x_context, self.x_target])[order],
            z_context=torch.cat([self.z_context, self.z_target])[order],
            context_moments=torch.cat([self.context_moments, self.target_moments])[order],
            noise=None
            if self.noise is None
            else torch.cat([self.noise, torch.zeros_like(self.z_target, dtype=self.noise.dtype)])[order],
            ptr_context=self.ptr_context + self.ptr_target,
        )

    @classmethod
    def from_tasks(cls, tasks: Sequence[Task]) -> TaskBatch:
        r"""Concatenates tasks; those without noise beside others with noise have noise 0.

        Example:
            >>> moments = torch.zeros(3, 1, 2), torch.zeros(5, 1, 2)
            >>> task = Task(torch.zeros(3, 2), torch.zeros(3), torch.zeros(5, 2), *moments)
            >>> TaskBatch.from_tasks([task, task]).ptr_target
            tensor([ 0,  5, 10])
        """
        device = tasks[0].x_context.device
        context = torch.tensor([0, *(task.x_context.size(0) for task in tasks)], device=device).cumsum(0)
        target = torch.tensor([0, *(task.x_target.size(0) for task in tasks)], device=device).cumsum(0)
        scores = [task.z_target for task in tasks if task.z_target is not None]
        return cls(
            torch.cat([task.x_context for task in tasks]),
            torch.cat([task.z_context for task in tasks]),
            torch.cat([task.x_target for task in tasks]),
            torch.cat([task.context_moments for task in tasks]),
            torch.cat([task.target_moments for task in tasks]),
            context,
            target,
            torch.cat(scores) if scores else None,
            _joint_noise(tasks),
        )


def _joint_noise(tasks: Sequence[Task]) -> Tensor | None:
    if all(task.noise is None for task in tasks):
        return None
    return torch.cat([torch.zeros_like(task.z_context) if task.noise is None else task.noise for task in tasks])


def _check_noise(noise: Tensor, scores: Tensor) -> None:
    if noise.shape != scores.shape:
        raise InvalidLabelsError(
            f"noise has shape {list(noise.shape)}; one standard deviation for each of the {scores.numel()} scores of "
            f"the context is needed, 0 where none is known"
        )
    # Checking values synchronises with the device, and is impossible inside a compiled graph.
    if not checks_values(noise.device):
        return
    bad = ~((noise >= 0) & noise.isfinite())
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InvalidLabelsError(
            f"noise must be standard deviations, finite and not negative, got {float(noise[row]):g} at position {row}; "
            f"give 0 where none is known"
        )


def _repeated(values: Tensor, ptr: Tensor, size: int) -> Tensor:
    # Without the size, the host would wait for the device to sum the counts.
    return values.repeat_interleave(ptr.diff(), dim=0, output_size=size)
