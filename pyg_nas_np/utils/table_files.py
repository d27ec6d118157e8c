r"""Readers of CSV and Parquet tables.

CSV may be UTF-8 or, with a byte order mark, UTF-16; with commas, semicolons or tabs; with spaces around cells; with
names of known columns in any case; gzipped or not. Repeated columns, rows of another length, and fields longer than
:func:`csv.field_size_limit` (131,072 characters by default) raise an error.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from pyg_nas_np.utils.errors import DataFileError
from pyg_nas_np.utils.files import LimitedReader, check_size, foreign_file, open_regular
from pyg_nas_np.utils.imports import require

PathLike: TypeAlias = "str | os.PathLike[str]"

_SEPARATORS = ",;\t"
_HEADER_BYTES = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Table:
    r"""A table of text with the line of each row.

    Args:
        path: The file it was read from, for messages.
        header: Names of the columns.
        rows: Cells, without surrounding spaces; blank lines are dropped.
        lines: Line of the file on which each row ends.
    """

    def __init__(self, path: PathLike, header: list[str], rows: list[list[str]], lines: Sequence[int]) -> None:
        self.path, self.header, self.rows, self.lines = os.fspath(path), header, rows, lines
        self._place = {name: i for i, name in enumerate(header)}

    def where(self, row: int) -> str:
        r"""Names a row in messages, ``"labels.csv, line 7"``."""
        return f"{self.path}, line {self.lines[row]}"

    def require(self, names: Iterable[str]) -> None:
        r"""Checks that there are columns of these names.

        Raises:
            DataFileError: If one is missing; the message lists the columns of the file.
        """
        if missing := [name for name in names if name not in self._place]:
            have = ", ".join(self.header[:20])
            raise DataFileError(f"{self.path} has no column '{missing[0]}'; its columns are: {have}")

    def place(self, name: str) -> int:
        r"""Returns the position of a column."""
        self.require([name])
        return self._place[name]

    def column(self, name: str) -> list[str]:
        r"""Returns the cells of a column."""
        place = self.place(name)
        return [row[place] for row in self.rows]

    def number(self, row: int, place: int) -> float:
        r"""Returns a cell as a number, which may be NaN or infinite.

        Raises:
            DataFileError: If it is not a number; the message names file, line and column.
        """
        text = self.rows[row][place]
        try:
            if "_" in text:
                raise ValueError
            return float(text)
        except ValueError:
            comma = re.fullmatch(r"[+-]?\d+,\d+", text)
            hint = "; write decimals with a point" if comma else ""
            raise DataFileError(
                f"{self.where(row)}, column '{self.header[place]}': {text[:60]!r} is not a number{hint}"
            ) from None


def read_csv(path: PathLike, names: Sequence[str] = ()) -> Table:
    r"""Reads a CSV file with a header and at least one row.

    Args:
        path: The file; gzipped or not.
        names: Names of columns that are matched in any case.

    Raises:
        DataFileError: If the file is missing, damaged, not text, too large, or not a table; the message names the file
            and, where there is one, the line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with open(f"{folder}/labels.csv", "w", encoding="utf-16") as file:
        ...         _ = file.write("Arch; Label\n17; 93.5\n")
        ...     read_csv(f"{folder}/labels.csv", ["arch", "label"]).rows
        [['17', '93.5']]
    """
    table = _read(path, names)
    if not table.rows:
        raise DataFileError(f"{os.fspath(path)} has a header but no rows")
    return table


def read_header(path: PathLike, names: Sequence[str] = ()) -> list[str]:
    r"""Returns the header of a CSV file as in :func:`read_csv`, without reading the rest.

    Raises:
        DataFileError: As :func:`read_csv`, for the header.
    """
    return _read(path, names, header_only=True).header


def read_parquet(path: PathLike) -> Any:
    r"""Reads a Parquet file as a :class:`pyarrow.Table` with at least one row.

    Raises:
        DataFileError: If the file is missing or damaged, would unpack to too much, or has a column twice.
        MissingExtraError: If pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", "data")
    name = os.fspath(path)
    with open_regular(path) as file, foreign_file(path, "a Parquet file"):
        opened = parquet.ParquetFile(file)
        check_size(path, sum(opened.metadata.row_group(i).total_byte_size for i in range(opened.num_row_groups)))
        # A few bytes may encode any number of equal values.
        check_size(path, 8 * opened.metadata.num_rows * opened.metadata.num_columns)
        table = opened.read()
    check_header(path, table.column_names)
    if not table.num_rows:
        raise DataFileError(f"{name} has a header but no rows")
    return table


def is_parquet(path: PathLike) -> bool:
    r"""Whether a file starts as Parquet files do.

    Raises:
        DataFileError: If the file is missing or cannot be opened.
    """
    with open_regular(path) as file:
        return file.read(4) == b"PAR1"


