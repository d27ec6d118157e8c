r"""The ask-and-tell protocol of all search methods."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidLabelsError, foreign_file, write_state
from pyg_nas_np.utils.state_files import Kinds, check_state, read_state

FORMAT = "pyg_nas_np.search/1"
_ENTRIES: Kinds = {
    "method": str,
    "space": str,
    "maximize": bool,
    "index": Tensor,
    "y": Tensor,
    "pending": list,
    "discarded": list,
    "generator": Tensor,
}

ENUMERABLE = 1 << 16
"""Spaces up to this size are searched as a whole; larger ones through proposals."""


class Search(ABC, Generic[ArchT]):
    r"""Proposes architectures to measure, and learns from the measurements.

    :meth:`ask` never repeats an architecture that was asked for, told or discarded. Measurements may be told in any
    order, late, for architectures that were never asked for, and more than once for one architecture; architectures
    that were asked for and not told yet are *pending*.

    Subclasses implement :meth:`_choose`. Their only randomness is ``self.generator``, so that a restored search
    proposes what the original would have.

    Args:
        space: The search space.
        candidates: Official indices that may be asked for, ``[K]``. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Raises:
        ValueError: If there are no :obj:`candidates`.
    """

    _own_entries: ClassVar[Kinds] = {}
    """What the state of a subclass holds beside that of every search."""

    def __init__(
        self, space: SearchSpace[ArchT], *, candidates: Tensor | None = None, maximize: bool = True, seed: int = 0
    ) -> None:
        if candidates is not None:
            candidates = space.check_indices(candidates).unique()
            if candidates.numel() == 0:
                raise ValueError("candidates is empty; give at least one official index, or None for the whole space")
        self.space = space
        self.candidates = candidates
        self.maximize = maximize
        self.seed = seed
        self._around: dict[int, list[int]] = {}
        self.reset()

    def reset(self) -> None:
        r"""Forgets everything that was asked and told."""
        self.generator = torch.Generator().manual_seed(self.seed)
        self._index: list[int] = []
        self._y: list[float] = []
        self._pending: dict[int, None] = {}
        self._discarded: set[int] = set()
        self._measured: set[int] = set()

    # -- the protocol -----------------------------------------------------------------------------------------------

    def ask(self, batch: int = 1) -> list[ArchT]:
        r"""Returns the architectures to measure next, the most wanted first; fewer where fewer are left.

        Args:
            batch: Number of architectures.

        Raises:
            ValueError: If :obj:`batch` is not positive.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        chosen = self._choose(batch)
        self._pending.update(dict.fromkeys(chosen))
        return [self.space[i] for i in chosen]

    def tell(self, archs: Archs, y: Labels) -> None:
        r"""Takes measurements.

        Args:
            archs: Architectures or official indices, ``n`` of them.
            y: Their measurements, ``[n]``.

        Raises:
            InvalidArchitectureError: If an architecture is not one of the space.
            InvalidLabelsError: If there is not one measurement an architecture, or one is NaN or infinite; a training
                that failed is told by :meth:`discard`.
        """
        index = self._indices(archs)
        if not index:
            return
        values = check_labels(y, len(index))
        self._index += index
        self._y += values.tolist()
        self._measured.update(index)
        for i in index:
            self._pending.pop(i, None)

    def discard(self, archs: Archs) -> None:
        r"""Gives up architectures that cannot be measured; they are not asked for again."""
        index = self._indices(archs)
        self._discarded.update(index)
        for i in index:
            self._pending.pop(i, None)

    def reserve(self, archs: Archs) -> None:
        r"""Marks architectures as pending, because somebody else measures them."""
        self._pending.update(dict.fromkeys(i for i in self._indices(archs) if i not in self._measured))

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def index(self) -> Tensor:
        r"""Official indices of the measured architectures in the order of telling, int64 ``[n]``."""
        return torch.tensor(self._index, dtype=torch.long)

    @property
    def y(self) -> Tensor:
        r"""The measurements, float64 ``[n]``."""
        return torch.tensor(self._y, dtype=torch.float64)

    @property
    def pending(self) -> list[ArchT]:
        r"""Architectures that were asked for and not told."""
        return [self.space[i] for i in self._pending]

    @property
    def best(self) -> tuple[ArchT, float]:
        r"""The best measured architecture and its measurement, the first among equals.

        Raises:
            InvalidLabelsError: If nothing was told.
        """
        if not self._y:
            raise InvalidLabelsError("no measurement was told yet; tell() at least one")
        position = int(self._merit().argmax())
        return self.space[self._index[position]], self._y[position]

    def _merit(self) -> Tensor:
        """The measurements, larger is better."""
        return self.y if self.maximize else -self.y

    # -- for subclasses ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _choose(self, batch: int) -> list[int]:
        """Official indices of at most ``batch`` architectures that are not taken; the rest is done by ask()."""

    def _taken(self) -> set[int]:
        return self._measured | self._discarded | self._pending.keys()

    def _allowed(self, index: Iterable[int], taken: set[int]) -> list[int]:
        """Those of ``index`` that may be asked for."""
        free = dict.fromkeys(i for i in index if i not in taken)
        if self.candidates is None or not free:
            return list(free)
        wanted = torch.tensor(list(free))
        return wanted[torch.isin(wanted, self.candidates)].tolist()

    def _free(self, taken: set[int]) -> Tensor:
        """All candidates that are not taken, in index order; only for candidates that fit into memory."""
        every = torch.arange(len(self.space)) if self.candidates is None else self.candidates
        return every[~torch.isin(every, torch.tensor(sorted(taken), dtype=torch.long))]

    def _random(self, count: int, taken: set[int]) -> list[int]:
        """At most ``count`` distinct candidates that are not taken, uniformly drawn."""
        size = len(self.space) if self.candidates is None else self.candidates.numel()
        if size <= ENUMERABLE or size <= 4 * (len(taken) + count):
            free = self._free(taken)
            return free[torch.randperm(free.numel(), generator=self.generator)[:count]].tolist()
        # Rejection: at most a quarter of the draws meets something taken.
        drawn: dict[int, None] = {}
        while len(drawn) < count:
            more = torch.randint(size, (count - len(drawn),), generator=self.generator)
            more = more if self.candidates is None else self.candidates[more]
            drawn.update(dict.fromkeys(i for i in more.tolist() if i not in taken))
        return list(drawn)

    def _neighbors(self, index: int, taken: set[int]) -> list[int]:
        """Neighbors that may be asked for, in the order of the space."""
        if index not in self._around:
            self._around[index] = [self.space.index(arch) for arch in self.space.neighbors(self.space[index])]
        return self._allowed(self._around[index], taken)

    def _pick(self, options: Sequence[int]) -> int:
        return options[int(torch.randint(len(options), (1,), generator=self.generator))]

    def _indices(self, archs: Archs) -> list[int]:
        if archs is None:
            return list(range(len(self.space)))
        if isinstance(archs, Tensor):
            return self.space.check_indices(archs).tolist()
        return [self.space.index(self.space.check(arch)) for arch in archs]

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        r"""Returns all that :meth:`load_state_dict` needs to go on, as tensors and plain types."""
        return {
            "format": FORMAT,
            "method": type(self).__name__,
            "space": self.space.name,
            "maximize": self.maximize,
            "index": self.index,
            "y": self.y,
            "pending": list(self._pending),
            "discarded": sorted(self._discarded),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Goes on from a state of a search of the same class, space and direction.

        Raises:
            DataFileError: If the state is not one of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        check_state(state, "the state", "that of a search", _ENTRIES, form=FORMAT)
        if state["space"] != self.space.name:
            raise InvalidArchitectureError(f"the state is from {state['space']}, the search is on {self.space.name}")
        for name, own in (("method", type(self).__name__), ("maximize", self.maximize)):
            if state[name] != own:
                raise DataFileError(f"the state has {name} {state[name]!r}, this search has {own!r}")
        check_state(state, "the state", "that of a search", self._own_entries)
        # Everything is checked before anything changes.
        with foreign_file("the state", "that of a search", "start a new search"):
            index = self.space.check_indices(state["index"])
            y = check_labels(state["y"], index.numel()) if index.numel() else state["y"]
            pending, discarded = (
                self.space.check_indices(torch.tensor(state[name], dtype=torch.long)).tolist()
                for name in ("pending", "discarded")
            )
            generator = torch.Generator()
            generator.set_state(state["generator"])
        self.reset()
        self.tell(index, y)
        self._pending.update(dict.fromkeys(pending))
        self._discarded.update(discarded)
        self.generator.set_state(state["generator"])

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes :meth:`state_dict` to a file, atomically.

        Raises:
            UnwritableFileError: If the disk is full, or the folder cannot be written.
        """
        write_state(path, self.state_dict())

    def resume(self, path: str | os.PathLike[str]) -> Self:
        r"""Goes on from a file of :meth:`save`; runs no code from the file.

        Raises:
            DataFileError: If the file is missing or damaged, or not of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        cure = "start a new search"
        state = read_state(path, "a saved search", _ENTRIES, form=FORMAT, cure=cure)
        with foreign_file(path, "a saved search", cure):
            self.load_state_dict(state)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, measured={len(self._y)}, pending={len(self._pending)})"
