r"""What tables of descriptors have in common: a reference sample, informative columns, one scale."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.spaces.base import Archs, EnumerableSpace, SearchSpace
from pyg_nas_np.spaces.parameters import RecordView
from pyg_nas_np.utils import DataFileError, UnwritableFileError, cache_dir, read_tensors, write_tensors

logger = logging.getLogger(__name__)


class Columns(NamedTuple):
    r"""Columns of a table that vary over a reference sample, and their scale.

    Shapes:
        - **keep:** Positions of the ``F`` columns among all.
        - **names:** Of the ``F`` columns.
        - **groups:** Positions of the columns of each group among the ``F``.
        - **mean**, **std:** ``[F]`` float64 over the sample.
    """

    keep: list[int]
    names: list[str]
    groups: dict[str, list[int]]
    mean: Tensor
    std: Tensor

    def scale(self, raw: Tensor, standardize: bool = True) -> Tensor:
        r"""Returns the ``F`` columns of ``[B, F']``, as float32."""
        raw = raw[:, self.keep]
        return ((raw - self.mean) / self.std if standardize else raw).float()


def informative(columns: Sequence[tuple[str, str]], raw: Tensor, histograms: Collection[str] = ()) -> Columns:
    r"""Leaves out constant columns and those equal to an earlier one of their group.

    Args:
        columns: Name and group of each of ``F'`` columns.
        raw: ``[B, F']`` float64, the reference sample.
        histograms: Groups whose columns share one scale, the root of their mean variance, so that rare bins do not
            dominate distances.

    Example:
        >>> raw = torch.tensor([[1.0, 0.0, 3.0], [1.0, 2.0, 5.0]])
        >>> found = informative([("a", "x"), ("b", "x"), ("c", "y")], raw)
        >>> found.names, found.groups, found.scale(raw)[0].tolist()
        (['b', 'c'], {'x': [0], 'y': [1]}, [-1.0, -1.0])
    """
    mean = raw.mean(dim=0)
    std = (raw - mean).square().mean(dim=0).sqrt()
    keep: list[int] = []
    seen: set[tuple[str, bytes]] = set()
    for column, (_, group) in enumerate(columns):
        key = (group, raw[:, column].float().numpy().tobytes())
        # Rounding errors of the mean must not pass for variation.
        if float(std[column]) > 1e-9 * (1.0 + abs(float(mean[column]))) and key not in seen:
            seen.add(key)
            keep.append(column)
    groups: dict[str, list[int]] = {}
    for position, column in enumerate(keep):
        groups.setdefault(columns[column][1], []).append(position)
    mean, std = mean[keep], std[keep]
    for group in groups.keys() & set(histograms):
        std[groups[group]] = std[groups[group]].square().mean().sqrt()
    return Columns(keep, [columns[column][0] for column in keep], groups, mean, std)


LARGE = 1 << 12
"""Architectures drawn from a space whose official indices do not fit into 64 bits."""


def seeded_sample(space: EnumerableSpace[Any], count: int) -> Sequence[Any] | Tensor:
    r"""Returns at most :obj:`count` architectures drawn with a fixed seed: official indices in ascending order, or
    :data:`LARGE` values where indices do not fit into 64 bits."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    if space.size - 1 > torch.iinfo(torch.long).max:
        return space.sample(min(count, LARGE), generator)
    return space.sample_indices(min(count, space.size), generator).sort().values


class KeptRows:
    r"""Rows of a table by architecture, each computed once: searches ask for the same candidates again and again.

    Args:
        compute: Maps architectures to their rows, ``[B, F]``. It also gets the options of the call (where to compute
            them), on which the rows do not depend.
        limit: Rows that are kept at most. What would exceed it is computed again each time.

    Example:
        >>> rows = KeptRows(lambda words: torch.tensor([[float(len(word))] for word in words]))
        >>> rows(["a", "bcd", "a"]).flatten().tolist()
        [1.0, 3.0, 1.0]
    """

    def __init__(self, compute: Callable[..., Tensor], limit: int = 1 << 16) -> None:
        self._compute, self.limit = compute, limit
        self._position: dict[Any, int] = {}
        self._table: Tensor | None = None
        self._lock = Lock()

    def __call__(self, archs: Sequence[Any], *options: Any) -> Tensor:
        r"""Returns the rows of architectures, ``[B, F]``."""
        with self._lock:
            new = list(dict.fromkeys(arch for arch in archs if arch not in self._position))
            if not archs or len(self._position) + len(new) > self.limit:
                return self._compute(archs, *options)
            if new:
                rows = self._compute(new, *options)
                self._table = rows if self._table is None else torch.cat([self._table, rows])
                self._position |= {arch: i for i, arch in enumerate(new, len(self._position))}
            assert self._table is not None
            return self._table[[self._position[arch] for arch in archs]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_position": {}, "_table": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_lock": Lock()}


FORMAT = "pyg_nas_np.table/1"

CHECKED = 256
"""Rows of a kept table that are computed anew before it is believed."""


def kept_on_disk(name: str, count: int, compute: Callable[[Tensor | None], Tensor]) -> Tensor:
    r"""Returns a table of a whole space from :func:`~pyg_nas_np.utils.cache_dir`, or computes it and keeps it there.

    A file is believed if its digest is right and :data:`CHECKED` rows, computed anew, are the same up to rounding.
    Nobody has to count versions then, and spaces of one name do no harm. A folder that cannot be written is no error.

    Args:
        name: Name of the file, without a suffix.
        count: Number of rows.
        compute: Maps official indices to their rows, ``[B, ...]`` with values of about 1, and :obj:`None` to all rows.
    """
    some = torch.linspace(0, count - 1, min(count, CHECKED), dtype=torch.float64, device="cpu").long()
    try:
        path = cache_dir() / f"{name}.safetensors"
        kept = read_tensors(path, FORMAT)[1]["table"] if path.exists() else None
    except (DataFileError, OSError, KeyError) as error:
        logger.warning("A kept table is damaged and will be computed again (%s).", error)
        kept = None
    if kept is not None and len(kept) == count:
        expected = compute(some)
        if kept.shape[1:] == expected.shape[1:] and torch.allclose(kept[some], expected, rtol=1e-3, atol=1e-3):
            return kept
    table = compute(None)
    try:
        write_tensors(cache_dir() / f"{name}.safetensors", {"table": table}, {"format": FORMAT})
    except (UnwritableFileError, OSError) as error:
        logger.warning("A table could not be kept (%s).", error)
    return table


def reference_sample(space: SearchSpace[Any], size: int) -> Sequence[Any]:
    r"""Returns architectures by which a space is standardised: its pool, all of it, or :obj:`size` draws of seed 0."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    if isinstance(space, RecordView):
        return space.reference(size, generator)
    if isinstance(space, EnumerableSpace):
        return list(space.enumerate()) if space.size <= size else space.sample(size, generator)
    # Distinct ones may be fewer than this, and nobody knows how many there are.
    return space.sample(size, generator, replace=True)


def space_sample(space: SearchSpace[Any], size: int) -> Sequence[Any] | Tensor:
    r"""Returns architectures by which a space is known: :func:`seeded_sample` where it has an index, else
    :func:`reference_sample`."""
    return seeded_sample(space, size) if isinstance(space, EnumerableSpace) else reference_sample(space, size)


def chunked(archs: Sequence[Any] | Tensor, size: int) -> list[Any]:
    r"""Splits architectures into parts of at most :obj:`size`, for :func:`~pyg_nas_np.utils.map_chunks`.

    There are at least as many parts as threads: one part would be worked on by all threads in every operation, which
    takes ten times as long on a busy machine.
    """
    step = max(1, min(size, math.ceil(len(archs) / torch.get_num_threads())))
    return [archs[start : start + step] for start in range(0, len(archs), step)]


def mostly_whole(space: SearchSpace[Any], archs: Archs) -> bool:
    r"""Whether a table of the whole space, kept, is the cheaper way to rows: half of an indexed space or more."""
    if not isinstance(space, EnumerableSpace) or not (archs is None or isinstance(archs, Tensor)):
        return False
    return archs is None or 2 * space.check_indices(archs).numel() >= space.size
