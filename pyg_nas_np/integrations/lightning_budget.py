r"""Searches within a budget whose trainings Lightning runs, in a plain loop."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.search.budgeted import Training
from pyg_nas_np.spaces.base import ArchT
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError, experimental

STATE = "search.pt"
"""Name of the file that holds the state of the search."""


@experimental
class BudgetedLoop(Generic[ArchT]):
    r"""Runs the trainings that a :class:`~pyg_nas_np.search.BudgetedSearch` asks for, one after the other.

    The levels are epochs. If the fidelity is continued, a training goes on from the checkpoint of its architecture, and
    the levels that it passes are told too; a learning rate schedule must then be as long as the last level. Otherwise
    every level is a new training, whose ``trainer.max_epochs`` is the level.

    **A run that was killed goes on.** The state of the search and a checkpoint of each training in its last epoch are
    in :obj:`folder`. A loop on the same folder resumes the search, and first the trainings that were running.

    **A training that raises an error** is freed: its price goes back to the budget, and the error is raised. **One with
    a loss or a label that is NaN or infinite** ends after that epoch and is told as diverged.

    Args:
        search: The search. Its state is read from :obj:`folder` if there is one.
        build: The module to train of an architecture.
        monitor: Name of the logged metric that is the label, after the validation of an epoch.
        folder: Where the state and the checkpoints are.
        options: Arguments of :class:`~lightning.pytorch.Trainer`. Trainings run in this process: one device.

    Raises:
        InvalidFidelityError: If a level is not a whole number of epochs.
        DataFileError: If the state in the folder is damaged, or of another fidelity or direction.
        InvalidArchitectureError: If it is from another space.

    Example:
        >>> from pyg_nas_np.predictors.fidelity import Fidelity
        >>> from pyg_nas_np.spaces import Integer, ParameterSpace
        >>> space = ParameterSpace(depth=Integer(1, 3), width=Integer(8, 64, step=8))
        >>> search = BudgetedSearch(space, Fidelity("epochs", (2, 8), continued=True), budget=6, initial=6)
        >>> # loop = BudgetedLoop(search, build, "val_acc", "runs", logger=False)
        >>> # arch, accuracy = loop.run(train_loader, val_loader)
    """

    def __init__(
        self,
        search: BudgetedSearch[ArchT],
        build: Callable[[ArchT], LightningModule],
        monitor: str,
        folder: str | os.PathLike[str],
        **options: Any,
    ) -> None:
        for level in search.fidelity.levels:
            if level % 1:
                raise InvalidFidelityError(
                    f"{search.fidelity.name} {level:g} is no number of epochs, as Lightning needs; give whole levels"
                )
        self.search, self.build, self.monitor, self.options = search, build, monitor, options
        self.folder = Path(folder)
        if self.state.exists():
            search.resume(self.state)

    @property
    def state(self) -> Path:
        r"""The file that holds the state of the search."""
        return self.folder / STATE

    def checkpoint(self, arch: ArchT) -> Path:
        r"""Returns the checkpoint of an architecture."""
        name = hashlib.sha256(self.search.space.to_str(arch).encode()).hexdigest()[:16]
        return self.folder / f"{name}.ckpt"

    def run(self, *data: Any, **more: Any) -> tuple[ArchT, float]:
        r"""Runs the search until nothing is asked for, and returns the best architecture with its label.

        Args:
            data: Arguments of :meth:`Trainer.fit <lightning.pytorch.Trainer.fit>` after the module: loaders, or a
                data module.
            more: Keyword arguments of it, likewise.

        Raises:
            InvalidLabelsError: As for :meth:`train`, or if no training reached the last level.
        """
        for training in self.search.pending:
            self.train(training, *data, **more)
        while trainings := self.search.ask():
            self.search.save(self._made())
            self.train(trainings[0], *data, **more)
        return self.search.best

    def train(self, training: Training[ArchT], *data: Any, **more: Any) -> float:
        r"""Runs a training, tells its labels to the search, and returns that of its level; NaN if it diverged.

        Args:
            training: A training that the search asked for.
            data: As for :meth:`run`.
            more: As for :meth:`run`.

        Raises:
            InvalidLabelsError: If the metric was not logged at the end of an epoch.
        """
        arch, level = training.arch, int(training.level)
        path, continued = self.checkpoint(arch), self.search.fidelity.continued
        if not continued:
            path = path.with_stem(f"{path.stem}-{level}")
        self._made()
        curve = _Curve(self.monitor)
        # A fixed name: the file is replaced after every epoch.
        keeper = ModelCheckpoint(self.folder, path.stem, enable_version_counter=False, save_on_train_epoch_end=True)
        options = {**self.options, "callbacks": [*self.options.get("callbacks", ()), curve, keeper]}
        try:
            trainer = Trainer(max_epochs=level, **options)
            going_on: dict[str, Any] = {**more, "ckpt_path": str(path) if path.exists() else None}
            trainer.fit(self.build(arch), *data, **going_on)
            y = math.nan if curve.diverged else curve.at(level)
        except Exception:
            self.search.release([arch], level)
            self.search.save(self.state)
            raise
        if continued:
            reached = training.start or 0
            passed = [epochs for epochs in self.search.fidelity.levels if reached < epochs < level]
            told = [epochs for epochs in passed if math.isfinite(curve.values.get(int(epochs), math.nan))]
            self.search.tell([arch] * len(told), told, [curve.values[int(epochs)] for epochs in told])
        self.search.tell([arch], level, [y])
        self.search.save(self.state)
        return y

    def _made(self) -> Path:
        """The file of the state, in a folder that exists."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.state


class _Curve(Callback):
    """The metric after each epoch, and whether the training has diverged."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.values: dict[int, float] = {}
        self.diverged = False
        self._finite: Tensor | None = None

    def at(self, epoch: int) -> float:
        """The label of an epoch."""
        if epoch not in self.values:
            raise InvalidLabelsError(
                f"'{self.monitor}' was not logged by a validation after epoch {epoch}, only after "
                f"{', '.join(map(str, self.values)) or 'none'}; validate at the end of every level"
            )
        return self.values[epoch]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            # Read once an epoch, because the processor waits for the device then.
            finite = torch.isfinite(loss.detach()).all()
            self._finite = finite if self._finite is None else self._finite & finite

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise InvalidLabelsError(f"the metric '{self.monitor}' was not logged; logged: {logged}")
        value = float(trainer.callback_metrics[self.monitor])
        self.values[trainer.current_epoch + 1] = value
        self.diverged = self.diverged or not math.isfinite(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.diverged = self.diverged or not (self._finite is None or bool(self._finite))
        trainer.should_stop = trainer.should_stop or self.diverged

    def state_dict(self) -> dict[str, Any]:
        return {"values": dict(self.values), "diverged": self.diverged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = {int(epoch): float(value) for epoch, value in state_dict["values"].items()}
        self.diverged = bool(state_dict["diverged"])
