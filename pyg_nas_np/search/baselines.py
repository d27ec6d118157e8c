r"""Search methods without a predictor: random search, regularised evolution, local search."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from pyg_nas_np.search.base import Search
from pyg_nas_np.search.candidates import Key
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT
from pyg_nas_np.utils.state_files import Kinds


class RandomSearch(Search[ArchT]):
    r"""Draws candidates uniformly, without repetition.

    Args:
        space: The search space.
        candidates: Official indices ``[K]`` or architectures that may be asked for. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> search = RandomSearch(NASBench201Space())
        >>> for arch in search.ask(3):
        ...     search.tell([arch], [float(search.space.flops(arch))])
        >>> search.index.numel(), search.pending
        (3, [])
    """

    def _choose(self, batch: int) -> list[Key]:
        return self._random(batch, self._taken())


class RegularizedEvolution(Search[ArchT]):
    r"""Ageing evolution of `"Regularized Evolution for Image Classifier Architecture Search"
    <https://arxiv.org/abs/1802.01548>`_.

    The population consists of the most recent measurements. The parent is the best of a random tournament. The child is
    one of its free neighbors. If there is none, one of the neighbors becomes the parent; after :data:`MAX_STEPS` such
    steps the child is a random candidate.

    Args:
        space: The search space.
        population: Size of the population, which is initialised with random candidates.
        tournament: Size of the tournament.
        candidates: Official indices ``[K]`` or architectures that may be asked for. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Raises:
        ValueError: If not ``1 <= tournament <= population``.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> search = RegularizedEvolution(space, population=4, tournament=2)
        >>> for _ in range(10):
        ...     archs = search.ask()
        ...     search.tell(archs, space.batch_flops(archs))
        >>> search.index.unique().numel()
        10
    """

    MAX_STEPS = 8

    def __init__(
        self,
        space: SearchSpace[ArchT],
        *,
        population: int = 20,
        tournament: int = 5,
        candidates: Archs = None,
        maximize: bool = True,
        seed: int = 0,
    ) -> None:
        if not 1 <= tournament <= population:
            raise ValueError(f"tournament must be between 1 and population={population}, got {tournament}")
        self.population = population
        self.tournament = tournament
        super().__init__(space, candidates=candidates, maximize=maximize, seed=seed)

    def _choose(self, batch: int) -> list[Key]:
        taken = self._taken()
        chosen: list[Key] = []
        while len(chosen) < batch:
            child = self._child(taken)
            if child is None:
                break
            chosen.append(child)
            taken.add(child)
        return chosen

    def _child(self, taken: set[Key]) -> Key | None:
        started = len(taken) - len(self._discarded)
        if self._y and started >= self.population:
            merit, keys = self._merit()[-self.population :], self._told[-self.population :]
            some = torch.randperm(len(keys), generator=self.generator)[: self.tournament]
            parent = keys[int(some[merit[some].argmax()])]
            for _ in range(self.MAX_STEPS):
                if options := self._neighbors(parent, taken):
                    return self._pick(options)
                around = self._neighbors(parent, set())
                if not around:
                    break
                parent = self._pick(around)
        return next(iter(self._random(1, taken)), None)


class LocalSearch(Search[ArchT]):
    r"""Hill climbing of `"Exploring the Loss Landscape in Neural Architecture Search"
    <https://arxiv.org/abs/2005.02960>`_: all neighbors of the best, then a new start.

    A climb starts from the best of several random candidates. The neighbors of the best measured architecture of the
    climb are asked for in random order. As soon as one is better, its neighbors are next. If all neighbors are known, a
    new climb starts.

    Args:
        space: The search space.
        initial: Random candidates at the start of each climb.
        candidates: Official indices ``[K]`` or architectures that may be asked for. (default: the whole space)
        maximize: Whether larger measurements are better.
        seed: Seed of the search.

    Raises:
        ValueError: If :obj:`initial` is not positive.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> search = LocalSearch(space, initial=5)
        >>> for _ in range(60):
        ...     archs = search.ask()
        ...     search.tell(archs, space.batch_flops(archs))
        >>> bool(search.best[1] > 0.8 * space.batch_flops().max())
        True
    """

    _own_entries: ClassVar[Kinds] = {"start": int, "draws": int}

    def __init__(
        self,
        space: SearchSpace[ArchT],
        *,
        initial: int = 10,
        candidates: Archs = None,
        maximize: bool = True,
        seed: int = 0,
    ) -> None:
        if initial < 1:
            raise ValueError(f"initial must be at least 1, got {initial}")
        self.initial = initial
        super().__init__(space, candidates=candidates, maximize=maximize, seed=seed)

    def reset(self) -> None:
        r"""Resets the search."""
        super().reset()
        self._start = 0  # position in the history at which the current climb began
        self._draws = self.initial  # random candidates still to be asked for in this climb

    def _choose(self, batch: int) -> list[Key]:
        taken = self._taken()
        chosen: list[Key] = []
        while len(chosen) < batch:
            if self._draws == 0 and len(self._y) > self._start:
                best = self._start + int(self._merit()[self._start :].argmax())
                if options := self._neighbors(self._told[best], taken):
                    chosen.append(self._pick(options))
                    taken.add(chosen[-1])
                    continue
                if not self._pending and not chosen:
                    self._start, self._draws = len(self._y), self.initial
            # If all neighbors are pending, further workers get random candidates.
            drawn = self._random(1, taken)
            if not drawn:
                break
            self._draws = max(self._draws - 1, 0)
            chosen += drawn
            taken.update(drawn)
        return chosen

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state for :meth:`load_state_dict`, as tensors and plain types."""
        return super().state_dict() | {"start": self._start, "draws": self._draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Restores the state of a search of the same class, space and direction.

        Raises:
            DataFileError: If the state is not one of such a search.
            InvalidArchitectureError: If it is from another space.
        """
        super().load_state_dict(state)
        self._start, self._draws = state["start"], state["draws"]
