r"""The user's own measurements as a PyG data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_nas_np.datasets.base import Check
from pyg_nas_np.datasets.measurements import MeasuredTable
from pyg_nas_np.datasets.splits import Split, budget_splits, class_split
from pyg_nas_np.features import shared_features
from pyg_nas_np.spaces import EnumerableSpace, GraphView, ParameterSpace, RecordView, SearchSpace
from pyg_nas_np.spaces.parameters import plain
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.errors import InvalidArchitectureError, InvalidLabelsError, VerificationError

_SPREAD = 0.5
"""Standard deviation within repeats, as a part of that of all labels, from which a table is suspicious."""


class TableDataset(InMemoryDataset):  # type: ignore[misc]
    r"""Measurements of architectures, one item a row of the table.

    Each item has ``y`` ``[1]`` (float32, NaN where :attr:`metric` was not measured), ``arch`` (the architecture as a
    string of the space) and ``row`` ``[1]`` (its row in the table); where architectures are cells, the ``x`` and
    ``edge_index`` of their graph; elsewhere ``x`` ``[1, F]``, its row of :obj:`features`. An architecture may
    occur in several rows: splits keep them on one side.

    A predictor takes the data set, or a part of it, as it is: ``predictor.fit(dataset[dataset.label_mask])``.

    Args:
        space: The search space of the architectures. (default: inferred from the columns that are no targets)
        table: Whatever :func:`~pyg_nas_np.datasets.read_measurements` takes: a path, a frame, rows, the export of
            another tool. Where the space has records of parameters, these are the columns. Otherwise, a column
            :obj:`column` has the strings of the architectures, or their official indices.
        targets: The column of the labels, or several of different metrics. (default: the only one that an export has)
        metric: The one of :obj:`targets` that is in ``y``. (default: the first)
        maximize: Whether larger labels are better, one answer or one a target. (default: as the table tells, otherwise
            true)
        ignore: Columns that are neither parameters nor targets.
        column: The column of the architectures, where they are not records.
        features: Computes ``[n, F]`` from a list of architectures. (default: the features that predictors see, of
            spaces whose architectures are no cells)
        transform: Applied at every access.

    Raises:
        DataFileError: If the file cannot be read.
        InvalidArchitectureError: If a row is not an architecture of the space; the message names the row.
        InvalidLabelsError: If there is no such target, or a label is not a number or infinite.
        InvalidSpaceError: If no space can be inferred.

    Example:
        >>> rows = [{"depth": 2, "act": "relu", "acc": 0.8}, {"depth": 4, "act": "gelu", "acc": 0.9}]
        >>> dataset = TableDataset(None, rows, targets="acc")
        >>> dataset
        TableDataset(2, metric='acc')
        >>> dataset.space.describe().splitlines()[0]
        'depth  Integer(2, 4, step=2)'
        >>> dataset[1]
        Data(x=[1, 2], y=[1], arch='{"depth":4,"act":"gelu"}', row=[1])
    """

    def __init__(
        self,
        space: SearchSpace[Any] | None,
        table: Any,
        targets: str | Sequence[str] | None = None,
        *,
        metric: str | None = None,
        maximize: bool | Mapping[str, bool] | None = None,
        ignore: Sequence[str] = (),
        column: str = "arch",
        features: Callable[[list[Any]], Tensor] | None = None,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        super().__init__(None, transform)
        measured = MeasuredTable(table)
        targets = measured.target(None) if targets is None else targets
        names = [targets] if isinstance(targets, str) else list(targets)
        columns = {name: measured.column(name) for name in names}
        left = measured.records(measured.parameters([*columns.values(), *map(measured.ignored, ignore)]))
        self._rows = measured.whole(left)
        self.metrics = {name: measured.labels(column)[self._rows] for name, column in columns.items()}
        self.metric = (names or [""])[0] if metric is None else metric
        if self.metric not in self.metrics:
            raise InvalidLabelsError(f"{self.metric!r} is not one of the targets {', '.join(names) or '(none)'}")
        told = {name: measured.export.maximize.get(column, True) for name, column in columns.items()}
        given = (
            maximize if isinstance(maximize, Mapping) else {} if maximize is None else dict.fromkeys(names, maximize)
        )
        self.maximize = bool({**told, **given}[self.metric])
        kept = [left[row] for row in self._rows]
        self.space: SearchSpace[Any] = ParameterSpace.from_records(kept) if space is None else space
        self._archs = [
            _arch(self.space, record, measured.where(row), column) for row, record in zip(self._rows, kept, strict=True)
        ]
        self._data, self.slices = fixed_defaults(self.collate)(self._items(features))

    def _items(self, features: Callable[[list[Any]], Tensor] | None) -> list[Data]:
        y, rows = self.metrics[self.metric].float(), torch.tensor(self._rows, device="cpu")
        x = self._descriptors() if features is None else features(self._archs)
        items = []
        for i, arch in enumerate(self._archs):
            row = {"y": y[i : i + 1], "arch": self.space.to_str(arch), "row": rows[i : i + 1]}
            if x is not None:
                items.append(Data(x=x[i : i + 1], **row))
            elif isinstance(self.space, GraphView):
                graph = self.space.encode(arch)
                items.append(Data(x=graph.x, edge_index=graph.edge_index, **row))
            else:
                items.append(Data(num_nodes=1, **row))
        return items

    def _descriptors(self) -> Tensor | None:
        """What predictors see of architectures that are no graphs; None of a space that tells nothing of them."""
        if isinstance(self.space, GraphView):
            return None
        try:
            return shared_features(self.space).table(self._archs)
        except InvalidArchitectureError:
            return None

    # -- what was measured ------------------------------------------------------------------------------------------

    @property
    def rows(self) -> Tensor:
        r"""Rows of the table behind the selected items, int64 ``[len(self)]``."""
        return torch.tensor([self._rows[i] for i in self.indices()], dtype=torch.long, device="cpu")

    @property
    def archs(self) -> list[Any]:
        r"""The architectures of the selected items."""
        return [self._archs[i] for i in self.indices()]

    @property
    def y(self) -> Tensor:
        r"""Labels of the selected items, float64 ``[len(self)]``, NaN where there is none."""
        return self.metrics[self.metric][list(self.indices())]

    @property
    def label_mask(self) -> Tensor:
        r"""Which selected items are labelled, bool ``[len(self)]``."""
        return ~self.y.isnan()

    @cached_property
    def group(self) -> Tensor:
        r"""Which rows are of one architecture, int64 ``[n]`` of the whole data set, numbered by first row.

        Architectures whose graphs the space calls equal are one.
        """
        space = self.space
        keys = space.batch_canonical(self._archs) if isinstance(space, GraphView) else self._archs
        first: dict[Any, int] = {}
        return torch.tensor([first.setdefault(key, len(first)) for key in keys], dtype=torch.long, device="cpu")

    # -- splits and verification ------------------------------------------------------------------------------------

    def split(self, n_train: int, n_valid: int = 0, *, seed: int = 0) -> Split:
        r"""Splits the labelled items into training, validation and test positions; repeats are on one side.

        Args:
            n_train: Number of training labels.
            n_valid: Number of validation labels, before those of training architectures are left out.
            seed: Seed of the draw; splits of one seed are nested.

        Raises:
            ValueError: If the sizes are not positive or leave nothing to test.
        """
        return class_split(
            self.label_mask.nonzero().flatten(), self.group[list(self.indices())], n_train, n_valid, seed=seed
        )

    def split_by_budget(self, budgets: Sequence[int], *, seed: int = 0) -> Mapping[int, Split]:
        r"""Splits for growing label budgets: nested training sets and one common test set, as positions."""
        return budget_splits(self.label_mask.nonzero().flatten(), budgets, self.group[list(self.indices())], seed=seed)

    def verify(self) -> list[Check]:
        r"""Checks that the labels of each metric vary, and that repeats of an architecture agree.

        Repeats that differ by half as much as all labels are a sign of shifted rows, mixed units, or a parameter that
        is missing in the table.

        Returns:
            The checks, all of which hold.

        Raises:
            VerificationError: If any fails.
        """
        checks = []
        for name, values in self.metrics.items():
            known = ~values.isnan()
            labels, groups = values[known], self.group[known].unique(return_inverse=True)[1]
            distinct = labels.unique().numel()
            checks.append(Check(f"{name}: distinct labels beyond one", max(1, distinct - 1), distinct - 1, 0.0))
            counts = groups.bincount()
            if labels.numel() > counts.numel() > 1 and distinct > 1:
                means = torch.zeros_like(counts, dtype=torch.float64).index_add(0, groups, labels) / counts
                within = (labels - means[groups]).square().sum() / (labels.numel() - counts.numel())
                spread = float(within.sqrt() / labels.std())
                checks.append(Check(f"{name}: spread of repeats in that of all", 0.0, spread, _SPREAD))
        failed = [check for check in checks if not check.ok]
        if failed:
            lines = "; ".join(f"{check.name}: {check.actual:g}" for check in failed)
            raise VerificationError(f"{type(self).__name__} fails {len(failed)} checks: {lines}")
        return checks

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, metric={self.metric!r})"


def _arch(space: SearchSpace[Any], row: Mapping[str, Any], place: str, column: str) -> Any:
    try:
        if isinstance(space, RecordView):
            return space.check(row)
        if column not in row:
            raise InvalidArchitectureError(f"there is no column {column!r} of architectures; its name is column=")
        given = plain(row[column])
        if isinstance(given, int) and isinstance(space, EnumerableSpace):
            return space[given]
        return space.from_str(given) if isinstance(given, str) else space.check(given)
    except (InvalidArchitectureError, IndexError) as error:
        raise InvalidArchitectureError(f"{place}: {error}") from None
