r"""The file of trained networks that the user has: which columns are parameters, which one is the label."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.datasets.exports import METRIC_PREFIXES, PREFIXES, Export, is_study, read_study, recognised
from pyg_nas_np.spaces.inference import EMPTY, Columns, columns_of, left_out, parsed, read_columns, rows_of
from pyg_nas_np.spaces.parameters import is_missing, plain
from pyg_nas_np.utils.errors import InvalidLabelsError, InvalidSpaceError
from pyg_nas_np.utils.table_files import is_parquet, read_csv

_NO_LABEL = (*EMPTY, "none", "-", "--", "?")
_FACTOR = 100.0
"""How far apart numbers are that were written in two units: percent and fractions."""


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

    @property
    def unlabelled(self) -> Candidates:
        r"""The rows without a label, as candidates."""
        places = (~self.labelled).nonzero().flatten().tolist()
        records = [self.records[i] for i in places]
        columns = {name: [column[i] for i in places] for name, column in self.columns.items()}
        return Candidates(records, _among(records, self), columns, [self.rows[i] for i in places])

    def __len__(self) -> int:
        return len(self.records)


def read_measurements(
    source: Any, target: str | None = None, *, ignore: Collection[str] = (), minimize: bool | None = None
) -> Measurements:
    r"""Reads a table of trained networks in the form in which the user has it.

    Exports are told by their columns: Optuna's ``trials_dataframe`` (``params_*``, ``value`` or ``values_*``), Ray
    Tune's results (``config/*``), MLflow's ``search_runs`` (``params.*``, ``metrics.*``), runs of Weights & Biases
    (``State``, ``Created``, ``_step`` ...; or ``config`` and ``summary``), scikit-learn's ``cv_results_``
    (``param_*``, ``mean_test_*``). Parameters are called without the prefix. Trials that were pruned, failed or still
    run have no label; where they lack parameters that all others have, they are left out. Of all other tables, every
    column is a parameter that is neither :obj:`target` nor in :obj:`ignore`.

    Empty cells, ``nan``, ``n/a`` and the like are rows without a label. Repeats of an architecture are kept.
    :attr:`Measurements.notes` says what was taken for what, and what looks suspicious.

    Args:
        source: The path of a CSV (also gzipped, with tabs or semicolons) or Parquet file; a
            :class:`pandas.DataFrame`, a :class:`pyarrow.Table`, a dictionary of columns or a list of dictionaries; an
            ``optuna.Study`` or the address of one, ``sqlite:///study.db`` or, where there are several,
            ``sqlite:///study.db#name``; the ``cv_results_`` of scikit-learn; the ``ResultGrid`` of Ray Tune.
        target: The column of the labels, with the prefix of the tool or without. (default: the only one that an export
            has)
        ignore: Columns that are neither parameters nor labels.
        minimize: Whether smaller labels are better. (default: what the table tells)

    Raises:
        DataFileError: If the file or the storage cannot be read.
        InvalidLabelsError: If there is no such column of labels, several might be meant, a value is no finite number,
            or there are fewer than two different labels.
        InvalidSpaceError: If there is no such column to ignore, or no parameter varies.

    Example:
        >>> columns = {"params_depth": [2, 4, 8], "value": [0.7, 0.9, None], "state": ["COMPLETE", "COMPLETE", "FAIL"]}
        >>> found = read_measurements(columns)
        >>> found.records[1], found.labels.tolist()
        ({'depth': 4}, [0.7, 0.9, nan])
        >>> print(*found.notes, sep="\n")
        Optuna trials_dataframe: 1 parameter params_*, label 'value'
        1 FAIL row is no label
        1 of 3 rows without a label
    """
    table = MeasuredTable(source)
    export, column = table.export, table.target(target)
    parameters = table.parameters([column, *map(table.ignored, ignore)])
    labels, records = table.labels(column), table.records(parameters)
    _check(records, labels, column)
    rows = table.whole(records)
    notes = [*_taken(export, list(parameters), column), *table.notes]
    if len(rows) < len(records):
        notes.append(f"{_count(len(records) - len(rows), 'row')} without parameters, or only some, left out")
    records, labels = [records[i] for i in rows], labels[rows]
    spread = export.noise.get(column)
    used = {column, spread, *(raw for raw, name in export.parameters.items() if name in parameters)}
    noise = None if spread is None else table.numbers(spread)[rows]
    maximize = export.maximize.get(column)
    if minimize is not None and maximize is minimize:
        notes.append(f"the table says that {'larger' if maximize else 'smaller'} values of {column!r} are better")
    return Measurements(
        records,
        labels,
        None if noise is None or bool(noise.isnan().all()) else noise,
        column,
        maximize if minimize is None else not minimize,
        {name: [cells[i] for i in rows] for name, cells in export.columns.items() if name not in used},
        rows,
        [*notes, *_doubts(records, labels, column)],
    )


def read_pool(source: Any, like: Measurements, *, ignore: Collection[str] = ()) -> Candidates:
    r"""Reads candidates from a table with the parameters of measurements, in any order, with or without a prefix.

    Candidates that were measured stay, and are marked. Categories that no label has stay too: an inferred space takes
    them. :attr:`Candidates.notes` tells of both, of further columns, and of numbers that look like another unit.

    Args:
        source: As of :func:`read_measurements`.
        like: The measurements.
        ignore: Columns that are no parameters.

    Raises:
        DataFileError: If the file cannot be read.
        InvalidSpaceError: If a parameter is missing, is text here and a number there, or there is no such column to
            ignore.

    Example:
        >>> rows = [{"depth": d, "act": a, "acc": 0.1 * d} for d in (2, 4) for a in ("relu", "gelu")]
        >>> pool = read_pool([{"act": "silu", "depth": 4}, {"act": "relu", "depth": 2}], read_measurements(rows, "acc"))
        >>> pool.records, pool.measured.tolist()
        ([{'depth': 4, 'act': 'silu'}, {'depth': 2, 'act': 'relu'}], [False, True])
        >>> pool.notes
        ["'act' is 'silu' in 1 row, which no label has", '1 candidate was measured already']
    """
    table = MeasuredTable(source)
    dropped = set(map(table.ignored, ignore))
    given = {name: column for name, column in table.export.columns.items() if name not in dropped}
    known = columns_of(like.records) or {}
    places = matched(known, given, left_out(known))
    used = {name: given[places[name]] for name in known if name in places}
    others = {name: cells for name, cells in table.export.columns.items() if name not in places.values()}
    notes = []
    if extra := [name for name in others if name not in dropped]:
        notes.append(f"not used: {_listed(extra)}")
    labelled = [record for record, there in zip(like.records, like.labelled.tolist(), strict=True) if there]
    for name, cells in used.items():
        notes += _differences(name, [record.get(name) for record in labelled], cells)
    records = rows_of(used)
    measured = _among(records, like)
    if twice := int(measured.sum()):
        notes.append(f"{_count(twice, 'candidate')} {'was' if twice == 1 else 'were'} measured already")
    return Candidates(records, measured, others, list(range(len(records))), notes)


def matched(parameters: Iterable[str], columns: Collection[str], optional: Collection[str] = ()) -> dict[str, str]:
    r"""Finds the columns of parameters in another table, which may have the prefix of a tool: parameter → column.

    Args:
        parameters: Names of the parameters.
        columns: Columns of the table.
        optional: Parameters that may be missing.

    Raises:
        InvalidSpaceError: If another one is missing.

    Example:
        >>> matched(["depth"], ["acc", "params_depth"])
        {'depth': 'params_depth'}
    """
    found = {}
    for name in parameters:
        column = next((prefix + name for prefix in PREFIXES if prefix + name in columns), None)
        if column is not None:
            found[name] = column
        elif name not in optional:
            _missing(name, list(columns), InvalidSpaceError, "of that parameter")
    return found


class MeasuredTable:
    r"""A table of measurements in any form, of which each metric can be asked for.

    Args:
        source: As of :func:`read_measurements`.

    Raises:
        DataFileError: If the file or the storage cannot be read.
        InvalidLabelsError: If it is no table, or has no row.
    """

    def __init__(self, source: Any) -> None:
        self.where: Callable[[int], str] = "row {}".format
        if is_study(source):
            self.export = read_study(source)
        elif isinstance(source, str | os.PathLike):
            self.export = recognised(self._read(source))
        else:
            given = source.get_dataframe() if hasattr(source, "get_dataframe") else source
            columns = columns_of(given)
            if columns is None:
                raise InvalidLabelsError(
                    f"a {type(source).__name__} is not a table of measurements; give a path, a DataFrame, a list of "
                    f"dictionaries, a dictionary of columns or an Optuna study"
                )
            self.export = recognised(columns)
        self.num_rows = len(next(iter(self.export.columns.values()), ()))
        if not self.num_rows:
            raise InvalidLabelsError("the table has no row; give at least one measurement")
        self.finished, self.notes = self._finished()

    def _read(self, path: str | os.PathLike[str]) -> dict[str, list[Any]]:
        if is_parquet(path):
            return read_columns(path)
        text = read_csv(path)
        self.where = text.where
        return {name: parsed(text.column(name)) for name in text.header if name}

    def _finished(self) -> tuple[list[bool], list[str]]:
        """Rows whose metrics are labels, and what the others are."""
        if self.export.state is None:
            return [True] * self.num_rows, []
        states = [str(plain(state)).split(".")[-1] for state in self.export.columns[self.export.state]]
        finished = [state in self.export.finished for state in states]
        others = Counter(state for state, done in zip(states, finished, strict=True) if not done)
        words = " and ".join(f"{count} {state}" for state, count in others.items())
        total = sum(others.values())
        verb = "row is no label" if total == 1 else "rows are no labels"
        return finished, [f"{words} {verb}"] if others else []

    def column(self, name: str, error: type[Exception] = InvalidLabelsError, what: str = "of labels") -> str:
        r"""Returns a column by its name or, in an export, by what comes behind the prefix of the tool.

        Raises:
            InvalidLabelsError: If there is none; the message names similar ones.
        """
        columns = self.export.columns
        found = next((prefix + name for prefix in (*METRIC_PREFIXES, *PREFIXES) if prefix + name in columns), None)
        return _missing(name, list(columns), error, what) if found is None else found

    def target(self, name: str | None) -> str:
        r"""Returns the column of the labels that is meant.

        Raises:
            InvalidLabelsError: If there is no such column, or several might be meant.
        """
        if name is not None:
            return self.column(name)
        options = self.export.metrics
        if options is not None and len(options) == 1:
            return options[0]
        if options is None:
            options = [raw for raw in self.export.columns if raw in self.export.parameters]
        what = f"the {self.export.title} have" if self.export.title else "the table has"
        raise InvalidLabelsError(f"{what} several columns that may be labels; name one as target: {_listed(options)}")

    def ignored(self, name: str) -> str:
        r"""Returns a column that is to be ignored.

        Raises:
            InvalidSpaceError: If there is none.
        """
        return self.column(name, InvalidSpaceError, "to ignore")

    def parameters(self, without: Collection[str]) -> Columns:
        r"""Returns the parameters by name, without some columns."""
        given = self.export.parameters.items()
        return {name: self.export.columns[raw] for raw, name in given if raw not in without}

    def records(self, parameters: Columns) -> list[dict[str, Any]]:
        r"""Returns the rows of parameters; there may be none."""
        return rows_of(parameters) if parameters else [{} for _ in range(self.num_rows)]

    def whole(self, records: Sequence[Mapping[str, Any]]) -> list[int]:
        r"""Returns rows that have all their parameters: unfinished ones may have stopped before they chose the rest."""
        there = [frozenset(name for name, value in record.items() if not is_missing(value)) for record in records]
        complete = {names for names, done in zip(there, self.finished, strict=True) if done and names}
        return [i for i, names in enumerate(there) if names in complete]

    def labels(self, column: str) -> Tensor:
        r"""Returns the labels of a column, float64 ``[rows]``, NaN where a row has none or was not finished.

        Raises:
            InvalidLabelsError: If a value is text or infinite; the message names the row.
        """
        numbers = self.numbers(column)
        return numbers.masked_fill(~torch.tensor(self.finished, device="cpu"), math.nan)

    def numbers(self, column: str) -> Tensor:
        r"""Returns a column, float64 ``[rows]``, NaN where it is empty or the row was not finished.

        Raises:
            InvalidLabelsError: If a value is text or infinite; the message names the row.
        """
        cells = zip(self.export.columns[column], self.finished, strict=True)
        # What a failed training reports may be anything.
        values = [self._number(cell, i, column) if done else math.nan for i, (cell, done) in enumerate(cells)]
        return torch.tensor(values, dtype=torch.float64, device="cpu")

    def _number(self, cell: Any, row: int, column: str) -> float:
        cell = plain(cell)
        if is_missing(cell) or (isinstance(cell, str) and cell.strip().casefold() in _NO_LABEL):
            return math.nan
        value = as_number(cell)
        if value is not None and math.isfinite(value):
            return value
        cure = "leave the cell empty where there is none"
        if isinstance(cell, str):
            if re.fullmatch(r"[+-]?\d+,\d+", cell.strip()):
                cure = "write decimals with a point"
            elif cell.strip().endswith("%"):
                cure = "write percentages without the sign"
        raise InvalidLabelsError(f"{self.where(row)}, column {column!r}: {cell!r} is not a finite number; {cure}")


# -- numbers and names ------------------------------------------------------------------------------------------------


def as_number(cell: Any) -> float | None:
    r"""Returns the number that a cell is or writes; :obj:`None` if it is none.

    Example:
        >>> as_number(" 1e3"), as_number("1_000"), as_number(True)
        (1000.0, None, None)
    """
    if isinstance(cell, bool) or not isinstance(cell, int | float | str) or (isinstance(cell, str) and "_" in cell):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _missing(name: str, names: Sequence[str], error: type[Exception], what: str) -> str:
    lower = {other.casefold(): other for other in names}
    close = [lower[match] for match in get_close_matches(name.casefold(), lower, 3)]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"the columns are {_listed(names)}"
    raise error(f"there is no column {name!r} {what}; {hint}")


def _listed(names: Sequence[str], limit: int = 20) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two records have in common that are written in another order or type."""
    return tuple(sorted((name, _plain(value)) for name, value in record.items() if not is_missing(value)))


