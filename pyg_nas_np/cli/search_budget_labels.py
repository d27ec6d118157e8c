r"""The user's labels of several fidelities as a CSV file with a column of levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyg_nas_np.cli.tables import plain_text
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search.budgeted import Price
from pyg_nas_np.spaces import ParameterSpace, RecordView, SearchSpace
from pyg_nas_np.spaces.columns import has_numbers
from pyg_nas_np.spaces.inference import parsed, rows_of
from pyg_nas_np.utils import DataFileError, InvalidFidelityError, InvalidLabelsError, InvalidSpaceError, NASError
from pyg_nas_np.utils.table_files import Table, is_parquet, read_csv

NOT_PARAMETERS = ("trial", "start", "price")
"""Columns of written proposals that are no parameters, so that the filled-in file is one of labels."""

_DIVERGED = ("nan", "diverged")


class Label(NamedTuple):
    r"""A label of an architecture at a level; NaN if the training diverged."""

    arch: Any
    level: float
    value: float


def parse_fidelity(text: str, prices: str | None, continued: bool) -> Fidelity:
    r"""Reads ``epochs=4,12,200`` and ``1,2,20``.

    Raises:
        InvalidFidelityError: If they are not that, or levels or prices are none.

    Example:
        >>> parse_fidelity("epochs=4,12,200", None, False).prices
        (0.02, 0.06, 1.0)
    """
    name, separator, levels = text.partition("=")
    if not separator:
        raise InvalidFidelityError(f"'{text}' is not a column and its levels, as epochs=4,12,200")
    return Fidelity(
        name.strip(), _numbers(levels, "levels"), () if prices is None else _numbers(prices, "prices"), continued
    )


def _numbers(text: str, what: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidFidelityError(f"{what} must be numbers with commas between them, got '{text}'") from None


def read_table(path: Path) -> Table:
    r"""Reads a table of labels or candidates.

    Raises:
        DataFileError: If it is no CSV file with rows.
    """
    if is_parquet(path):
        raise DataFileError(f"{path} is a Parquet file; a search within a budget reads CSV, which tells nan from empty")
    return read_csv(path, ("arch",))


def records_of(table: Table, ignore: Sequence[str]) -> list[dict[str, Any]]:
    r"""Returns the rows as records of all columns but those of :obj:`ignore` and of :data:`NOT_PARAMETERS`."""
    names = [name for name in table.header if name and name not in ignore and name not in NOT_PARAMETERS]
    return rows_of({name: parsed(table.column(name)) for name in names})


def architectures_of(space: SearchSpace[Any], table: Table) -> list[Any]:
    r"""Returns the architecture of each row: its parameters, or the string in the column ``arch``.

    Raises:
        DataFileError: If a row is no architecture of the space; the message names the line.
    """
    rows: Sequence[Any]
    if isinstance(space, ParameterSpace):
        names = [name for name in space.table_parameters if name in table.header]
        rows = rows_of({name: parsed(table.column(name)) for name in names}) if names else [{}] * len(table.rows)
    else:
        rows = [plain_text(text) for text in table.column("arch")]
    archs = []
    for row, given in enumerate(rows):
        try:
            archs.append(space.check(given) if isinstance(space, ParameterSpace) else space.from_str(given))
        except NASError as error:
            raise DataFileError(f"{table.where(row)}: {error}") from error
    return archs


def price_of(space: SearchSpace[Any], cost: str, table: Table | None) -> str | Price:
    r"""Returns the price of full trainings as :class:`~pyg_nas_np.search.BudgetedSearch` takes it.

    Args:
        space: The space.
        cost: A column of the candidates, a numeric parameter, or a cost of the space.
        table: The candidates, if they are given.

    Raises:
        DataFileError: If a row of the column is no number.
        InvalidSpaceError: If the parameter is no number.
    """
    if table is not None and cost in table.header:
        place = table.place(cost)
        prices = {arch: table.number(row, place) for row, arch in enumerate(architectures_of(space, table))}
        return lambda archs: torch.tensor([prices[arch] for arch in archs], dtype=torch.float64, device="cpu")
    if isinstance(space, RecordView) and cost in space.parameters:
        if not has_numbers(space.parameters[cost]):
            raise InvalidSpaceError(f"parameter {cost!r} is no number, so that it cannot be a price; name another one")
        # An inactive parameter has no price; the search names the architecture.
        return lambda archs: torch.tensor(
            [float(record.get(cost, math.nan)) for record in space.records(archs.given)],
            dtype=torch.float64,
            device="cpu",
        )
    return cost


def labels_of(space: SearchSpace[Any], table: Table, fidelity: Fidelity, target: str) -> list[Label]:
    r"""Returns the labels of a table; rows without one are trainings that are not done yet.

    Args:
        space: The space.
        table: The table.
        fidelity: Its name is the column of the levels.
        target: Column of the labels; ``nan``, ``inf`` and ``diverged`` are diverged trainings.

    Raises:
        DataFileError: If a column is missing, or a row is no architecture of the space or not a number.
        InvalidLabelsError: If a level is none of the fidelity's.
    """
    table.require((fidelity.name, target))
    level, place = table.place(fidelity.name), table.place(target)
    labels = []
    for row, arch in enumerate(architectures_of(space, table)):
        text = table.rows[row][place]
        if not text:
            continue
        value = math.nan if text.casefold() in _DIVERGED else table.number(row, place)
        at = table.number(row, level)
        try:
            fidelity.positions([at])
        except InvalidLabelsError as error:
            raise InvalidLabelsError(f"{table.where(row)}: {error}") from error
        labels.append(Label(arch, at, value if math.isfinite(value) else math.nan))
    return labels


def new_labels(told: Sequence[Label], read: Sequence[Label]) -> list[Label]:
    r"""Returns the labels that were not told yet, each once.

    Example:
        >>> new_labels([Label("a", 4, 0.5)], [Label("a", 4, 0.5), Label("a", 4, 0.6), Label("a", 4, 0.6)])
        [Label(arch='a', level=4, value=0.6)]
    """
    # NaN differs from itself.
    known = {(arch, level, None if math.isnan(value) else value) for arch, level, value in told}
    fresh = []
    for label in read:
        key = (label.arch, label.level, None if math.isnan(label.value) else label.value)
        if key not in known:
            known.add(key)
            fresh.append(label)
    return fresh
