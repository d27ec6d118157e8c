r"""Synthesised tasks for a Lightning trainer; a separate module, because importing Lightning takes a second."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from pyg_nas_np.convnp.synthetic import SyntheticTasks
from pyg_nas_np.nn.task_batch import TaskBatch
from pyg_nas_np.utils import DataFileError, atomic_path, foreign_file
from pyg_nas_np.utils.files import read_bytes
from pyg_nas_np.utils.state_files import check_state, load_torch


class SyntheticTaskModule(lightning.LightningDataModule):
    r"""Draws a pool of task batches once and serves it endlessly, reshuffled at every pass.

    Tasks are reused because their base predictions cost far more than a training step. The batch of a step depends only
    on the step, the rank and the seed, so a resumed training sees the same batches as an uninterrupted one. A pickled
    module contains neither the stream nor the pool; the process that unpickles it reads the file.

    Args:
        tasks: The stream.
        num_batches: Size of the pool.
        num_workers: Processes that draw the pool; the pool does not depend on it.
        seed: Seed of the order.
        path: File that stores the pool. (default: none)
        progress: Whether to show a progress bar while drawing.

    Raises:
        DataFileError: From :meth:`setup`, if the file is corrupt or holds a pool of another size or of other tasks.
    """

    def __init__(
        self,
        tasks: SyntheticTasks,
        *,
        num_batches: int,
        num_workers: int = 0,
        seed: int = 0,
        path: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.tasks, self.num_batches, self.num_workers = tasks, num_batches, num_workers
        self.seed, self.progress = seed, progress
        self.path = None if path is None else Path(path)
        self.pool: Sequence[TaskBatch] = []

    def __getstate__(self) -> dict[str, Any]:
        # A pool has more tensors than a process may share, so other processes read the file.
        return {**self.__dict__, "tasks": None, "pool": []}

    def prepare_data(self) -> None:
        r"""Draws the pool and writes the file, in one process."""
        if self.path is not None and not self.path.exists():
            pool = self._draw()
            with atomic_path(self.path) as tmp:
                torch.save([asdict(batch) for batch in pool], tmp)

    def setup(self, stage: str) -> None:
        r"""Reads the pool, or draws it."""
        if not self.pool:
            self.pool = self._draw() if self.path is None else self._read(self.path)

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        r"""Returns the pool, from the trainer's step on."""
        trainer = self.trainer
        step, rank, world = (trainer.global_step, trainer.global_rank, trainer.world_size) if trainer else (0, 0, 1)
        return DataLoader(PoolOrder(self.pool, self.seed, step, rank, world), batch_size=None)

    def _draw(self) -> list[TaskBatch]:
        loader = DataLoader(self.tasks, batch_size=None, num_workers=self.num_workers)
        stream = islice(loader, self.num_batches)
        return list(tqdm(stream, "drawing tasks", self.num_batches, disable=not self.progress))

    def _read(self, path: Path) -> list[TaskBatch]:
        with foreign_file(path, "a file of tasks", "delete it"):
            batches = load_torch(read_bytes(path))
            check_state({"tasks": batches}, path, "a file of tasks", {"tasks": list}, cure="delete it")
            pool = [TaskBatch(**fields) for fields in batches]
        if len(pool) != self.num_batches:
            raise DataFileError(f"{path} holds {len(pool)} batches, {self.num_batches} are wanted; delete it")
        # Otherwise training on tasks of another seed, space or prior would go unnoticed.
        if self.tasks is not None and not _same_tasks(pool[0], self.tasks.batch(self.tasks.start)):
            raise DataFileError(f"{path} holds other tasks than those of this space, seed and prior; delete it")
        return pool


def _same_tasks(one: TaskBatch, other: TaskBatch) -> bool:
    """Whether functions and architectures agree; base predictions are not compared, because fits differ in rounding."""
    if one.context_moments.shape != other.context_moments.shape:
        return False
    pairs = ((one.x_context, other.x_context), (one.z_context, other.z_context))
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)


class PoolOrder(IterableDataset[TaskBatch]):
    r"""An endless sequence over a pool, reshuffled at every pass and split between the ranks.

    Args:
        pool: The batches.
        seed: Seed of the orders.
        start: Number of steps to skip.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, pool: Sequence[TaskBatch], seed: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.pool, self.seed, self.start, self.rank, self.world_size = pool, seed, start, rank, world_size

    def __iter__(self) -> Iterator[TaskBatch]:
        position = self.start * self.world_size + self.rank
        while True:
            epoch, place = divmod(position, len(self.pool))
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pool))
            yield self.pool[int(order[place])]
            position += self.world_size