def _plain(value: Any) -> str:
    value = plain(value)
    if isinstance(value, Mapping):
        return repr(_key(value))
    if isinstance(value, list | tuple):
        return repr([_plain(inner) for inner in value])
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return repr(float(value)) if number else str(value).casefold()


def _among(records: Sequence[Mapping[str, Any]], like: Measurements) -> Tensor:
    """Which records are labelled in other measurements, as far as both tell; bool ``[n]``."""
    names = {name for record in records for name in record}
    known = {
        _key({name: value for name, value in record.items() if name in names})
        for record, there in zip(like.records, like.labelled.tolist(), strict=True)
        if there
    }
    return torch.tensor([_key(record) in known for record in records], dtype=torch.bool, device="cpu")


# -- what is said of a table ------------------------------------------------------------------------------------------


def _taken(export: Export, parameters: Sequence[str], column: str) -> Iterable[str]:
    prefix = next((raw.removesuffix(name) for raw, name in export.parameters.items() if raw != name), "")
    names = f"{prefix}*" if prefix else f"({_listed(parameters)})"
    title = export.title or "plain columns"
    best = "" if column not in export.maximize else f", {'larger' if export.maximize[column] else 'smaller'} is better"
    noise = f", noise {export.noise[column]!r}" if column in export.noise else ""
    yield f"{title}: {_count(len(parameters), 'parameter')} {names}, label {column!r}{noise}{best}"


