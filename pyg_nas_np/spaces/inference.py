r"""From the user's own table to a search space: what each column is, told from its values."""

from __future__ import annotations

import ast
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from typing_extensions import Self

from pyg_nas_np.spaces.columns import cells_of, table_columns
from pyg_nas_np.spaces.configuration import Configuration
from pyg_nas_np.spaces.parameter_space import Cost, ParameterSpace, Score, score_column
from pyg_nas_np.spaces.parameters import Categorical, Float, Integer, Parameter, Repeat, as_parameter, is_missing, plain
from pyg_nas_np.utils.errors import InvalidSpaceError
from pyg_nas_np.utils.table_files import is_parquet, read_csv, read_parquet

_NUMBERED = re.compile(r"(?P<list>.*?[^\d_.\-/])[_.\-/]?(?P<layer>\d+)(?:[_.\-/](?P<name>\D.*))?")
LIST = 3
"""So many numbered columns, such as ``width_0``, ``width_1`` and ``width_2``, are a list of layers."""

_LOG_RATIO = 8.0
"""Positive numbers with at least this ratio of the largest to the smallest may matter by their ratios,"""
_LOG_SKEW = 0.3
"""and do if the median of the distinct ones lies below this part of the range."""
_PARENT_VALUES = 12
"""Parameters with at most so many values are looked at as conditions of others."""
_MANY_ROWS = 8
"""In as many rows, text that never repeats, or numbers that count the rows, are names of rows."""

EMPTY = ("", "nan", "na", "n/a", "<na>", "null")
"""How files write, in any case, that a cell is empty."""

Columns = dict[str, list[Any]]


