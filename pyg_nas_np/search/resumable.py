r"""Searches that write their state to files, and may be shared between threads and processes."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from typing_extensions import Self

from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, foreign_file, write_state
from pyg_nas_np.utils.state_files import Kinds, check_state, read_state

CURE = "start a new search"


class Resumable(ABC):
    r"""A lock and files for what has a state of tensors and plain types.

    Subclasses name the format and the entries of their state, and implement :meth:`state_dict` and
    :meth:`load_state_dict`.
    """

    state_format: ClassVar[str]
    state_entries: ClassVar[Kinds]
    state_kind: ClassVar[str] = "search"
    """What a state is of, in messages."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state for :meth:`load_state_dict`, as tensors and plain types."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Restores the state of a search of the same kind."""

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes :meth:`state_dict` to a file, atomically.

        Raises:
            UnwritableFileError: If the disk is full, or the folder cannot be written.
        """
        write_state(path, self.state_dict())

    def resume(self, path: str | os.PathLike[str]) -> Self:
        r"""Restores the state from a file of :meth:`save`; runs no code from the file.

        Raises:
            DataFileError: If the file is missing or damaged, or not of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        what = f"a saved {self.state_kind}"
        state = read_state(path, what, self.state_entries, form=self.state_format, cure=CURE)
        with foreign_file(path, what, CURE):
            self.load_state_dict(state)
        return self

    def _check_state(self, state: dict[str, Any], space: str, own: dict[str, Any]) -> None:
        """Checks the entries of a state, that it is from this space, and that some have the values of this search."""
        check_state(state, "the state", f"that of a {self.state_kind}", self.state_entries, form=self.state_format)
        if state["space"] != space:
            raise InvalidArchitectureError(f"the state is from {state['space']}, the search is on {space}")
        for name, value in own.items():
            if state[name] != value:
                raise DataFileError(f"the state has {name} {state[name]!r}, this search has {value!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
