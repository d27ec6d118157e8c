r"""Synthesised tasks for a Lightning trainer; apart, because importing Lightning takes a second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import lightning
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from pyg_nas_np.tasks.batch import TaskBatch
from pyg_nas_np.tasks.synthetic import SyntheticTasks


class SyntheticTaskModule(lightning.LightningDataModule):
    r"""Draws a pool of task batches once and feeds it in a new order every epoch.

    The base predictions of a task cost far more than a training step on it, so that tasks are used more than once.

    Args:
        tasks: The stream.
        num_batches: Size of the pool.
        num_workers: Processes that draw the pool; the pool does not depend on it.
        seed: Seed of the order.
        progress: Whether to show a progress bar while drawing.
    """

    def __init__(
        self, tasks: SyntheticTasks, *, num_batches: int, num_workers: int = 0, seed: int = 0, progress: bool = False
    ) -> None:
        super().__init__()
        self.tasks, self.num_batches, self.num_workers = tasks, num_batches, num_workers
        self.seed, self.progress = seed, progress
        self.pool: Sequence[TaskBatch] = []

    def setup(self, stage: str) -> None:
        r"""Draws the pool."""
        if not self.pool:
            loader = DataLoader(self.tasks, batch_size=None, num_workers=self.num_workers)
            stream = islice(loader, self.num_batches)
            self.pool = list(tqdm(stream, "drawing tasks", self.num_batches, disable=not self.progress))

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        r"""Returns the pool in random order."""
        generator = torch.Generator().manual_seed(self.seed)
        # Batches are drawn whole: a batch size of None would otherwise split nothing but also collate nothing.
        return DataLoader(self.pool, batch_size=None, shuffle=True, generator=generator)  # type: ignore[arg-type]
