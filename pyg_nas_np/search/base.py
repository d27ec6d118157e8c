r"""The ask-and-tell protocol of all search methods."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.search.candidates import Candidates, Key
from pyg_nas_np.search.resumable import CURE, Resumable
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT
from pyg_nas_np.utils import InvalidLabelsError, check_count, foreign_file, seeded
from pyg_nas_np.utils.state_files import Kinds, check_state


class Search(Candidates[ArchT], Resumable):
    r"""Proposes architectures to measure, and learns from the measurements.

    :meth:`ask` never returns an architecture that was returned, told or discarded before. Measurements may be told
    late, in any order, for architectures that were never asked for, and more than once for one architecture.
    Architectures that were asked for and not told yet are *pending*. A search may be shared between threads.

    Subclasses implement :meth:`_choose`. Their only source of randomness is ``self.generator``, so that a restored
    search makes the same proposals as the original.

    Args:
        space: The search space.
        candidates: Architectures that may be asked for: official indices ``[K]`` or a list. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Raises:
        ValueError: If there are no :obj:`candidates`.
    """

    state_format = "pyg_nas_np.search/2"
    state_entries: ClassVar[Kinds] = {
        "method": str,
        "space": str,
        "maximize": bool,
        "measured": (Tensor, list),
        "y": Tensor,
        "pending": list,
        "discarded": list,
        "generator": Tensor,
    }
    _own_entries: ClassVar[Kinds] = {}
    """Entries that a subclass adds to the state."""

    def __init__(
        self, space: SearchSpace[ArchT], *, candidates: Archs = None, maximize: bool = True, seed: int = 0
    ) -> None:
        Candidates.__init__(self, space, candidates, seed)
        Resumable.__init__(self)
        self.maximize = maximize
        self.reset()

    def reset(self) -> None:
        r"""Resets the search."""
        self.generator = seeded(self.seed)
        self._told: list[Key] = []
        self._y: list[float] = []
        self._pending: dict[Key, None] = {}
        self._discarded: dict[Key, None] = {}
        self._measured: set[Key] = set()

    # -- the protocol -----------------------------------------------------------------------------------------------

    def ask(self, batch: int = 1) -> list[ArchT]:
        r"""Returns the architectures to measure next, in order of preference; fewer if fewer are left.

        Args:
            batch: Number of architectures.

        Raises:
            ValueError: If :obj:`batch` is not positive.
        """
        count = check_count("batch", batch)
        with self._lock:
            chosen = self._choose(count)
            self._pending.update(dict.fromkeys(chosen))
        return list(self._archs(chosen))

    def tell(self, archs: Archs, y: Labels) -> None:
        r"""Takes measurements.

        Args:
            archs: Architectures or official indices, ``n`` of them.
            y: Their measurements, ``[n]``.

        Raises:
            InvalidArchitectureError: If an architecture is not one of the space.
            InvalidLabelsError: If there is not one measurement per architecture, or one is NaN or infinite; failed
                trainings are reported by :meth:`discard`.
        """
        keys = self._keys(archs)
        if not keys:
            return
        values = check_labels(y, len(keys))
        with self._lock:
            self._told += keys
            self._y += values.tolist()
            self._measured.update(keys)
            for key in keys:
                self._pending.pop(key, None)

    def discard(self, archs: Archs) -> None:
        r"""Discards architectures that cannot be measured; they are not returned again."""
        keys = self._keys(archs)
        with self._lock:
            self._discarded.update(dict.fromkeys(keys))
            for key in keys:
                self._pending.pop(key, None)

    def reserve(self, archs: Archs) -> None:
        r"""Marks architectures as pending, because they are measured elsewhere."""
        keys = self._keys(archs)
        with self._lock:
            self._pending.update(dict.fromkeys(key for key in keys if key not in self._measured))

    # -- results ----------------------------------------------------------------------------------------------------

    @property
    def measured(self) -> Architectures:
        r"""The measured architectures in the order of telling, ``n`` of them."""
        return self._archs(self._told)

    @property
    def index(self) -> Tensor:
        r"""Official indices of the measured architectures in the order of telling, int64 ``[n]``.

        Raises:
            InvalidArchitectureError: If the space has no official index; see :attr:`measured`.
        """
        return self.measured.index

    @property
    def y(self) -> Tensor:
        r"""The measurements, float64 ``[n]``."""
        return torch.tensor(self._y, dtype=torch.float64, device="cpu")

    @property
    def pending(self) -> list[ArchT]:
        r"""Architectures that were asked for and not told yet."""
        return list(self._archs(self._pending))

    @property
    def best(self) -> tuple[ArchT, float]:
        r"""The best measured architecture and its measurement, the first among equals.

        Raises:
            InvalidLabelsError: If nothing was told.
        """
        if not self._y:
            raise InvalidLabelsError("no measurement was told yet; tell() at least one")
        position = int(self._merit().argmax())
        return self._archs(self._told)[position], self._y[position]

    def _merit(self) -> Tensor:
        """The measurements, larger is better."""
        return self.y if self.maximize else -self.y

    # -- for subclasses ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _choose(self, batch: int) -> list[Key]:
        """Keys of at most ``batch`` free architectures; :meth:`ask` does the rest."""

    def _taken(self) -> set[Key]:
        return self._measured | self._discarded.keys() | self._pending.keys()

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state for :meth:`load_state_dict`, as tensors and plain types."""
        return {
            "format": self.state_format,
            "method": type(self).__name__,
            "space": self.space.name,
            "maximize": self.maximize,
            "measured": self.index if self._indexed is not None else self._written(self._told),
            "y": self.y,
            "pending": self._written(self._pending),
            "discarded": self._written(self._discarded),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Restores the state of a search of the same class, space and direction.

        Raises:
            DataFileError: If the state is not one of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        self._check_state(state, self.space.name, {"method": type(self).__name__, "maximize": self.maximize})
        check_state(state, "the state", "that of a search", self._own_entries)
        # Everything is checked before anything changes.
        with foreign_file("the state", "that of a search", CURE):
            measured, pending, discarded = (self._read(state[name]) for name in ("measured", "pending", "discarded"))
            y = check_labels(state["y"], len(measured)) if measured else state["y"]
            generator = torch.Generator(device="cpu")
            generator.set_state(state["generator"])
        self.reset()
        if measured:
            self.tell(self._archs(measured).given, y)
        self._pending.update(dict.fromkeys(pending))
        self._discarded.update(dict.fromkeys(discarded))
        self.generator.set_state(state["generator"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, measured={len(self._y)}, pending={len(self._pending)})"
