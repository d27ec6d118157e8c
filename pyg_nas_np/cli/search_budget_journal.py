r"""What a search within a budget decided, training by training, in one file with its state."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from typing_extensions import Self

from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.registry import declared_space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, foreign_file, write_state
from pyg_nas_np.utils.state_files import read_state

FORMAT = "pyg_nas_np.budgeted_journal/1"
FULL = "full trainings"
"""Unit of the budget where all full trainings cost the same."""

_WHAT = "the state of a search within a budget"
_CURE = "start a new search with another --state"


@dataclass
class ProposedTraining:
    r"""A training that was proposed.

    Attributes:
        number: Its number, from 1 on.
        when: Time of the proposal, ISO 8601 in UTC.
        arch: The architecture as a string of the space.
        level: The level to train to.
        start: The level to go on from, or :obj:`None` for a new training.
        price: What it costs, in the unit of the budget.
        mean: Predicted label at the last level, or :obj:`None` if nothing was predicted yet.
        std: Its standard deviation.
        label: The label that was told; NaN if the training diverged.
        order: Position among the proposed trainings that were told, from 1 on; 0 if it was not told.
        released: Whether it was given up, because its worker died.
    """

    number: int
    when: str
    arch: str
    level: float
    start: float | None
    price: float
    mean: float | None = None
    std: float | None = None
    label: float | None = None
    order: int = 0
    released: bool = False

    @property
    def running(self) -> bool:
        r"""Whether its label is waited for."""
        return self.label is None and not self.released


class Journal:
    r"""A search and what it decided; :meth:`save` writes both at once, so that they never contradict each other.

    Args:
        search: The search.
        path: The file.
        unit: Unit of the budget, for people.

    Raises:
        DataFileError: If the file exists and is damaged, or of another fidelity, direction or unit.
        InvalidArchitectureError: If it is from another space.
    """

    def __init__(self, search: BudgetedSearch[Any], path: Path, unit: str = FULL) -> None:
        self.search, self.path, self.unit = search, path, unit
        self.trainings: list[ProposedTraining] = []
        if path.exists():
            self._resume()

    def ask(self, count: int) -> list[ProposedTraining]:
        r"""Proposes trainings, as :meth:`BudgetedSearch.ask` does, with what is predicted of each.

        Args:
            count: Number of trainings.
        """
        asked: list[ProposedTraining] = []
        # One at a time, so that the predictions are those that each proposal was based on.
        while len(asked) < count and (found := self.search.ask()):
            arch, level, start, price = found[0]
            mean, std = self._predicted(arch)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            text = self.search.space.to_str(arch)
            asked.append(ProposedTraining(len(self.trainings) + 1, now, text, level, start, price, mean, std))
            self.trainings.append(asked[-1])
        return asked

    def _predicted(self, arch: Any) -> tuple[float | None, float | None]:
        predictor = self.search.predictor
        transform = getattr(predictor, "transform_", None)
        if transform is None or not transform.informative:
            return None, None
        mean, std = predictor.predict([arch], return_std=True)
        return float(mean[0]), float(std[0])

    def tell(self, arch: Any, level: float, label: float) -> None:
        r"""Takes a label, of a proposed training or of another one.

        Args:
            arch: The architecture.
            level: Its level.
            label: NaN or infinite if the training diverged.
        """
        self.search.tell([arch], level, [label])
        text = self.search.space.to_str(arch)
        for training in self.trainings:
            if training.running and (training.arch, training.level) == (text, level):
                training.label = label if math.isfinite(label) else math.nan
                training.order = 1 + max(other.order for other in self.trainings)

    def release(self, number: int) -> None:
        r"""Frees a training whose worker died; its price goes back to the budget.

        Args:
            number: Its number.

        Raises:
            ValueError: If it is not running.
        """
        running = [training.number for training in self.trainings if training.running]
        if number not in running:
            listed = ", ".join(map(str, running)) or "none"
            raise ValueError(f"training {number} is not running and cannot be released; running are: {listed}")
        training = self.trainings[number - 1]
        self.search.release([self.search.space.from_str(training.arch)], training.level)
        training.released = True

    def state_of(self, training: ProposedTraining) -> str:
        r"""Returns ``"running"``, ``"released"``, ``"diverged"``, ``"finished"``, ``"went on"`` or ``"stopped"``.

        A training below the last level is stopped until one of the same architecture to a higher level is proposed.
        """
        if training.label is None:
            return "released" if training.released else "running"
        if math.isnan(training.label):
            return "diverged"
        if training.level == self.search.fidelity.levels[-1]:
            return "finished"
        further = (d for d in self.trainings if d.arch == training.arch and d.level > training.level)
        return "went on" if any(not d.released for d in further) else "stopped"

    def counts(self) -> dict[str, int]:
        r"""Returns the number of trainings by state."""
        states = [self.state_of(training) for training in self.trainings]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def save(self) -> None:
        r"""Writes the file, atomically.

        Raises:
            UnwritableFileError: If the disk is full, or the folder cannot be written.
        """
        state = {
            "format": FORMAT,
            "space": self.search.space.declaration() or {},
            "search": self.search.state_dict(),
            "unit": self.unit,
            "trainings": [asdict(training) for training in self.trainings],
        }
        write_state(self.path, state)

    def _resume(self) -> Self:
        state = _read(self.path)
        if state["space"] != (self.search.space.declaration() or {}):
            raise InvalidArchitectureError(
                f"{self.path} is from another declaration of {state['search'].get('space')}; give its --space, or "
                f"{_CURE}"
            )
        unit = str(state.get("unit", FULL))
        if unit != self.unit:
            option = "without --cost" if unit == FULL else f"with --cost {unit}"
            raise DataFileError(f"{self.path}: its budget is in {unit}; go on {option}")
        try:
            with foreign_file(self.path, _WHAT, _CURE):
                names = {field.name for field in fields(ProposedTraining)}
                trainings = [ProposedTraining(**{k: row[k] for k in names}) for row in state["trainings"]]
                self.search.load_state_dict(state["search"])
        except DataFileError as error:
            raise DataFileError(f"{self.path}: {error}; {_CURE}") from error
        self.trainings = trainings
        if self.search.spent > self.search.budget + 1e-9:
            raise DataFileError(
                f"{self.path}: {self.search.spent:g} {self.unit} are spent, more than the budget of "
                f"{self.search.budget:g}; raise --budget"
            )
        return self


def stored_space(path: Path) -> SearchSpace[Any]:
    r"""Returns the space of a saved search, so that one that was inferred stays the same.

    Raises:
        DataFileError: If the file is damaged, or not of such a search.
    """
    state = _read(path)
    with foreign_file(path, _WHAT, _CURE):
        return declared_space(state["space"])


def _read(path: Path) -> dict[str, Any]:
    required = {"space": dict, "search": dict, "trainings": list}
    return read_state(path, _WHAT, required, form=FORMAT, cure=_CURE)
