r"""The file of trained networks that the user has: which columns are parameters, which one is the label."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.spaces.inference import read_records, records_of
from pyg_nas_np.spaces.parameters import is_missing, plain
from pyg_nas_np.utils.errors import InvalidLabelsError, InvalidSpaceError


@dataclass(frozen=True)
class Measurements:
    r"""Rows of a table that are architectures, with the labels of some of them.

    Attributes:
        records: The parameters of each of ``n`` rows, labelled or not.
        labels: ``[n]`` float64, NaN where a row has no label.
        noise: Standard deviation of each label, ``[n]`` float64; :obj:`None` where the table does not tell it.
        target: Name of the column of the labels.
        maximize: Whether larger labels are better; :obj:`None` where the table does not tell.
        columns: What is neither parameter nor label, by name: further metrics, names, times.
        rows: Positions of the rows in the table.
        notes: What was taken for what, one line each.
    """

    records: list[dict[str, Any]]
    labels: Tensor
    noise: Tensor | None
    target: str
    maximize: bool | None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> Tensor:
        r"""Which rows have a label, bool ``[n]``."""
        return ~self.labels.isnan()

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Candidates:
    r"""Rows of a table that are architectures to choose from.

    Attributes:
        records: The parameters of each of ``n`` rows.
        measured: Which rows are among the labelled ones, bool ``[n]``.
        columns: What is no parameter, by name.
        rows: Positions of the rows in the table.
        notes: What was found, one line each.
    """

    records: list[dict[str, Any]]
    measured: Tensor
    columns: dict[str, list[Any]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)


def read_measurements(
    source: Any, target: str | None = None, *, ignore: Collection[str] = (), minimize: bool | None = None
) -> Measurements:
    r"""Reads a table of trained networks in the form in which the user has it.

    Args:
        source: The path of a CSV file, a :class:`pandas.DataFrame`, or a list of dictionaries.
        target: The column of the labels.
        ignore: Columns that are neither parameters nor labels.
        minimize: Whether smaller labels are better. (default: what the table tells)

    Raises:
        DataFileError: If the file cannot be read.
        InvalidLabelsError: If there is no such column of labels, or its values are no labels.
        InvalidSpaceError: If there is no such column to ignore.
    """
    rows = _rows(source)
    names = list(dict.fromkeys(key for row in rows for key in row))
    for name in ignore:
        _require(name, names, InvalidSpaceError, "to ignore")
    if target is None:
        raise InvalidLabelsError(f"which column has the labels? Name one as target: {', '.join(names)}")
    _require(target, names, InvalidLabelsError, "of labels")
    labels = torch.tensor([_label(row.get(target), i, target) for i, row in enumerate(rows)], dtype=torch.float64)
    left = {target, *ignore}
    return Measurements(
        [{key: value for key, value in row.items() if key not in left} for row in rows],
        labels,
        None,
        target,
        None if minimize is None else not minimize,
        {name: [row.get(name) for row in rows] for name in ignore},
        list(range(len(rows))),
        [],
    )


def read_pool(source: Any, like: Measurements, *, ignore: Collection[str] = ()) -> Candidates:
    r"""Reads candidates from a table with the parameters of measurements, in any order of columns.

    Args:
        source: As of :func:`read_measurements`.
        like: The measurements.
        ignore: Columns that are no parameters.

    Raises:
        DataFileError: If the file cannot be read.
        InvalidSpaceError: If a parameter is missing.
    """
    rows = _rows(source)
    names = list(dict.fromkeys(key for row in rows for key in row))
    parameters = list(dict.fromkeys(key for record in like.records for key in record))
    for name in parameters:
        _require(name, names, InvalidSpaceError, "of that parameter")
    known = [record for record, label in zip(like.records, like.labels.tolist(), strict=True) if label == label]
    records = [{name: row.get(name) for name in parameters} for row in rows]
    others = [name for name in names if name not in parameters]
    return Candidates(
        records,
        torch.tensor([record in known for record in records], dtype=torch.bool),
        {name: [row.get(name) for row in rows] for name in others},
        list(range(len(rows))),
        [],
    )


def _rows(source: Any) -> list[dict[str, Any]]:
    rows = read_records(source) if isinstance(source, str | os.PathLike) else records_of(source)
    if not rows:
        raise InvalidLabelsError("the table has no row; give at least one measurement")
    return rows


def _require(name: str, names: Sequence[str], error: type[Exception], what: str) -> None:
    if name not in names:
        close = get_close_matches(name, names, 3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"the columns are {', '.join(names)}"
        raise error(f"there is no column {name!r} {what}; {hint}")


def _label(value: Any, row: int, column: str) -> float:
    value = plain(value)
    if is_missing(value):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
        raise InvalidLabelsError(
            f"row {row}, column {column!r}: {value!r} is not a finite number; leave the cell empty where there is none"
        )
    return float(value)
