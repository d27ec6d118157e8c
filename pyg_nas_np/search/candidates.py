r"""The architectures that a search may ask for: their identities, random ones, neighbors."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Generic, TypeAlias

import torch
from torch import Tensor

from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.base import Archs, ArchT, EnumerableSpace, require_index
from pyg_nas_np.utils import seeded

ENUMERABLE = 1 << 16
"""Spaces up to this size are searched exhaustively; larger ones through proposals."""

LISTED = 1 << 12
"""So are spaces without an index, if they know that they are at most this large."""

Key: TypeAlias = Hashable
"""Identity of an architecture in a search: its official index if the space has one, otherwise the architecture."""

_LARGEST = torch.iinfo(torch.long).max
_TRIES = 20
_LEAST_DRAWS = 64


class Candidates(Generic[ArchT]):
    r"""What may be asked for, by key; what every search is built on.

    Args:
        space: The search space.
        candidates: Architectures that may be asked for: official indices ``[K]`` or a list. (default: the whole space)
        seed: Seed of :attr:`generator`, the only source of randomness.

    Raises:
        ValueError: If there are no :obj:`candidates`.
    """

    def __init__(self, space: SearchSpace[ArchT], candidates: Archs = None, seed: int = 0) -> None:
        self.space = space
        self._indexed = space if isinstance(space, EnumerableSpace) and space.size <= _LARGEST else None
        if isinstance(candidates, Tensor):
            candidates = require_index(space).check_indices(candidates).unique()
        if candidates is not None and len(candidates) == 0:
            raise ValueError("candidates is empty; give at least one architecture, or None for the whole space")
        self.candidates = self._listed() if candidates is None else candidates
        self._pool_keys = None if self.candidates is None else dict.fromkeys(self._keys(self.candidates))
        self.seed = seed
        self.generator = seeded(seed)
        self._around: dict[Key, list[Key]] = {}

    def _listed(self) -> list[ArchT] | None:
        """All architectures of a small space without an index."""
        size = None if self._indexed is not None else getattr(self.space, "size", None)
        return self.space.sample(size, seeded(0)) if size is not None and size <= LISTED else None

    @property
    def _size(self) -> int | None:
        """Number of candidates; None if the space does not know its size."""
        if self._pool_keys is not None:
            return len(self._pool_keys)
        return None if self._indexed is None else self._indexed.size

    def _random(self, count: int, taken: set[Key]) -> list[Key]:
        """At most ``count`` distinct free candidates, drawn uniformly."""
        size = self._size
        if size is not None and (size <= ENUMERABLE or size <= 4 * (len(taken) + count)):
            every: Iterable[Key] = range(size) if self._pool_keys is None else self._pool_keys
            free = [key for key in every if key not in taken]
            order = torch.randperm(len(free), generator=self.generator, device="cpu")[:count]
            return [free[i] for i in order.tolist()]
        # Rejection sampling: if the size is known, most draws are free.
        pool = None if self._pool_keys is None else list(self._pool_keys)
        drawn: dict[Key, None] = {}
        idle = 0
        for attempt in range(_TRIES):
            missing = max(count - len(drawn), _LEAST_DRAWS if attempt else 0)
            more: Sequence[Key]
            if size is None:
                more = self.space.sample(missing, self.generator, replace=True)
            else:
                rows = torch.randint(size, (missing,), generator=self.generator, device="cpu").tolist()
                more = rows if pool is None else [pool[row] for row in rows]
            before = len(drawn)
            drawn.update(dict.fromkeys(self._admitted([key for key in more if key not in taken])))
            idle = 0 if len(drawn) > before else idle + missing
            # Large counts ask for that many at every attempt, in a small space for nothing.
            if len(drawn) >= count or idle >= _TRIES * _LEAST_DRAWS:
                break
        return list(drawn)[:count]

    def _neighbors(self, key: Key, taken: set[Key]) -> list[Key]:
        """Neighbors that may be asked for, in the order of the space."""
        if key not in self._around:
            arch = self._archs([key])[0]
            around = dict.fromkeys(self._keys_of(self.space.neighbors(arch)))
            inside = [k for k in around if self._pool_keys is None or k in self._pool_keys]
            self._around[key] = self._admitted(inside)
        return [k for k in self._around[key] if k not in taken]

    def _admitted(self, keys: list[Key]) -> list[Key]:
        """The architectures among them that may be asked for at all."""
        return keys

    def _pick(self, options: Sequence[Key]) -> Key:
        return options[int(torch.randint(len(options), (1,), generator=self.generator, device="cpu"))]

    def _key(self, arch: ArchT) -> Key:
        return arch if self._indexed is None else self._indexed.index(arch)

    def _keys(self, archs: Archs) -> list[Key]:
        if isinstance(archs, Architectures):
            archs = archs.given
        if archs is None:
            return list(range(require_index(self.space).size))
        if isinstance(archs, Tensor):
            rows = require_index(self.space).check_indices(archs)
            return [*rows.tolist()] if self._indexed is not None else [*self.space.resolve(rows)]
        return self._keys_of([self.space.check(arch) for arch in archs])

    def _keys_of(self, archs: Sequence[ArchT]) -> list[Key]:
        """The keys of architectures that are known to be valid."""
        return [*archs] if self._indexed is None else [*self._indexed.indices(archs)]

    def _archs(self, keys: Iterable[Key]) -> Architectures:
        given: Any = list(keys)
        if self._indexed is not None:
            given = torch.tensor(given, dtype=torch.long, device="cpu")
        return Architectures(self.space, given)

    def _written(self, keys: Iterable[Key]) -> list[int] | list[str]:
        """Keys as plain values."""
        archs = self._archs(keys)
        if self._indexed is not None:
            return [*archs.index.tolist()]
        return [self.space.to_str(arch) for arch in archs]

    def _read(self, written: Any) -> list[Key]:
        """Inverse of :meth:`_written`."""
        if self._indexed is not None:
            return self._keys(torch.as_tensor(written, dtype=torch.long, device="cpu"))
        return self._keys([self.space.from_str(text) for text in written])
