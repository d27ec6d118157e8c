r"""Simulated searches on a table of measurements."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.datasets import ArchitectureDataset
from pyg_nas_np.predictors.inputs import Architectures
from pyg_nas_np.predictors.labels import Labels, check_labels
from pyg_nas_np.search.base import Search
from pyg_nas_np.spaces.base import require_index
from pyg_nas_np.utils import MissingLabelsError, check_count


class Trace(NamedTuple):
    r"""The best result of a search after each of its ``Q`` measurements.

    Shapes:
        - **indices:** official indices in the order of measurement, int64 ``[Q]``.
        - **best_y:** best measurement so far, float64 ``[Q]``.
        - **best_rank:** its rank in the table; 1 is the optimum, ties share the best rank; int64 ``[Q]``.
        - **regret:** distance from the optimum, not negative, float64 ``[Q]``.
    """

    indices: Tensor
    best_y: Tensor
    best_rank: Tensor
    regret: Tensor

    @property
    def queries_to_optimum(self) -> int | None:
        r"""Number of measurements until the optimum was found, or :obj:`None` if it was not."""
        found = (self.best_rank == 1).nonzero()
        return int(found[0]) + 1 if found.numel() else None


def simulate(
    search: Search[Any], table: ArchitectureDataset | Labels, queries: int, *, batch: int = 1, stop: bool = False
) -> Trace:
    r"""Runs a search that measures by looking up labels.

    Measurements that the search was told before count as its first ones, so that a search can be resumed.

    Args:
        search: The search; its candidates must be labelled.
        table: A data set, or labels by official index, NaN where there is none, ``[len(space)]``.
        queries: Total number of measurements.
        batch: Number of architectures asked for at a time.
        stop: Whether to stop at the optimum of the table.

    Raises:
        MissingLabelsError: If the search asks for an architecture without a label.
        InvalidLabelsError: If the table has no label at all.
        ValueError: If :obj:`queries` or :obj:`batch` is not positive.

    Example:
        >>> from pyg_nas_np.search import RandomSearch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> trace = simulate(RandomSearch(space), space.batch_flops(), queries=20)
        >>> trace.best_rank.shape, bool((trace.regret.diff() <= 0).all())
        (torch.Size([20]), True)
    """
    check_count("queries", queries)
    check_count("batch", batch)
    labels = _labels(search, table)
    merit = labels if search.maximize else -labels
    merit = merit[~merit.isnan()]
    known = check_labels(merit)
    best = float(known.max())
    while len(search.index) < queries:
        archs = search.ask(min(batch, queries - len(search.index)))
        if not archs:
            break
        index = Architectures(search.space, archs).index
        missing = labels[index].isnan()
        if bool(missing.any()):
            raise MissingLabelsError(
                f"the search asked for {search.space.to_str(archs[int(missing.nonzero()[0])])}, which has no label; "
                "pass candidates= to the search"
            )
        search.tell(index, labels[index])
        if stop and float(search.best[1]) * (1 if search.maximize else -1) >= best:
            break
    return trace_of(search, labels)


def trace_of(search: Search[Any], table: ArchitectureDataset | Labels) -> Trace:
    r"""Returns the trace of a search from its measurements and the labels of a table."""
    labels = _labels(search, table)
    sign = 1.0 if search.maximize else -1.0
    merit = sign * labels[~labels.isnan()]
    ascending = merit.sort().values
    reached = (sign * search.y).cummax(dim=0).values if len(search.y) else search.y
    rank = 1 + merit.numel() - torch.searchsorted(ascending, reached, right=True)
    return Trace(search.index, sign * reached, rank, (ascending[-1] - reached).clamp_min(0.0))


def _labels(search: Search[Any], table: ArchitectureDataset | Labels) -> Tensor:
    count = len(require_index(search.space))
    if isinstance(table, ArchitectureDataset):
        labels = torch.full((count,), torch.nan, dtype=torch.float64)
        labels[table.arch_index] = table.y.double()
        return labels
    labels = torch.as_tensor(table).double()
    if labels.shape != (count,):
        raise ValueError(f"labels must be one for each of the {count} architectures, got {labels.shape}")
    return labels