def _check(records: Sequence[Mapping[str, Any]], labels: Tensor, column: str) -> None:
    known = labels[~labels.isnan()]
    if not known.numel():
        raise InvalidLabelsError(f"no row has a label in column {column!r}; measure at least two architectures")
    if known.unique().numel() < 2:
        raise InvalidLabelsError(
            f"all labels in column {column!r} are {float(known[0]):g}; at least two different ones are needed to rank"
        )
    columns = columns_of(records) or {}
    if all(
        len({_plain(value) if not is_missing(value) else None for value in cells}) < 2 for cells in columns.values()
    ):
        raise InvalidSpaceError(
            f"no column varies beside {column!r}, so that there is nothing to rank; the columns are "
            f"{_listed(list(columns)) or '(none)'}"
        )


def _doubts(records: Sequence[Mapping[str, Any]], labels: Tensor, column: str) -> Iterable[str]:
    """What a user should know before trusting a ranking."""
    if without := int(labels.isnan().sum()):
        yield f"{without} of {_count(labels.numel(), 'row')} without a label"
    # Repeats of an architecture may have names of their own.
    names = left_out(columns_of(records) or {})
    groups: dict[Any, list[float]] = {}
    for record, label in zip(records, labels.tolist(), strict=True):
        if not math.isnan(label):
            key = _key({name: value for name, value in record.items() if name not in names})
            groups.setdefault(key, []).append(label)
    if repeats := [group for group in groups.values() if len(group) > 1]:
        squares = sum((label - sum(group) / len(group)) ** 2 for group in repeats for label in group)
        spread = math.sqrt(squares / sum(len(group) - 1 for group in repeats))
        yield (
            f"{_count(len(repeats), 'architecture')} measured more than once, {sum(map(len, repeats))} rows, kept; "
            f"standard deviation of repeats {spread:.3g}"
        )
    if (parts := _two_units(labels[~labels.isnan()].tolist())) is not None:
        low, high = parts
        yield (
            f"labels seem to have two units: {_count(len(low), 'label')} up to {low[-1]:g}, {len(high)} from "
            f"{high[0]:g} on; write all of column {column!r} in one"
        )
    for name, cells in (columns_of(records) or {}).items():
        numbers = [cell for cell in cells if isinstance(cell, str) and as_number(cell) is not None]
        texts = [cell for cell in cells if isinstance(cell, str) and as_number(cell) is None]
        if numbers and texts:
            yield f"column {name!r} has numbers and text ({texts[0]!r}); all its values are taken for categories"