class InferredSpace(ParameterSpace):
    r"""A space that was inferred from a table: it knows values by examples only.

    So it takes numbers outside the ranges seen, categories that were never seen, and parameters that the table has
    where a condition, itself a guess, says that they are not active. Draws, neighbors and mutations stay inside what
    was seen. Architectures may be given in the form of the table: numbered columns for a list of layers, with the
    columns that were left out or without them.

    The rules: columns that do not vary, number the rows or name them are left out. Booleans and text are categories;
    whole numbers an :class:`~pyg_nas_np.spaces.Integer` whose step divides all differences, others a
    :class:`~pyg_nas_np.spaces.Float`; with ``log`` where positive values span a factor of eight and crowd at the low
    end. Numbered columns (``width_0``, ``width_1`` ...; ``layer_0_kernel``, ``layer_0_width`` ...) of one kind are a
    list of layers, shorter where the last ones are empty. A column that is empty exactly for some values of another
    one is conditional on it, any other with empty cells optional. :meth:`describe` shows the result.

    Made by :meth:`ParameterSpace.from_records <pyg_nas_np.spaces.ParameterSpace.from_records>`.
    """

    _exact = False

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        lists: Mapping[str, tuple[str, int, str]],
        left_out: Mapping[str, str],
        **options: Any,
    ) -> None:
        self.left_out = dict(left_out)
        r"""Columns of the table that are no parameters, with the reason."""
        self._lists = dict(lists)
        super().__init__(parameters, **options)

    def _nested(self, arch: Any) -> Any:
        if not isinstance(arch, Mapping):
            return arch
        return _gathered({name: value for name, value in arch.items() if name not in self.left_out}, self._lists)

    @property
    def table_parameters(self) -> dict[str, Parameter]:
        r"""The columns of a table of configurations, and the parameter that each has the values of."""
        titles = {title for title, _, _ in self._lists.values()}
        own = {name: parameter for name, parameter in self.parameters.items() if name not in titles}
        for raw, (title, _, inner) in self._lists.items():
            parameter = self.parameters[title]
            assert isinstance(parameter, Repeat)
            # The last layers may be absent.
            own[raw] = replace(parameter.parameters[inner], optional=True)
        return own

    def _nested_columns(self, columns: Mapping[str, Any], count: int) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for name, column in super()._nested_columns(columns, count).items():
            if name in self._lists:
                title, layer, inner = self._lists[name]
                depth = 1 + max(place[1] for place in self._lists.values() if place[0] == title)
                layers = nested.setdefault(title, {}).setdefault(inner, [[None] * count for _ in range(depth)])
                layers[layer] = column
            elif name not in self.left_out:
                nested[name] = column
        return nested

    def to_row(self, arch: Configuration) -> dict[str, Any]:
        r"""Returns a configuration in the form of the table, with numbered columns in place of lists of layers.

        Example:
            >>> space = ParameterSpace.from_records({"width_0": [8, 16], "width_1": [8, 32], "width_2": [None, 64]})
            >>> space.to_row(space.check({"width": [16, 32]}))
            {'width_0': 16, 'width_1': 32}
        """
        record = arch.to_dict()
        row = {name: value for name, value in record.items() if not any(t == name for t, _, _ in self._lists.values())}
        for raw, (title, layer, name) in self._lists.items():
            layers = record.get(title, [])
            if layer < len(layers) and name in layers[layer]:
                row[raw] = layers[layer][name]
        return row

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the declaration with what the table was like, in plain types; costs and pool are left out."""
        table = {"lists": {raw: list(place) for raw, place in self._lists.items()}, "left_out": dict(self.left_out)}
        return {**super().to_dict(), "table": table}

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any], **options: Any) -> Self:
        r"""Inverse of :meth:`to_dict`.

        Raises:
            InvalidSpaceError: If it is not what :meth:`to_dict` returns.
        """
        try:
            table = declared["table"]
            lists = {raw: (str(title), int(layer), str(name)) for raw, (title, layer, name) in table["lists"].items()}
            left_out = {str(raw): str(reason) for raw, reason in table["left_out"].items()}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidSpaceError("the declaration is not one of an InferredSpace; infer the space again") from error
        own = {key: value for key, value in declared.items() if key in ("name", "parameters")}
        return super().from_dict(own, **{"lists": lists, "left_out": left_out, **options})

    def describe(self) -> str:
        r"""Returns the parameters, what was taken for what, and the columns that were left out, one a line."""
        out = [f"{name} was left out: {reason}" for name, reason in self.left_out.items()]
        return "\n".join([super().describe(), *_notes(self._lists), *out])


def records_of(table: Any) -> list[dict[str, Any]] | None:
    r"""Returns the rows of a table as dictionaries; :obj:`None` for what is not a table of records.

    Args:
        table: A list of dictionaries (or other mappings), a dictionary of columns, a :class:`pandas.DataFrame`, or a
            :class:`pyarrow.Table`.

    Raises:
        InvalidSpaceError: If columns differ in length.

    Example:
        >>> records_of({"depth": [1, 2], "act": ["relu", "gelu"]})
        [{'depth': 1, 'act': 'relu'}, {'depth': 2, 'act': 'gelu'}]
    """
    if isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(row, Mapping) for row in table):
        return [dict(row) for row in table]
    columns = columns_of(table)
    return None if columns is None else rows_of(columns)


def columns_of(table: Any) -> Columns | None:
    r"""Returns the columns of a table as lists; :obj:`None` for what is not a table of records.

    Args:
        table: As of :func:`records_of`; what a dictionary lacks is None.

    Raises:
        InvalidSpaceError: If columns differ in length.

    Example:
        >>> columns_of([{"depth": 1}, {"depth": 2, "act": "gelu"}])
        {'depth': [1, 2], 'act': [None, 'gelu']}
    """
    if isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(row, Mapping) for row in table):
        return {key: [row.get(key) for row in table] for key in dict.fromkeys(key for row in table for key in row)}
    if isinstance(table, Mapping):
        columns = {name: _cells(name, column) for name, column in table.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidSpaceError(f"the columns differ in length: {lengths}; give one value a configuration")
        return columns
    found = table_columns(table)
    return None if found is None else {name: cells_of(column) for name, column in found.items()}


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    r"""Returns the rows of columns of equal length.

    Example:
        >>> rows_of({"depth": [1, 2]})
        [{'depth': 1}, {'depth': 2}]
    """
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(name: Any, column: Any) -> list[Any]:
    if hasattr(column, "tolist"):
        column = column.tolist()
    if isinstance(column, str) or not isinstance(column, Sequence):
        raise InvalidSpaceError(f"column {name!r} must be a list of values, got {column!r}; put one record into a list")
    return list(column)


def read_columns(path: str | os.PathLike[str]) -> Columns:
    r"""Reads a CSV or Parquet file: columns of numbers, of ``true`` and ``false``, of lists ``[3, 5]``, or of text.

    Empty cells are None.

    Raises:
        DataFileError: If the file cannot be read.
    """
    if is_parquet(path):
        columns = columns_of(read_parquet(path))
        assert columns is not None
        return columns
    table = read_csv(path)
    return {name: parsed(table.column(name)) for name in table.header if name}


def read_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    r"""Reads the rows of a CSV or Parquet file, see :func:`read_columns`.

    Raises:
        DataFileError: If the file cannot be read.
    """
    return rows_of(read_columns(path))


def parsed(cells: Sequence[str | None]) -> list[Any]:
    r"""Returns the text of a column as what all of it is: numbers, booleans, lists, or text; empty cells as None.

    Example:
        >>> parsed(["1", "n/a", "2.5"])
        [1.0, None, 2.5]
    """
    filled = [cell for cell in cells if not _is_empty(cell)]
    parse: Callable[[str], Any]
    for parse in (_integer, _number, _boolean, _list):
        try:
            values = iter([parse(cell) for cell in filled if cell is not None])
        except ValueError:
            continue
        return [None if _is_empty(cell) else next(values) for cell in cells]
    return [None if _is_empty(cell) else cell for cell in cells]


def _is_empty(cell: str | None) -> bool:
    return cell is None or cell.casefold() in EMPTY


def _integer(cell: str) -> int:
    if "_" in cell:
        raise ValueError
    return int(cell)


def _number(cell: str) -> float:
    if "_" in cell:
        raise ValueError
    return float(cell)


def _list(cell: str) -> list[Any]:
    if not cell.startswith("["):
        raise ValueError
    try:
        # As Python and JSON write lists of numbers, text or records; evaluates literals only.
        return list(ast.literal_eval(cell))
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError from error


def _boolean(cell: str) -> bool:
    if cell.casefold() not in ("true", "false"):
        raise ValueError
    return cell.casefold() == "true"


def infer_space(
    records: Any,
    *,
    parameters: Mapping[str, Any],
    ignore: Sequence[str] = (),
    costs: Mapping[str, Cost] | None = None,
    scores: Mapping[str, Score] | None = None,
    name: str | None = None,
) -> InferredSpace:
    r"""See :meth:`ParameterSpace.from_records`."""
    rows = read_records(records) if isinstance(records, str | os.PathLike) else records_of(records)
    if rows is None:
        raise InvalidSpaceError(
            f"a {type(records).__name__} is not a table of configurations; give a list of dictionaries, a dictionary "
            f"of columns, a DataFrame or the path of a CSV or Parquet file"
        )
    columns: Columns = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        columns[key] = [row.get(key) for row in rows]
    if not rows or not columns:
        raise InvalidSpaceError("the table has no configuration; give at least two that differ")
    if missing := [key for key in ignore if key not in columns]:
        raise InvalidSpaceError(f"there is no column {missing[0]!r} to ignore; the columns are {', '.join(columns)}")
    declared = {key: as_parameter(value) for key, value in parameters.items()}
    sources = {"cost": (costs or {}).values(), "score": map(score_column, (scores or {}).values())}
    known = {key: f"it is a {what}" for what, keys in sources.items() for key in keys if isinstance(key, str)}
    known = {key: reason for key, reason in known.items() if key in columns and key not in declared}
    left_out = dict.fromkeys(ignore, "it was to be ignored") | known
    used = {key: column for key, column in columns.items() if key not in left_out}

    lists = _numbered(used, declared)
    gathered = [_gathered(dict(zip(used, row, strict=True)), lists) for row in zip(*used.values(), strict=True)]
    table = {key: [row.get(key) for row in gathered] for key in dict.fromkeys(key for row in gathered for key in row)}
    if unknown := [key for key in declared if key not in table]:
        raise InvalidSpaceError(f"there is no column {unknown[0]!r}; the columns are {', '.join(table)}")
    found: dict[str, Parameter] = {}
    for key, column in table.items():
        reason = None if key in declared else _no_parameter(column, table, key)
        if reason is None:
            found[key] = _layered(declared[key], key, column) if key in declared else _inferred(key, column)
        else:
            left_out.update((raw, reason) for raw in [r for r, place in lists.items() if place[0] == key] or [key])
    if not found:
        raise InvalidSpaceError(
            f"no column varies, so that there is nothing to search; the columns are {', '.join(columns)}"
        )
    found = with_conditions(found, table, declared)
    lists = {raw: place for raw, place in lists.items() if place[0] in found}
    return InferredSpace(
        found,
        lists=lists,
        left_out=left_out,
        name=name,
        costs=costs,
        scores=scores,
        pool=[{key: value for key, value in row.items() if key not in left_out or key in known} for row in rows],
    )


def left_out(columns: Columns) -> dict[str, str]:
    r"""Returns the columns that tell nothing of a configuration, because they are constant or count rows, with the
    reason.

    Example:
        >>> left_out({"depth": [1, 2], "data": ["cifar10", "cifar10"]})
        {'data': "it is always 'cifar10'"}
    """
    reasons = {key: _no_parameter(column, columns, key) for key, column in columns.items()}
    return {key: reason for key, reason in reasons.items() if reason is not None}


# -- lists of layers ------------------------------------------------------------------------------------------------


def _numbered(columns: Columns, declared: Mapping[str, Parameter]) -> dict[str, tuple[str, int, str]]:
    """Numbered columns: name → list, layer, parameter of the layer."""
    groups: dict[str, dict[tuple[int, str], str]] = {}
    for name in columns:
        match = _NUMBERED.fullmatch(name)
        if match and name not in declared:
            title = match["list"]
            groups.setdefault(title, {})[int(match["layer"]), match["name"] or title] = name
    found: dict[str, tuple[str, int, str]] = {}
    for title, members in groups.items():
        layers = sorted({layer for layer, _ in members})
        inner = list(dict.fromkeys(name for _, name in members))
        complete = len(members) == len(layers) * len(inner) and layers == list(
            range(layers[0], layers[0] + len(layers))
        )
        if len(layers) < LIST or layers[0] > 1 or not complete or title in columns:
            continue
        by_name = [[columns[members[layer, name]] for layer in layers] for name in inner]
        if all(_alike(cells) for cells in by_name) and _without_holes(
            [list(zip(*c, strict=True)) for c in zip(*by_name, strict=True)]
        ):
            found.update((raw, (title, layer - layers[0], name)) for (layer, name), raw in members.items())
    return found


def _alike(columns: Sequence[Sequence[Any]]) -> bool:
    """Whether columns are all of numbers, or all of text or booleans with a value in common."""
    values = [{plain(value) for value in column if not is_missing(value) and _scalar(value)} for column in columns]
    kinds = {_kind(value) for part in values for value in part}
    if kinds <= {"number"}:
        return True
    shared = values[0].union(*values[1:])
    return len(kinds) == 1 and all(not part or len(shared) < sum(map(len, values)) for part in values)


def _without_holes(layers: Sequence[Sequence[Sequence[Any]]]) -> bool:
    """Whether empty layers are the last ones of their row."""
    empty = [[all(is_missing(value) for value in row) for row in layer] for layer in layers]
    return all(
        not before or after for first, second in pairwise(empty) for before, after in zip(first, second, strict=True)
    )


def _gathered(record: Mapping[str, Any], lists: Mapping[str, tuple[str, int, str]]) -> dict[str, Any]:
    """A record with its numbered columns as lists of layers."""
    gathered: dict[str, Any] = {}
    for key, value in record.items():
        if key not in lists:
            gathered[key] = value
            continue
        title, layer, name = lists[key]
        layers = gathered.setdefault(title, [])
        if not is_missing(value):
            layers.extend({} for _ in range(layer + 1 - len(layers)))
            layers[layer][name] = value
    return gathered


def _notes(lists: Mapping[str, tuple[str, int, str]]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for raw, (title, _, _) in lists.items():
        groups.setdefault(title, []).append(raw)
    return [f"{raws[0]} ... {raws[-1]} were taken for the list of layers {title!r}" for title, raws in groups.items()]


def _layered(parameter: Parameter, name: str, column: Sequence[Any]) -> Parameter:
    """A declared parameter, as one of the layers where the column is a list of them."""
    lists = [value for value in column if isinstance(value, list | tuple)]
    if not lists or isinstance(parameter, Repeat):
        return parameter
    return Repeat({name: parameter}, min(map(len, lists)), max(map(len, lists)))


# -- one column -----------------------------------------------------------------------------------------------------


def _scalar(value: Any) -> bool:
    return isinstance(plain(value), str | bool | int | float)


def _kind(value: Any) -> str:
    value = plain(value)
    return "boolean" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"


def _no_parameter(column: Sequence[Any], table: Columns, name: str) -> str | None:
    """Why a column is not a parameter; None if it is one."""
    filled = [plain(value) for value in column if not is_missing(value)]
    if not filled:
        return "it is empty"
    if any(not _scalar(value) for value in filled):
        varies = any(value != column[0] for value in column)
        return None if varies else "it does not vary"
    kinds = {_kind(value) for value in filled}
    if len(set(filled)) == len(kinds) == 1 and len(filled) == len(column):
        return f"it is always {filled[0]!r}"
    if len(column) >= _MANY_ROWS and len(filled) == len(column):
        if kinds == {"text"} and len(set(filled)) == len(filled):
            return "it has another text in every row"
        if kinds == {"number"} and all(value == filled[0] + i for i, value in enumerate(filled)):
            return "it numbers the rows"
    for other, cells in table.items():
        if other != name and all(
            isinstance(cell, list) and len(cell) == value for cell, value in zip(cells, column, strict=True)
        ):
            return f"it is the number of layers of {other!r}"
    return None


def _inferred(name: str, column: Sequence[Any]) -> Parameter:
    filled = [plain(value) for value in column if not is_missing(value)]
    if all(isinstance(value, list | tuple) for value in filled):
        layers = [_layer(name, layer) for value in filled for layer in value]
        inner = {
            key: [layer.get(key) for layer in layers] for key in dict.fromkeys(key for layer in layers for key in layer)
        }
        if not inner:
            raise InvalidSpaceError(f"column {name!r} has no layer; leave it out with ignore=[{name!r}]")
        found = with_conditions({key: _inferred(f"{name}.{key}", cells) for key, cells in inner.items()}, inner)
        return Repeat(found, min(map(len, filled)), max(map(len, filled)))
    if odd := [value for value in filled if not _scalar(value)]:
        raise InvalidSpaceError(
            f"column {name!r} has the value {odd[0]!r}, which is no number, text or boolean; write it as text or leave "
            f"the column out with ignore=[{name!r}]"
        )
    by_kind = {_kind(value): value for value in reversed(filled)}
    if len(by_kind) > 1:
        examples = " and ".join(f"{kind} ({by_kind[kind]!r})" for kind in sorted(by_kind))
        raise InvalidSpaceError(
            f"column {name!r} mixes {examples}; clean it, or declare it with parameters={{{name!r}: [all its choices]}}"
        )
    kind = next(iter(by_kind))
    if kind != "number":
        return Categorical(tuple(sorted(set(filled))))
    if infinite := [value for value in filled if not math.isfinite(value)]:
        raise InvalidSpaceError(f"column {name!r} has the value {infinite[0]}; leave the cell empty or the row out")
    values = sorted(set(filled))
    log = _is_log(values)
    if all(value == math.floor(value) for value in values):
        whole = [int(value) for value in values]
        return Integer(whole[0], whole[-1], math.gcd(*(value - whole[0] for value in whole)) or 1, log)
    return Float(values[0], values[-1], log=log)


def _layer(name: str, layer: Any) -> Mapping[str, Any]:
    return layer if isinstance(layer, Mapping) else {name: layer}


def _is_log(values: Sequence[float]) -> bool:
    """Whether ratios of sorted distinct numbers matter more than their differences."""
    low, high = values[0], values[-1]
    if low <= 0 or high < _LOG_RATIO * low:
        return False
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return (middle - low) / (high - low) < _LOG_SKEW


# -- conditions -----------------------------------------------------------------------------------------------------


def with_conditions(
    found: Mapping[str, Parameter], table: Mapping[str, Sequence[Any]], declared: Collection[str] = ()
) -> dict[str, Parameter]:
    r"""Makes parameters that rows lack conditional on another one, where that tells which rows, and optional elsewhere.

    Args:
        found: Parameters by name.
        table: Their values by name, with empty cells.
        declared: Names of those that stay as they are.

    Example:
        >>> found = {"momentum": Float(0.5, 0.9), "optimizer": Categorical(["adam", "sgd"])}
        >>> table = {"momentum": [None, 0.5, None, 0.9], "optimizer": ["adam", "sgd", "adam", "sgd"]}
        >>> with_conditions(found, table)["momentum"]
        Float(0.5, 0.9, when={'optimizer': ('sgd',)})
    """
    present = {key: [not is_missing(value) for value in table[key]] for key in found}
    conditional: dict[str, Parameter] = {}
    for key, parameter in found.items():
        if all(present[key]) or key in declared:
            conditional[key] = parameter
            continue
        when = next(filter(None, (_condition(key, other, found, table, present) for other in found)), None)
        conditional[key] = replace(parameter, **({"when": when} if when else {"optional": True}))
    return conditional


def _condition(
    key: str,
    other: str,
    found: Mapping[str, Parameter],
    table: Mapping[str, Sequence[Any]],
    present: Mapping[str, list[bool]],
) -> dict[str, tuple[Any, ...]] | None:
    """Values of another parameter with which, and with no other, a parameter is there."""
    parent = found[other]
    # Present in strictly fewer rows than its parent, a parameter cannot come to depend on itself.
    if isinstance(parent, Repeat | Float) or present[key] == present[other]:
        return None
    if any(has and not parent_has for has, parent_has in zip(present[key], present[other], strict=True)):
        return None
    cells = [plain(value) for value in table[other]]
    having = {cell for cell, has in zip(cells, present[key], strict=True) if has}
    lacking = {cell for cell, has, there in zip(cells, present[key], present[other], strict=True) if there and not has}
    missing = present[other].count(True) - present[key].count(True)
    # One empty cell fits some value of some column by chance.
    few = min(missing, present[key].count(True)) < 2 or 2 * len(having | lacking) > len(cells)
    if few or having & lacking or len(having | lacking) > _PARENT_VALUES:
        return None
    return {other: tuple(sorted(having))}