def read_batches(path: PathLike, rows: int, empty: Collection[str] = ("",)) -> Iterator[Any]:
    r"""Reads a table part by part, as a :class:`pyarrow.RecordBatch` each: memory does not depend on its length.

    Args:
        path: A Parquet or CSV file, or a folder of Parquet files, which are read in the order of their names.
        rows: Rows of a part, at most. All columns of a CSV file are text.
        empty: How a CSV file writes that a cell is empty.

    Raises:
        DataFileError: If a file is missing or damaged, or has a column twice, or the folder has no Parquet
            file.
        MissingExtraError: If pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", "data")
    if os.path.isdir(path):
        names = sorted(Path(path).rglob("*.parquet"))
        if not names:
            raise DataFileError(f"{os.fspath(path)} has no Parquet file")
        for name in names:
            yield from read_batches(name, rows)
    elif is_parquet(path):
        with open_regular(path) as file, foreign_file(path, "a Parquet file"):
            opened = parquet.ParquetFile(file)
            check_header(path, opened.schema_arrow.names)
            yield from opened.iter_batches(rows)
    else:
        yield from _csv_batches(path, rows, empty)


def _csv_batches(path: PathLike, rows: int, empty: Collection[str]) -> Iterator[Any]:
    pyarrow, csv_reader, compute = (require(f"pyarrow{name}", "data") for name in ("", ".csv", ".compute"))
    header = read_header(path)
    names = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    with open_regular(path) as file:
        start = _content(path, file, True)
    utf16 = start.startswith(_UTF16)
    lines = _text(os.fspath(path), start, True).splitlines()
    before = next(i for i, line in enumerate(lines) if line.strip())
    with open_regular(path) as file, foreign_file(path, "a CSV file"):
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = pyarrow.input_stream(file, compression="gzip" if zipped else None)
        reader = csv_reader.open_csv(
            stream,
            csv_reader.ReadOptions(
                column_names=names, skip_rows=before + 1, block_size=1 << 23, encoding="utf-16" if utf16 else "utf-8"
            ),
            csv_reader.ParseOptions(delimiter=_separator(lines[before]), newlines_in_values=True),
            csv_reader.ConvertOptions(
                column_types={name: pyarrow.string() for name in names},
                null_values=[form for word in empty for form in {word, word.upper(), word.title(), "NaN", "N/A"}],
                strings_can_be_null=True,
            ),
        )
        for block in reader:
            trimmed = pyarrow.RecordBatch.from_arrays(list(map(compute.utf8_trim_whitespace, block.columns)), names)
            for first in range(0, trimmed.num_rows, rows):
                yield trimmed.slice(first, rows)


def _read(path: PathLike, names: Sequence[str], header_only: bool = False) -> Table:
    name = os.fspath(path)
    with open_regular(path) as file, foreign_file(path, "a CSV file"):
        text = _text(name, _content(path, file, header_only), header_only)
    first = next((line for line in io.StringIO(text) if line.strip()), None)
    if first is None:
        raise DataFileError(f"{name} is empty")
    separator = _separator(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append(cells)
                lines.append(reader.line_num)
                if header_only:
                    break
    except csv.Error as error:
        raise DataFileError(f"{name}, line {reader.line_num}: {_reason(error)}") from error
    header = _header(path, rows[0], names) if rows else []
    for line, cells in zip(lines[1:], rows[1:], strict=True):
        if len(cells) != len(header):
            raise DataFileError(f"{name}, line {line}: {len(cells)} cells, the header has {len(header)}")
    return Table(path, header, rows[1:], lines[1:])


def _separator(line: str) -> str:
    return max(_SEPARATORS, key=re.sub('"[^"]*"', "", line).count)


def _content(path: PathLike, file: IO[bytes], header_only: bool) -> bytes:
    start = file.read(2)
    file.seek(0)
    unpacked: Any = gzip.GzipFile(fileobj=file) if start == b"\x1f\x8b" else file
    with io.BufferedReader(LimitedReader(unpacked, path)) as reader:
        return reader.read(_HEADER_BYTES) if header_only else reader.read()


def _text(name: str, content: bytes, partial: bool) -> str:
    if content.startswith(_UTF16):
        return codecs.getincrementaldecoder("utf-16")().decode(content, final=not partial)
    if b"\0" in content[:4096]:
        raise DataFileError(f"{name} is not text, or UTF-16 without a byte order mark; save it as UTF-8")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content, final=not partial)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataFileError(f"{name}, line {line}: the text is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _reason(error: csv.Error) -> str:
    if "field limit" in str(error):
        return (
            f"a field has more than {csv.field_size_limit()} characters; if the file is sound, raise the limit with "
            f"csv.field_size_limit"
        )
    return str(error)


def _header(path: PathLike, cells: list[str], names: Sequence[str]) -> list[str]:
    known = {name.casefold(): name for name in names}
    header = [cell if cell in names else known.get(cell.casefold(), cell) for cell in cells]
    check_header(path, header)
    return header


def check_header(path: PathLike, header: Sequence[str]) -> None:
    r"""Refuses a header with a repeated column, which would be ambiguous.

    Raises:
        DataFileError: If one does.
    """
    seen: dict[str, int] = {}
    for place, name in enumerate(header, start=1):
        if name and name in seen:
            raise DataFileError(
                f"{os.fspath(path)}: column '{name}' occurs twice (columns {seen[name]} and {place}); leave one out"
            )
        seen[name] = place
