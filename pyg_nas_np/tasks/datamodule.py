r"""Synthesised tasks for a Lightning trainer; apart, because importing Lightning takes a second."""

from __future__ import annotations

import lightning
from torch.utils.data import DataLoader

from pyg_nas_np.tasks.batch import TaskBatch
from pyg_nas_np.tasks.synthetic import SyntheticTasks


class SyntheticTaskModule(lightning.LightningDataModule):
    r"""Feeds :class:`SyntheticTasks` to a Lightning trainer."""

    def __init__(self, tasks: SyntheticTasks, *, num_workers: int = 0) -> None:
        super().__init__()
        self.tasks = tasks
        self.num_workers = num_workers

    def train_dataloader(self) -> DataLoader[TaskBatch]:
        r"""Returns the endless stream of batches."""
        return DataLoader(self.tasks, batch_size=None, num_workers=self.num_workers)
