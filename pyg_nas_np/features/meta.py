r"""Hand-designed, vectorised meta-features of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_nas_np.features.blocks import BLOCKS, HISTOGRAMS, Cells
from pyg_nas_np.features.tables import Columns, chunked, informative, seeded_sample
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.utils import InvalidArchitectureError, map_chunks
from pyg_nas_np.utils.defaults import fixed_defaults

CHUNK = 1 << 12
"""Cells per step; their intermediate tensors fit into the processor's cache."""

REFERENCE = 1 << 16
"""Spaces up to this size are standardised over all cells, larger ones over a seeded sample of this size."""


class _Statistics(NamedTuple):
    width: int
    columns: Columns
    table: Tensor | None


class MetaFeatures(BaseTransform):  # type: ignore[misc]
    r"""Adds ``data.meta`` ``[1, F]``: named, standardised features of an architecture.

    The groups of features, in the order of their columns:

    - **ops**: count of each operation;
    - **live**: operations on live input-output paths (total; minimum, maximum and mean over the paths), whether there
      is a live path, and whether there is one of identities only;
    - **shape**: nodes, edges, live paths, depth, shortest path, width, degrees;
    - **bigrams**: operation pairs along live edges;
    - **cost**: exact parameters and multiply-accumulates, and their logarithms;
    - **spectrum**: eigenvalues of the normalised Laplacian of the live part;
    - **paths**, **strings**: if all cells share one topology, as in NAS-Bench-201, a block for each path, and the
      number of live paths with each sequence of operations.

    A path is live if no operation on it outputs zero; nodes on no live path are dead. All features are invariant
    under renumbering of the nodes.

    Mean and standard deviation are those of the whole space or, if it is larger, of 65,536 cells drawn with a fixed
    seed. The columns of **bigrams** and of **strings** are bins of a histogram and share one scale (the root of their
    mean variance), so that rare bins do not dominate distances. Columns that are constant, or equal to an earlier
    column of the same group, are dropped; :attr:`feature_names` depends only on the space.

    Args:
        space: The search space, any :class:`~pyg_nas_np.spaces.CellSpace`.
        standardize: Whether to standardise columns to mean 0 and (mean) standard deviation 1 over the space.
        groups: Names of the groups to compute. (default: all)

    Raises:
        ValueError: If a group is unknown or has no column in the space.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> features = MetaFeatures(space, standardize=False, groups=("ops", "cost"))
        >>> features.feature_names[:3]
        ['count_none', 'count_skip_connect', 'count_nor_conv_1x1']
        >>> features(space.encode(space[6111])).meta[0, :5]
        tensor([0., 1., 1., 4., 0.])
    """

    def __init__(self, space: CellSpace[Any], *, standardize: bool = True, groups: Sequence[str] | None = None) -> None:
        unknown = [group for group in groups or () if group not in BLOCKS]
        if unknown:
            raise ValueError(f"unknown feature group {unknown[0]!r}; groups: {', '.join(BLOCKS)}")
        self.space = space
        self.standardize = standardize
        self._latest: tuple[Tensor, Tensor] | None = None
        self.groups = tuple(BLOCKS) if groups is None else tuple(group for group in BLOCKS if group in groups)

    # -- columns ----------------------------------------------------------------------------------------------------

    @property
    def feature_names(self) -> list[str]:
        r"""Names of the ``F`` columns."""
        return list(self._statistics.columns.names)

    @property
    def signature(self) -> list[str]:
        r"""What a predictor that was fitted on these columns depends on: their names."""
        return self.feature_names

    @property
    def feature_groups(self) -> Mapping[str, list[int]]:
        r"""Positions of the columns of each group."""
        return {name: list(columns) for name, columns in self._statistics.columns.groups.items()}

    # -- computing --------------------------------------------------------------------------------------------------

    @fixed_defaults
    def table(self, archs: Archs = None) -> Tensor:
        r"""Features of many architectures.

        The table of the whole space is cached and used for index tensors that cover at least half of the space. The
        table of the latest index tensor with at least :data:`CHUNK` entries is cached too. Caching does not change any
        bit of the result.

        Args:
            archs: Architectures, a tensor of official indices, or :obj:`None` for the whole space.

        Returns:
            ``[B, F]`` float32.

        Raises:
            InvalidArchitectureError: If the space's graph of an architecture is cyclic, has not exactly one input and
                one output, or is larger than all graphs that the statistics come from.
        """
        if archs is None:
            # A copy, because the caller may write to the result.
            return self._whole.clone()
        if isinstance(archs, Tensor):
            rows = self.space.check_indices(archs)
            if 2 * rows.numel() >= self.space.size:
                return self._whole[rows]
            if rows.numel() >= CHUNK:
                # A search predicts the same part of a large space repeatedly.
                if self._latest is None or not torch.equal(self._latest[0], rows):
                    self._latest = rows.clone(), self._finish(rows, self._statistics)
                return self._latest[1].clone()
        return self._finish(archs, self._statistics)

    def forward(self, data: Data) -> Data:
        r"""Adds ``data.meta`` to one graph of the space, whatever the order of its nodes.

        Raises:
            InvalidArchitectureError: If the graph is not one of the space.
        """
        data.meta = self.table([self.space.decode(data)])
        return data

    @cached_property
    @fixed_defaults
    def _whole(self) -> Tensor:
        stats = self._statistics
        return self._finish(None, stats) if stats.table is None else stats.table

    @cached_property
    @fixed_defaults
    def _statistics(self) -> _Statistics:
        whole = self.space.size <= REFERENCE
        reference = None if whole else seeded_sample(self.space, REFERENCE)
        width = int(self.space.dense(reference).num_nodes.max())
        # The first part on one thread, because spaces that compute a table once do it here.
        first, *rest = self._chunks(reference)
        parts = [self._raw(first, width), *map_chunks(lambda part: self._raw(part, width), rest)]
        raw = torch.cat([values for _, values in parts])
        columns = parts[0][0]
        found = informative(columns, raw, HISTOGRAMS)
        if not found.keep:
            raise ValueError(f"every feature of the groups {', '.join(self.groups)} is constant over {self.space!r}")
        stats = _Statistics(width, found, None)
        return stats._replace(table=found.scale(raw, self.standardize)) if whole else stats

    def _finish(self, archs: Archs, stats: _Statistics) -> Tensor:
        parts = map_chunks(
            lambda part: stats.columns.scale(self._raw(part, stats.width)[1], self.standardize), self._chunks(archs)
        )
        return torch.cat(parts) if parts else torch.empty(0, len(stats.columns.names))

    def _chunks(self, archs: Archs) -> Sequence[Sequence[Any] | Tensor]:
        return chunked(torch.arange(len(self.space)) if archs is None else archs, CHUNK)

    def _raw(self, archs: Sequence[Any] | Tensor, width: int) -> tuple[list[tuple[str, str]], Tensor]:
        """Name and group of every column, and the columns, ``[B, F']`` float64, constant ones included."""
        space = self.space
        dense = _resize(space.dense(archs), width)
        cells = Cells(space, dense, space.batch_num_parameters(archs), space.batch_flops(archs))
        names: list[tuple[str, str]] = []
        columns = []
        for group in self.groups:
            block_names, values = BLOCKS[group](cells)
            names += [(name, group) for name in block_names]
            columns.append(values.double())
        return names, torch.cat(columns, dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, standardize={self.standardize}, groups={self.groups})"


def _resize(graphs: DenseGraphs, width: int) -> DenseGraphs:
    largest = int(graphs.num_nodes.max())
    if largest > width:
        raise InvalidArchitectureError(
            f"an architecture has {largest} nodes; the features know graphs of up to {width} nodes"
        )
    extra = width - graphs.ops.size(1)
    return DenseGraphs(
        pad(graphs.adjacency, (0, extra, 0, extra)), pad(graphs.ops, (0, extra), value=-1), graphs.num_nodes
    )
