r"""Ranking of candidates that do not fit into memory: Parquet files, folders of them, long CSV files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyg_nas_np.datasets.measurements import as_number, matched
from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.spaces import Repeat, TableView
from pyg_nas_np.spaces.columns import has_numbers, table_columns
from pyg_nas_np.spaces.inference import EMPTY, parsed
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, map_chunks, require
from pyg_nas_np.utils.histogram import Histogram
from pyg_nas_np.utils.table_files import is_parquet, read_batches

BATCH = 1 << 14
"""Rows that are predicted at a time, on each thread."""

PREDICTED, STD = "predicted", "std"
"""Columns that are added to candidates."""


class PredictedRows(NamedTuple):
    r"""Some rows of a pool with their predictions.

    Attributes:
        rows: ``n`` rows with all their columns, a :class:`pyarrow.RecordBatch`.
        mean: Predicted labels, ``[n]`` float64.
        std: Their standard deviations, ``[n]`` float64.
        first_row: Position of the first one in the pool.
    """

    rows: Any
    mean: Tensor
    std: Tensor
    first_row: int = 0


class PoolRanking:
    r"""The best candidates of a pool, and how the predictions of all are distributed.

    Rankings of parts of a pool can be merged; of candidates with equal predictions, the earlier ones stay.

    Args:
        k: Candidates that are kept.
        maximize: Whether larger labels are better.
    """

    def __init__(self, k: int, maximize: bool = True) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k, self.maximize = k, maximize
        self.best: Any = None
        r"""The best rows in their order, a :class:`pyarrow.Table` of all their columns, ``predicted`` and ``std``."""
        self.rows: np.ndarray[Any, Any] = np.empty(0, dtype=np.int64)
        r"""Their positions in the pool, int64; in the parts, where rankings of parts were merged."""
        self.distribution = Histogram()
        r"""Predicted labels of all rows; its quantiles are off by less than 3.1e-5 of their range."""

    def __len__(self) -> int:
        return self.distribution.count

    def update(self, part: PredictedRows) -> None:
        r"""Adds some rows."""
        pyarrow = require("pyarrow", "data")
        mean = part.mean.numpy()
        self.distribution.update(mean)
        scores = mean if self.maximize else -mean
        keep = np.arange(len(mean))
        if self.best is not None and len(self.best) == self.k:
            # Those that come later must be better.
            keep = np.nonzero(scores > self._scores(self.best)[-1])[0]
        if len(keep) > self.k:
            keep = np.sort(keep[np.argsort(-scores[keep], kind="stable")[: self.k]])
        if len(keep):
            rows = pyarrow.Table.from_batches([part.rows]).take(pyarrow.array(keep))
            rows = rows.drop_columns([name for name in (PREDICTED, STD) if name in rows.column_names])
            rows = rows.append_column(PREDICTED, pyarrow.array(mean[keep]))
            self._add(rows.append_column(STD, pyarrow.array(part.std.numpy()[keep])), part.first_row + keep)

    def merge(self, other: PoolRanking) -> None:
        r"""Adds the ranking of other rows."""
        self.distribution.merge(other.distribution)
        if other.best is not None:
            self._add(other.best, other.rows)

    def _add(self, rows: Any, positions: np.ndarray[Any, Any]) -> None:
        pyarrow = require("pyarrow", "data")
        if self.best is not None:
            # Files may differ in the types of columns, and whether they have them.
            rows = pyarrow.concat_tables([self.best, rows], promote_options="permissive")
        order = np.argsort(-self._scores(rows), kind="stable")[: self.k]
        self.rows = np.concatenate([self.rows, positions])[order]
        self.best = rows.take(pyarrow.array(order)).combine_chunks()

    def _scores(self, rows: Any) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = rows.column(PREDICTED).to_numpy()
        return values if self.maximize else -values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({0 if self.best is None else len(self.best)} of {len(self)})"


def rank_pool(
    predictor: Predictor, pool: str | os.PathLike[str], k: int = 100, *, column: str = "arch", batch_rows: int = BATCH
) -> PoolRanking:
    r"""Ranks the candidates of a file of any length; memory does not grow with it.

    Args:
        predictor: A fitted predictor.
        pool: As of :func:`stream_predictions`.
        k: Candidates that are kept.
        column: Column of the architectures, where they are not records.
        batch_rows: Rows that are predicted at a time, on each thread.

    Returns:
        The best candidates with all their columns, and the distribution of all predictions.

    Raises:
        DataFileError: If a file is missing or damaged, or has no row.
        InvalidArchitectureError: If a row is no architecture of the predictor's space; the message names it.
        InvalidSpaceError: If the column of a parameter is missing.
        MissingExtraError: If pyarrow is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from pyg_nas_np.predictors import RidgePredictor
        >>> predictor = RidgePredictor().fit([{"depth": d} for d in (2, 4, 8, 16)], [0.6, 0.7, 0.8, 0.9])
        >>> with TemporaryDirectory() as folder:
        ...     with open(f"{folder}/pool.csv", "w") as file:
        ...         _ = file.write("name,depth\n" + "".join(f"net{d},{d}\n" for d in range(1, 21)))
        ...     ranking = rank_pool(predictor, f"{folder}/pool.csv", k=2)
        >>> ranking.best.column("name").to_pylist(), len(ranking)
        (['net20', 'net19'], 20)
    """
    ranking = PoolRanking(k, predictor.transform_.maximize)
    for part in stream_predictions(predictor, pool, column=column, batch_rows=batch_rows):
        ranking.update(part)
    if not len(ranking):
        raise DataFileError(f"{os.fspath(pool)} has no row")
    return ranking


def stream_predictions(
    predictor: Predictor, pool: str | os.PathLike[str], *, column: str = "arch", batch_rows: int = BATCH
) -> Iterator[PredictedRows]:
    r"""Predicts the rows of a file part by part, in their order.

    Args:
        predictor: A fitted predictor.
        pool: A Parquet or CSV file, or a folder of Parquet files. Columns are matched by name, with or without the
            prefix of a tool (``params_``, ``config/`` ...); others are handed through.
        column: Column of the architectures, where they are not records.
        batch_rows: Rows that are predicted at a time, on each thread.

    Raises:
        DataFileError: If a file is missing or damaged.
        InvalidArchitectureError: If a row is no architecture of the predictor's space; the message names it.
        InvalidSpaceError: If the column of a parameter is missing.
        MissingExtraError: If pyarrow is not installed.
    """
    check_is_fitted(predictor, "transform_")
    batches, start = read_batches(pool, batch_rows, EMPTY), 0
    while group := list(islice(batches, torch.get_num_threads())):
        starts = list(accumulate((rows.num_rows for rows in group), initial=start))
        parts = zip(group, starts[:-1], strict=True)
        yield from map_chunks(lambda part: predict_rows(predictor, part[0], column=column, first_row=part[1]), parts)
        start = starts[-1]


def spread_rows(pool: str | os.PathLike[str], count: int) -> dict[str, list[Any]]:
    r"""Returns rows of a file at equal distances, by which a space can be inferred and features standardised.

    Args:
        pool: As of :func:`stream_predictions`.
        count: Rows that are wanted at least, as far as there are so many; at most twice as many.

    Returns:
        Values by column, see :func:`plain_columns`.

    Raises:
        DataFileError: If a file is missing or damaged, or has no row.
        MissingExtraError: If pyarrow is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with open(f"{folder}/pool.csv", "w") as file:
        ...         _ = file.write("depth\n" + "".join(f"{d}\n" for d in range(20)))
        ...     spread_rows(f"{folder}/pool.csv", 3)
        {'depth': [0, 4, 8, 12, 16]}
    """
    pyarrow = require("pyarrow", "data")
    kept, stride, start = None, 1, 0
    for rows in read_batches(pool, BATCH, EMPTY):
        every = pyarrow.array(range(-start % stride, rows.num_rows, stride), pyarrow.int64())
        part = pyarrow.Table.from_batches([rows]).take(every)
        kept = part if kept is None else pyarrow.concat_tables([kept, part], promote_options="permissive")
        start += rows.num_rows
        while len(kept) >= 2 * count:
            kept, stride = kept.take(pyarrow.array(range(0, len(kept), 2))), 2 * stride
    if kept is None or not len(kept):
        raise DataFileError(f"{os.fspath(pool)} has no row")
    return plain_columns(kept, pool)


def plain_columns(table: Any, pool: str | os.PathLike[str]) -> dict[str, list[Any]]:
    r"""Returns columns of a pool as lists; those of a CSV file, which has no types, as what all of their text is.

    Args:
        table: Some rows, a :class:`pyarrow.Table`.
        pool: The file or folder that they are from.
    """
    columns: dict[str, list[Any]] = table.to_pydict()
    if os.path.isdir(pool) or is_parquet(pool):
        return columns
    texts = {name for name, column in columns.items() if all(isinstance(cell, str | None) for cell in column)}
    return {name: parsed(column) if name in texts else column for name, column in columns.items()}


def predict_rows(predictor: Predictor, rows: Any, *, column: str = "arch", first_row: int = 0) -> PredictedRows:
    r"""Predicts the rows of a part of a table.

    Args:
        predictor: A fitted predictor.
        rows: ``n`` rows, a :class:`pyarrow.RecordBatch` or :class:`pyarrow.Table`.
        column: Column of the architectures, where they are not records.
        first_row: Position of the first one, for messages.

    Raises:
        InvalidArchitectureError: If a row is no architecture of the predictor's space; the message names it.
        InvalidSpaceError: If the column of a parameter is missing.
    """
    space, given = predictor.space_, table_columns(rows) or {}
    if isinstance(space, TableView):
        archs: Any = space.check_table(_columns(space, given), first_row=first_row)
    else:
        archs = []
        for row, cell in enumerate(given[matched([column], given)[column]].to_pylist(), start=first_row):
            try:
                archs.append(space.from_str(cell) if isinstance(cell, str) else space.check(cell))
            except InvalidArchitectureError as error:
                raise InvalidArchitectureError(f"row {row}: {error}") from None
    return PredictedRows(rows, *predictor.predict(archs, return_std=True), first_row)


def _columns(space: TableView[Any], given: dict[str, Any]) -> dict[str, Any]:
    """The columns of parameters, costs and scores, by their names in the space."""
    parameters = space.table_parameters
    optional = {name for name, parameter in parameters.items() if parameter.optional or parameter.when}
    places = matched(parameters, given, optional) | matched(space.known_columns, given, space.known_columns)
    columns = {name: given[place] for name, place in places.items()}
    for name, column in columns.items():
        # Text, as all of a CSV file.
        if str(column.type).endswith("string"):
            if isinstance(parameters.get(name), Repeat):
                columns[name] = parsed(column.to_pylist())
            elif name not in parameters or has_numbers(parameters[name]):
                columns[name] = _as_numbers(column)
    return columns


def _as_numbers(column: Any) -> Any:
    """A column of text as numbers; what is none stays text, so that the check of its row names it."""
    try:
        return column.cast("float64")
    except require("pyarrow", "data").ArrowInvalid:
        cells = column.to_pylist()
        return [cell if (number := as_number(cell)) is None else number for cell in cells]
