r"""Many configurations by columns: one array a parameter, read and checked without an object a configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from pyg_nas_np.spaces.configuration import Configuration, Level
from pyg_nas_np.spaces.parameters import Categorical, Number, Parameter, Repeat, Value, is_missing, plain
from pyg_nas_np.utils.errors import InvalidArchitectureError, InvalidSpaceError

if TYPE_CHECKING:
    from pyg_nas_np.spaces.parameter_space import ParameterSpace

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_ABSENT = object()
_GRID_TOLERANCE = 1e-6

_ARROW_INDEX = re.compile(r"__index_level_\d+__")
"""Name under which pandas writes the numbers of rows into Parquet files."""


class Layers(NamedTuple):
    r"""The codes of a list of layers.

    Attributes:
        lengths: Number of layers, int64 ``[n]``.
        codes: Of each parameter of a layer, float64 ``[n, L]``; NaN behind the last layer.
    """

    lengths: NDArray[np.int64]
    codes: dict[str, Floats]

    def part(self, rows: slice) -> Layers:
        r"""Returns some rows."""
        return Layers(self.lengths[rows], {name: codes[rows] for name, codes in self.codes.items()})


Codes: TypeAlias = "dict[str, Floats | Layers]"
"""Values of ``n`` configurations by parameter, float64 ``[n]``: numbers, of other categories the position of the choice
or -1 for one that is not known; NaN where a configuration has none."""


class ConfigurationTable(Sequence[Configuration]):
    r"""Configurations of a space, given by columns; an object for one is made only where it is asked for.

    :meth:`ParameterSpace.check_table <pyg_nas_np.spaces.ParameterSpace.check_table>` makes it. It takes the place of a
    list of configurations everywhere, and is read a hundred times faster.

    Args:
        space: The space.
        columns: Columns of equal length, as the space names its parameters and costs.
        first_row: Position of the first one, for messages.

    Raises:
        InvalidArchitectureError: If a row is no configuration of the space; the message names it.
        InvalidSpaceError: If columns differ in length.
    """

    def __init__(self, space: ParameterSpace, columns: Mapping[str, Any], first_row: int = 0) -> None:
        self.space, self._first_row = space, first_row
        self.columns = {name: _one_chunk(column) for name, column in columns.items()}
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidSpaceError(f"the columns differ in length: {lengths}; give one value a configuration")
        self._rows = range(next(iter(lengths.values()), 0))
        try:
            self.codes = space.read_codes(self.columns, len(self))
        except Refused as error:
            self._explain(error.row)

    def _explain(self, row: int) -> None:
        where = f"row {self._first_row + row}"
        try:
            self[row]
        except InvalidArchitectureError as error:
            raise InvalidArchitectureError(f"{where}: {error}") from None
        raise InvalidArchitectureError(f"{where}: {self._record(row)!r} is not a valid {self.space.name} architecture")

    def _record(self, row: int) -> dict[str, Any]:
        cells = {name: column[row] for name, column in self.columns.items()}
        return {name: cell.as_py() if hasattr(cell, "as_py") else cell for name, cell in cells.items()}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, rows: int) -> Configuration: ...
    @overload
    def __getitem__(self, rows: slice) -> ConfigurationTable: ...
    def __getitem__(self, rows: int | slice) -> Configuration | ConfigurationTable:
        if isinstance(rows, int):
            return self.space.check(self._record(self._rows[rows]))
        part = copy(self)
        part.columns = {name: column[rows] for name, column in self.columns.items()}
        part.codes = {n: c.part(rows) if isinstance(c, Layers) else c[rows] for n, c in self.codes.items()}
        part._rows = range(len(self._rows[rows]))
        return part

    def __iter__(self) -> Iterator[Configuration]:
        columns = [cells_of(column) for column in self.columns.values()]
        return (self.space.check(dict(zip(self.columns, row, strict=True))) for row in zip(*columns, strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space.name}, {len(self)})"


def has_numbers(parameter: Parameter) -> bool:
    r"""Whether the values of a parameter are numbers, by range or by choice."""
    if not isinstance(parameter, Categorical):
        return isinstance(parameter, Number)
    return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in parameter.choices)


def encode_records(parameters: Mapping[str, Parameter], records: Sequence[Mapping[str, Any]]) -> Codes:
    r"""Returns the codes of records that a space has read.

    Args:
        parameters: Parameters by name.
        records: ``n`` records.

    Example:
        >>> encode_records({"act": Categorical(["relu", "gelu"])}, [{"act": "gelu"}, {}])
        {'act': array([ 1., nan])}
    """
    codes: Codes = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, Repeat):
            codes[name] = _encode_layers(parameter, [record.get(name, ()) for record in records])
        else:
            codes[name] = _encode(parameter, (record.get(name, _ABSENT) for record in records), len(records))
    return codes


def row_keys(parameters: Mapping[str, Parameter], codes: Codes) -> list[bytes]:
    r"""Returns a key of each configuration, equal for equal ones, ``n`` of them.

    Args:
        parameters: Parameters by name.
        codes: Codes of ``n`` configurations.
    """
    columns: list[Floats] = []
    for name, parameter in parameters.items():
        found = codes[name]
        if isinstance(found, Layers):
            assert isinstance(parameter, Repeat)
            columns.append(found.lengths[:, None].astype(np.float64))
            columns += [inner[:, : parameter.max_length] for inner in found.codes.values()]
        else:
            columns.append(found[:, None])
    # Neither do all NaN have the same bits, nor do zeros of both signs.
    table = np.nan_to_num(np.concatenate(columns, axis=1), nan=math.inf) + 0.0
    content, width = table.tobytes(), table.itemsize * table.shape[1]
    return [content[start : start + width] for start in range(0, len(content), width)]


def _encode(parameter: Parameter, values: Iterable[Any], count: int) -> Floats:
    if has_numbers(parameter):
        numbers = (value if isinstance(value, int | float) else math.nan for value in values)
        return np.fromiter(numbers, np.float64, count)
    assert isinstance(parameter, Categorical)
    position = {choice: float(i) for i, choice in enumerate(parameter.choices)} | {_ABSENT: math.nan}
    return np.fromiter((position.get(value, -1.0) for value in values), np.float64, count)


def _encode_layers(parameter: Repeat, lists: Sequence[Sequence[Mapping[str, Any]]]) -> Layers:
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    layers = list(chain.from_iterable(lists))
    places = _places(lengths, parameter.max_length)
    codes = {
        name: places.spread(_encode(inner, (layer.get(name, _ABSENT) for layer in layers), len(layers)))
        for name, inner in parameter.parameters.items()
    }
    return Layers(lengths, codes)


class _places:
    """Where the layers of all lists, one behind the other, stand in a padded table."""

    def __init__(self, lengths: NDArray[np.int64], least: int) -> None:
        self.shape = len(lengths), max(least, int(lengths.max(initial=0)))
        self.row = np.repeat(np.arange(len(lengths)), lengths)
        self.column = np.arange(int(lengths.sum())) - np.repeat(lengths.cumsum() - lengths, lengths)

    def spread(self, flat: Floats) -> Floats:
        padded = np.full(self.shape, math.nan)
        padded[self.row, self.column] = flat
        return padded


def table_columns(table: Any) -> dict[str, Any] | None:
    r"""Returns the columns of a table that has any, in their own types; :obj:`None` for everything else.

    Args:
        table: A dictionary of columns, a :class:`pandas.DataFrame`, a :class:`pyarrow.Table` or
            :class:`pyarrow.RecordBatch`.

    Example:
        >>> table_columns({"depth": [1, 2]}), table_columns([{"depth": 1}])
        ({'depth': [1, 2]}, None)
    """
    if isinstance(table, Mapping):
        columns = all(hasattr(c, "__getitem__") and not isinstance(c, str | Mapping) for c in table.values())
        return dict(table) if columns and not isinstance(table, Configuration) else None
    if hasattr(table, "columns") and hasattr(table, "iloc"):
        return _once([str(name) for name in table.columns], [table.iloc[:, i] for i in range(table.shape[1])])
    if hasattr(table, "schema") and hasattr(table, "to_pylist"):
        found = _once(table.schema.names, table.columns)
        return {name: column for name, column in found.items() if not _ARROW_INDEX.fullmatch(name)}
    return None


def _once(names: Sequence[str], columns: Sequence[Any]) -> dict[str, Any]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidSpaceError(f"column {twice[0]!r} occurs twice; leave one out")
    return dict(zip(names, columns, strict=True))


def numbers(column: Any) -> Floats:
    r"""Returns the numbers of a column, float64 ``[n]``, NaN for everything else.

    Example:
        >>> numbers([1, None, "fast"])
        array([ 1., nan, nan])
    """
    found = _numbers(column)
    if found is not None:
        return found.copy()
    plain_cells = (plain(cell) for cell in cells_of(column))
    return np.array([float(c) if isinstance(c, int | float) else math.nan for c in plain_cells], dtype=np.float64)


# -- columns of tables ------------------------------------------------------------------------------------------------


class Refused(Exception):
    r"""A row that is no configuration.

    Args:
        row: Its position.
    """

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def read_columns(level: Level, columns: Mapping[str, Any], count: int) -> Codes:
    r"""Returns the codes of configurations that are given by columns.

    Args:
        level: The parameters.
        columns: One column of ``n`` values a parameter: a list, a NumPy array or a :class:`pyarrow.Array`, empty where
            a configuration has none. Of a :class:`Repeat` a column of lists, or a mapping from the name of a parameter
            of a layer to one column a layer.
        count: ``n``.

    Raises:
        Refused: With the first row that is found to be none; :meth:`Level.read
            <pyg_nas_np.spaces.configuration.Level.read>` tells why.
    """
    codes: Codes = {}
    there: dict[str, Flags] = {}
    for name in level.order:
        parameter = level.parameters[name]
        if name not in columns:
            found: Floats | Layers = np.full(count, math.nan)
            present = np.zeros(count, dtype=bool)
            if isinstance(parameter, Repeat):
                found = _encode_layers(parameter, [()] * count)
        elif isinstance(parameter, Repeat):
            found, present = _read_layers(level.layers[name], parameter, columns[name], count)
        else:
            assert isinstance(parameter, Value)
            found = _read_values(parameter, columns[name], level.exact)
            present = ~np.isnan(found)
        codes[name], there[name] = found, present
        _check_presence(level, name, codes, present, np.ones(count, dtype=bool))
    return {name: codes[name] for name in level.parameters}


def _check_presence(level: Level, name: str, codes: Codes, present: Flags, exists: Flags) -> None:
    """Refuses what is there without being active, and what is missing. Flags and codes are ``[n]`` or ``[n, L]``."""
    active = exists
    for parent, allowed in level.conditions[name].items():
        among = [_code(level.parameters[parent], value) for value in allowed]
        active = active & np.isin(codes[parent], among)  # type: ignore[arg-type]
    wrong = present & ~active if level.exact else np.zeros_like(present)
    if not level.parameters[name].optional and (level.exact or not level.conditions[name]):
        wrong = wrong | (active & ~present)
    _refuse(wrong)


def _refuse(wrong: Flags) -> None:
    if wrong.any():
        raise Refused(int(np.nonzero(wrong)[0][0]))


def _read_layers(level: Level, repeat: Repeat, column: Any, count: int) -> tuple[Layers, Flags]:
    if isinstance(column, Mapping):
        # Numbered columns: a layer is there if it or a later one has a value.
        depth = len(next(iter(column.values())))
        inner = {
            name: np.stack([_read_values(level.parameters[name], part, level.exact) for part in parts], axis=1)  # type: ignore[arg-type]
            for name, parts in column.items()
        }
        some = ~np.isnan(np.stack(list(inner.values()))).all(axis=0)
        lengths = np.where(some, np.arange(1, depth + 1), 0).max(axis=1)
        given = np.ones(count, dtype=bool)
        width = max(repeat.max_length, depth)
        codes = {
            name: np.pad(part, ((0, 0), (0, width - depth)), constant_values=math.nan) for name, part in inner.items()
        }
    else:
        given, lengths, flat = _flattened(column, next(iter(repeat.parameters)), list(repeat.parameters))
        places = _places(lengths, repeat.max_length)
        try:
            codes = {
                name: places.spread(_read_values(level.parameters[name], flat[name], level.exact))  # type: ignore[arg-type]
                for name in flat
            }
        except Refused as error:
            raise Refused(int(places.row[error.row])) from None
    if level.exact:
        _refuse(given & ((lengths < repeat.min_length) | (lengths > repeat.max_length)))
    empty = np.full((count, max(repeat.max_length, int(lengths.max(initial=0)))), math.nan)
    codes = {name: codes.get(name, empty) for name in level.parameters}
    exists = np.arange(empty.shape[1]) < lengths[:, None]
    for name in level.order:
        _check_presence(level, name, codes, ~np.isnan(codes[name]), exists)  # type: ignore[arg-type]
    return Layers(lengths.astype(np.int64), codes), given


def _flattened(column: Any, alone: str, names: Sequence[str]) -> tuple[Flags, NDArray[np.int64], dict[str, Any]]:
    """Of a column of lists: which cells are filled, their lengths, and the layers one behind the other by parameter."""
    if hasattr(column, "value_lengths"):
        given = column.is_valid().to_numpy(zero_copy_only=False)
        lengths = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
        flat = column.flatten()
        if not hasattr(flat, "field"):
            return given, lengths, {alone: flat}
        fields = {flat.type.field(i).name for i in range(flat.type.num_fields)}
        if flat.null_count or not fields <= set(names):
            raise Refused(0)
        return given, lengths, {name: flat.field(name) for name in names if name in fields}
    cells = cells_of(column)
    given = np.array([not is_missing(cell) for cell in cells], dtype=bool)
    for row, cell in enumerate(cells):
        if given[row] and (isinstance(cell, str) or not isinstance(cell, Sequence)):
            raise Refused(row)
    lists = [cell if there else () for cell, there in zip(cells, given.tolist(), strict=True)]
    layers = [layer if isinstance(layer, Mapping) else {alone: layer} for cell in lists for layer in cell]
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    if any(not layer.keys() <= set(names) for layer in layers):
        bad = next(
            row for row, cell in enumerate(lists) for x in cell if isinstance(x, Mapping) and not x.keys() <= set(names)
        )
        raise Refused(bad)
    return given, lengths, {name: [layer.get(name) for layer in layers] for name in names}


def _read_values(parameter: Value, column: Any, exact: bool) -> Floats:
    if isinstance(parameter, Number) and (numbers := _numbers(column)) is not None:
        return _read_numbers(parameter, numbers, exact)
    index, distinct = _factorised(column)
    none = math.nan
    if isinstance(parameter, Categorical) and None in parameter.choices:
        none = float(parameter.choices.index(None))
    codes = np.full(len(distinct) + 1, none)
    # The dictionary of an Arrow column may have more values than the column.
    for i in set(np.unique(index).tolist()) - {-1}:
        value = distinct[i]
        try:
            codes[i] = _code(parameter, parameter.read(value, exact=exact))
        except InvalidArchitectureError:
            raise Refused(int(np.nonzero(index == i)[0][0])) from None
    return codes[index]


def _read_numbers(parameter: Number, numbers: Floats, exact: bool) -> Floats:
    wrong = np.isinf(numbers)
    if exact:
        wrong |= (numbers < parameter.low) | (numbers > parameter.high)
        if parameter.step is not None:
            nearest = parameter.low + np.round((numbers - parameter.low) / parameter.step) * parameter.step
            wrong |= np.abs(nearest - numbers) > _GRID_TOLERANCE * parameter.step
            numbers = np.minimum(nearest, parameter.high)
    _refuse(wrong)
    return numbers + 0.0


def _code(parameter: Parameter, value: Any) -> float:
    if has_numbers(parameter):
        return float(value) if isinstance(value, int | float) else math.nan
    assert isinstance(parameter, Categorical)
    return float(parameter.choices.index(value)) if value in parameter.choices else -1.0


def _numbers(column: Any) -> Floats | None:
    """A column as float64, NaN where it is empty; None unless its type is a number's."""
    if hasattr(column, "dictionary_encode"):
        if str(column.type).rstrip("0123456789") not in ("int", "uint", "float", "double", "halffloat"):
            return None
        return np.asarray(column.cast("float64", safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        return column.astype(np.float64)
    return None


def _factorised(column: Any) -> tuple[NDArray[np.int64], list[Any]]:
    """Positions of the cells among the distinct values, -1 for empty ones, and these values."""
    if hasattr(column, "dictionary_encode"):
        encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
        index = np.nan_to_num(encoded.indices.to_numpy(zero_copy_only=False), nan=-1.0).astype(np.int64)
        distinct = encoded.dictionary.to_pylist()
    elif isinstance(column, np.ndarray) and column.dtype.kind in "iufb":
        values, index = np.unique(column, return_inverse=True)
        distinct = values.tolist()
    else:
        cells, seen = cells_of(column), dict[tuple[type, Any], int]()
        if (odd := next((row for row, cell in enumerate(cells) if cell.__hash__ is None), None)) is not None:
            raise Refused(odd)
        index = np.array([seen.setdefault((type(cell), cell), len(seen)) for cell in cells], dtype=np.int64)
        distinct = [cell for _, cell in seen]
    empty = np.array([is_missing(value) for value in distinct], dtype=bool)
    if empty.any():
        index = np.where(np.append(empty, False)[index], -1, index)
    return index, [None if gone else plain(value) for value, gone in zip(distinct, empty.tolist(), strict=True)]


def cells_of(column: Any) -> list[Any]:
    r"""Returns the values of a column as a list."""
    if hasattr(column, "to_pylist"):
        return list(column.to_pylist())
    return list(column.tolist()) if hasattr(column, "tolist") else list(column)


def _one_chunk(column: Any) -> Any:
    if hasattr(column, "combine_chunks"):
        return column.combine_chunks()
    return column.to_numpy() if hasattr(column, "to_numpy") and not hasattr(column, "type") else column
