r"""A ragged batch of context-target tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class TaskBatch:
    r"""Context and target sets of ``B`` tasks, concatenated; nothing is padded.

    Shapes:
        - **x_context:** ``[N, F]``, features of the labelled architectures.
        - **z_context:** ``[N]``, their scores.
        - **x_target:** ``[M, F]``, features of the architectures to predict.
        - **ptr_context**, **ptr_target:** ``[B + 1]`` int64, where each task starts.
        - **z_target:** ``[M]`` scores to predict, or :obj:`None`.
    """

    x_context: Tensor
    z_context: Tensor
    x_target: Tensor
    ptr_context: Tensor
    ptr_target: Tensor
    z_target: Tensor | None = None

    def __len__(self) -> int:
        return self.ptr_context.numel() - 1

    @classmethod
    def from_tasks(cls, tasks: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> TaskBatch:
        r"""Concatenates tasks ``(x_context, z_context, x_target, z_target)``.

        Example:
            >>> task = (torch.zeros(3, 2), torch.zeros(3), torch.zeros(5, 2), torch.zeros(5))
            >>> TaskBatch.from_tasks([task, task]).ptr_target
            tensor([ 0,  5, 10])
        """
        x_context, z_context, x_target, z_target = (torch.cat(parts) for parts in zip(*tasks, strict=True))
        context = torch.tensor([0, *(t[0].size(0) for t in tasks)]).cumsum(0)
        target = torch.tensor([0, *(t[2].size(0) for t in tasks)]).cumsum(0)
        return cls(x_context, z_context, x_target, context, target, z_target)