def _two_units(values: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """Labels in two groups a factor of about a hundred apart, as fractions and percentages are; None for others."""
    ordered = sorted(values)
    if len(ordered) < 4 or ordered[0] <= 0:
        return None
    split = max(range(1, len(ordered)), key=lambda i: ordered[i] / ordered[i - 1])
    low, high = ordered[:split], ordered[split:]
    gap = high[0] / low[-1]
    apart = _FACTOR / 2 <= median(high) / median(low) <= 2 * _FACTOR
    # A single failed training is far from all others too.
    return (
        (low, high)
        if min(len(low), len(high)) > 1 and apart and gap > max(low[-1] / low[0], high[-1] / high[0])
        else None
    )


def _differences(name: str, labelled: Sequence[Any], cells: Sequence[Any]) -> Iterable[str]:
    """How a column of candidates differs from that of the labelled."""
    ours, theirs = ([plain(cell) for cell in column if not is_missing(cell)] for column in (labelled, cells))
    kinds = {_kind(column) for column in (ours, theirs)}
    if kinds == {"text", "number"}:
        raise InvalidSpaceError(
            f"column {name!r} has {ours[0]!r} where there are labels and {theirs[0]!r} in the candidates; write both "
            f"as numbers or both as text"
        )
    if kinds == {"number"}:
        sizes = [[abs(cell) for cell in column if cell] for column in (ours, theirs)]
        if all(sizes) and (min(sizes[1]) >= _FACTOR * max(sizes[0]) or _FACTOR * max(sizes[1]) <= min(sizes[0])):
            yield (
                f"{name!r} goes from {min(ours):g} to {max(ours):g} where there are labels and from {min(theirs):g} to "
                f"{max(theirs):g} in the candidates; is it in another unit?"
            )
    elif kinds == {"text"}:
        known = set(map(_plain, ours))
        if new := Counter(cell for cell in theirs if _plain(cell) not in known):
            values = _listed([repr(cell) for cell in new], 5)
            yield f"{name!r} is {values} in {_count(new.total(), 'row')}, which no label has"


def _kind(cells: Sequence[Any]) -> str:
    numbers = [isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells]
    texts = [isinstance(cell, str) for cell in cells]
    return "" if not cells else "number" if all(numbers) else "text" if all(texts) else "other"
