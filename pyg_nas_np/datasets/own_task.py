r"""A task of the user's own: what was measured, and what there is to choose from, as architectures of one space."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.datasets.exports import PREFIXES
from pyg_nas_np.datasets.measurements import Candidates, MeasuredTable, Measurements, read_measurements, read_pool
from pyg_nas_np.datasets.table import TableDataset
from pyg_nas_np.spaces import Configuration, ParameterSpace
from pyg_nas_np.spaces.inference import left_out, rows_of
from pyg_nas_np.spaces.parameter_space import score_column
from pyg_nas_np.spaces.parameters import is_missing, plain
from pyg_nas_np.utils.errors import InvalidArchitectureError, InvalidSpaceError


@dataclass(frozen=True)
class OwnTask:
    r"""Measured architectures, and those to choose from.

    Attributes:
        space: The search space, declared or inferred.
        archs: The measured architectures, ``n`` of them; repeats are kept.
        y: Their labels, ``[n]`` float64.
        target: Name of the column of the labels.
        maximize: Whether larger labels are better.
        pool: The candidates, ``A`` of them; none where the space itself is to be searched.
        waiting: Rows without a label of a table beside which a space was declared, if they are no candidates: they may
            be in training.
        columns: All columns of the candidates' table by name, ``A`` values each.
        costs: Costs that are known of the candidates, ``[A]`` float64 each.
        measured_costs: Costs that are known of the measured architectures only, ``[n]`` float64 each.
        notes: What was taken for what, one line each.
        total: Candidates of which :attr:`pool` holds the best ones; 0 if it holds all.
        rows: Their rows in the file of all, the first one is 1; empty if :attr:`pool` holds all.
    """

    space: ParameterSpace
    archs: list[Configuration]
    y: Tensor
    target: str
    maximize: bool
    pool: list[Configuration] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    waiting: list[Configuration] = field(default_factory=list)
    costs: dict[str, Tensor] = field(default_factory=dict)
    measured_costs: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    total: int = 0
    rows: list[int] = field(default_factory=list)

    @property
    def pool_labels(self) -> Tensor:
        r"""Labels of the candidates that were measured, the mean of repeats, ``[A]`` float64; NaN of the others."""
        total: dict[Configuration, list[float]] = {}
        for arch, label in zip(self.archs, self.y.tolist(), strict=True):
            total.setdefault(arch, []).append(label)
        means = {arch: sum(labels) / len(labels) for arch, labels in total.items()}
        return torch.tensor([means.get(arch, float("nan")) for arch in self.pool], dtype=torch.float64, device="cpu")

    def dataset(self) -> TableDataset:
        r"""Returns the measured architectures as a data set."""
        costs = [arch.to_dict() | arch.costs for arch in self.archs]
        rows = [{**cost, self.target: label} for cost, label in zip(costs, self.y.tolist(), strict=True)]
        return TableDataset(self.space, rows, self.target, maximize=self.maximize)

    @property
    def digest(self) -> str:
        r"""A short name of what was measured: it changes with every configuration and label."""
        rows = [[self.space.to_str(arch), label] for arch, label in zip(self.archs, self.y.tolist(), strict=True)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

    def shortlisted(self, table: Mapping[str, Sequence[Any]], total: int, rows: Sequence[int]) -> OwnTask:
        r"""Returns the task with some of very many candidates.

        Args:
            table: Their columns, where parameters and costs may have the prefix of a tool.
            total: Number of all.
            rows: See :attr:`rows`.
        """
        columns = {name: list(column) for name, column in table.items()}
        wanted = [*self.space.table_parameters, *self.space.known_columns]
        places = {name: place for name in wanted if (place := _column(name, columns)) is not None}
        records = rows_of({name: columns[place] for name, place in places.items()})
        pool = [_arch(self.space, record, f"candidate {i}") for i, record in zip(rows, records, strict=True)]
        costs = {name: _numbers(name, columns[name]) for name in self.costs if name in columns}
        costs = self.space.costs(pool) | costs
        return replace(self, pool=pool, columns=columns, costs=costs, total=total, rows=list(rows))

    def sampled(self, count: int, generator: torch.Generator | None = None) -> OwnTask:
        r"""Returns the task with candidates drawn from the space: at most :obj:`count` that were not measured."""
        size, known = self.space.size, set(self.archs)
        wanted = count + len(known)
        drawn = self.space.sample(wanted if size is None else min(wanted, size), generator)
        pool = [arch for arch in drawn if arch not in known][:count]
        if not pool:
            raise InvalidSpaceError("every configuration of the space was measured; there is nothing left to choose")
        return replace(self, pool=pool, columns=columns_of(self.space, pool), costs=self.space.costs(pool))


def columns_of(space: ParameterSpace, archs: Sequence[Configuration]) -> dict[str, list[Any]]:
    r"""Returns architectures as columns of a table, in the form of the one that the space was inferred from.

    What an architecture has not is None.
    """
    rows = [space.to_row(arch) for arch in archs]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def read_own_task(
    labels: Any,
    candidates: Any = None,
    *,
    target: str | None = None,
    ignore: Collection[str] = (),
    minimize: bool | None = None,
    space: ParameterSpace | str | os.PathLike[str] | None = None,
    costs: Collection[str] = (),
    scores: Collection[str] = (),
    in_training: bool = False,
    unmeasured: bool = False,
) -> OwnTask:
    r"""Reads a task from the tables of the user.

    Where the candidates are the rows without a label, a column that all labelled rows have and none of these is a
    further metric, no parameter. Of a declared space, columns that it does not declare are not used.

    Args:
        labels: The measurements, see :func:`~pyg_nas_np.datasets.measurements.read_measurements`. :obj:`None` if
            nothing was measured yet: then there must be candidates or a declared space.
        candidates: A table of the architectures to choose from. (default: the rows of :obj:`labels` without a label)
        target: The column of the labels. (default: the only one that can be)
        ignore: Columns that are neither parameters nor labels.
        minimize: Whether smaller labels are better. (default: as the table tells, otherwise larger ones are)
        space: The search space or the file of its declaration. (default: inferred from both tables)
        costs: Columns of costs. A cost is no parameter unless the space declares it. One that the measured have and
            the candidates lack is for the caller to learn.
        scores: Columns of zero-cost scores, of which larger ones are supposed to be better; with a minus before the
            name, smaller ones. A score is no parameter. One that some rows lack is predicted for these.
        in_training: Whether rows without a label are :attr:`OwnTask.waiting` where a space is declared.
        unmeasured: Whether :obj:`labels` may have no label at all; then its rows are the candidates where none are
            given.

    Raises:
        DataFileError: If a file cannot be read.
        InvalidLabelsError: If there is no label though one is needed, or something is none.
        InvalidArchitectureError: If a row is no architecture of the declared space.
        InvalidSpaceError: If a column is missing, no space can be inferred, or a score is the target or a cost.

    Example:
        >>> rows = [{"depth": d, "act": a, "acc": d if d < 3 else None} for d in range(1, 5) for a in ("relu", "gelu")]
        >>> task = read_own_task(rows, target="acc")
        >>> len(task.archs), len(task.pool), task.maximize
        (4, 4, True)
    """
    declared = space if space is None or isinstance(space, ParameterSpace) else ParameterSpace.from_file(space)
    given = None if candidates is None else MeasuredTable(candidates).export.columns
    told = {score: str(score_column(score)) for score in dict.fromkeys(scores)}
    if both := [name for name in told.values() if name in costs]:
        raise InvalidSpaceError(f"{both[0]!r} is named twice as a cost or score; name it once")
    if labels is None:
        return _without_labels(declared, given, target or "label", ignore, minimize, costs, told)
    if unmeasured and (table := _unlabelled(labels, target)) is not None:
        target = table.target(target)
        if minimize is None and target in table.export.maximize:
            minimize = not table.export.maximize[target]
        given = table.parameters([target]) if given is None else given
        return _without_labels(declared, given, target, ignore, minimize, costs, told)
    measured = read_measurements(labels, target, ignore=_ignored(ignore, labels, given), minimize=minimize)
    measured = _scored(measured, told)
    known = [(i, measured.records[i]) for i in measured.labelled.nonzero().flatten().tolist()]
    wait = in_training and declared is not None and given is None
    pool, names, notes = _pool(measured, candidates, given, declared, [*costs, *told.values()], ignore)
    if wait:
        pool, waiting = Candidates([], torch.zeros(0, dtype=torch.bool, device="cpu")), pool.records
    else:
        waiting = []
    used = _Costs(costs, declared, measured, pool)
    names = [name for name in dict.fromkeys([*names, *told.values()]) if name in used.joint or name not in costs]
    rows = [*(row for _, row in known), *pool.records]
    _check_scores(told, rows)
    if declared is None:
        rows = [_part(row, names) for row in rows]
        found: ParameterSpace = ParameterSpace.from_records(rows, costs=used.joint, scores=_same(told))
    else:
        found = _with_costs(declared, rows, names, used.joint, told)
    if len(found.pool_rows) == len(rows):
        archs, choice = list(found.pool_rows[: len(known)]), list(found.pool_rows[len(known) :])
    else:
        archs = [_arch(found, _part(row, names), f"measured row {measured.rows[i] + 1}") for i, row in known]
        choice = [_arch(found, _part(row, names), f"candidate {i}") for i, row in enumerate(pool.records, start=1)]
    return OwnTask(
        found,
        archs,
        measured.labels[measured.labelled],
        measured.target,
        True if measured.maximize is None else measured.maximize,
        choice,
        {name: [row.get(name) for row in pool.records] for name in _names(pool.records)} | pool.columns
        if choice
        else {},
        [_arch(found, _part(row, names), "a row without a label") for row in waiting],
        {**(found.costs(choice) if choice else {}), **used.of_pool},
        used.of_measured,
        [*measured.notes, *notes],
    )


def _without_labels(
    declared: ParameterSpace | None,
    given: Mapping[str, Sequence[Any]] | None,
    target: str,
    ignore: Collection[str],
    minimize: bool | None,
    costs: Collection[str],
    scores: Mapping[str, str],
) -> OwnTask:
    """The task before anything was measured."""
    if given is None and declared is None:
        raise InvalidSpaceError("there is nothing to choose from; give measurements, candidates or a space")
    columns = {name: list(column) for name, column in (given or {}).items() if name != target}
    if target in scores.values():
        raise InvalidSpaceError(f"{target!r} is the label; a score is known before training, name another column")
    used = {name: column for name, column in columns.items() if name not in ignore}
    if declared is not None and given is not None:
        kept = {*declared.parameters, *costs, *scores.values()}
        used = {name: column for name, column in used.items() if name in kept}
    rows = rows_of(used)
    for name in costs:
        if name not in used and (declared is None or name not in declared.parameters):
            raise InvalidSpaceError(f"there is no column {name!r} of costs; {_hint(name, list(columns))}")
    _check_scores(scores, rows)
    if declared is None:
        space: ParameterSpace = ParameterSpace.from_records(rows, costs=_same(costs), scores=_same(scores))
    else:
        space = _with_costs(declared, rows, list(used), _same(costs), scores) if rows else declared
    pool = [_arch(space, row, f"candidate {i}") for i, row in enumerate(rows, start=1)]
    y = torch.empty(0, dtype=torch.float64, device="cpu")
    return OwnTask(space, [], y, target, not minimize, pool, columns, costs=space.costs(pool) if pool else {})


def _unlabelled(labels: Any, target: str | None) -> MeasuredTable | None:
    """The table of labels, if it has none."""
    table = MeasuredTable(labels)
    return table if bool(table.labels(table.target(target)).isnan().all()) else None


def _scored(measured: Measurements, scores: Mapping[str, str]) -> Measurements:
    """Measurements whose records have the columns of scores, empty where there is no such column."""
    if measured.target in scores.values():
        raise InvalidSpaceError(
            f"{measured.target!r} is the label; a score is known before training, name another column"
        )
    absent = {name: measured.columns.get(name) for name in scores.values() if name not in _names(measured.records)}
    if not absent:
        return measured
    records = [
        {**row, **{name: None if column is None else column[i] for name, column in absent.items()}}
        for i, row in enumerate(measured.records)
    ]
    return replace(measured, records=records)


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _check_scores(scores: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    for name in scores.values():
        column = [row.get(name) for row in rows]
        if not _filled(column):
            others = [other for other in _names(rows) if other != name]
            raise InvalidSpaceError(f"there is no column {name!r} of scores; {_hint(name, others)}")
        _numbers(name, column, "score")


def _pool(
    measured: Measurements,
    candidates: Any,
    given: Mapping[str, Sequence[Any]] | None,
    declared: ParameterSpace | None,
    costs: Collection[str],
    ignore: Collection[str],
) -> tuple[Candidates, list[str], list[str]]:
    """The candidates, the names of parameters and costs, and what is to be said."""
    names, notes = _names(measured.records), []
    if declared is not None:
        if unused := [name for name in names if name not in declared.table_parameters and name not in costs]:
            notes.append(f"not used, because the space does not declare it: {', '.join(unused)}")
        names = [name for name in names if name not in unused]
    known = [row for row, there in zip(measured.records, measured.labelled.tolist(), strict=True) if there]
    if given is None:
        pool = measured.unlabelled
        if metrics := [name for name in names if pool.records and not _has(pool.records, name) and _all(known, name)]:
            notes.append(f"not used, because rows without a label have none: {', '.join(metrics)}")
        return pool, [name for name in names if name not in metrics or name in costs], notes
    needed = [name for name in names if name not in costs or _column(name, given) is not None]
    _check_columns(needed, known, given)
    like = replace(measured, records=[_part(row, needed) for row in measured.records])
    pool = read_pool(candidates, like, ignore=[name for name in ignore if name in given])
    return pool, _names(pool.records), [*notes, *pool.notes]


class _Costs:
    """Where each cost is known: by the space and both tables (joint), of the candidates or of the measured only."""

    def __init__(
        self, costs: Collection[str], declared: ParameterSpace | None, measured: Measurements, pool: Candidates
    ) -> None:
        self.joint: dict[str, str] = {}
        self.of_pool: dict[str, Tensor] = {}
        self.of_measured: dict[str, Tensor] = {}
        theirs = {name: [row.get(name) for row in pool.records] for name in _names(pool.records)} | pool.columns
        ours = {name: [row.get(name) for row in measured.records] for name in _names(measured.records)}
        ours |= measured.columns
        for name in costs:
            column = ours.get(name, [None] * len(measured))
            labelled = [value for value, there in zip(column, measured.labelled.tolist(), strict=True) if there]
            of_pool, of_measured = _filled(theirs.get(name, ())), _filled(labelled)
            parameter = declared is not None and name in declared.parameters
            if parameter or (of_pool and of_measured and name in _names(pool.records)):
                self.joint[name] = name
            elif of_pool:
                self.of_pool[name] = _numbers(name, theirs[name])
            elif of_measured:
                self.of_measured[name] = _numbers(name, labelled)
            else:
                raise InvalidSpaceError(f"there is no column {name!r} of costs; {_hint(name, [*ours, *theirs])}")


def _filled(column: Collection[Any]) -> bool:
    return any(not is_missing(value) for value in column)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _part(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _has(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(not is_missing(row.get(name)) for row in rows)


def _all(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(not is_missing(row.get(name)) for row in rows)


def _column(name: str, columns: Collection[str]) -> str | None:
    """The column of a parameter, perhaps behind the prefix of a tool."""
    return next((prefix + name for prefix in PREFIXES if prefix + name in columns), None)


def _ignored(ignore: Collection[str], labels: Any, candidates: Collection[str] | None) -> list[str]:
    """Those columns that the labels have; others may be in the candidates only."""
    if candidates is None or all(name not in candidates for name in ignore):
        return list(ignore)
    have = MeasuredTable(labels).export.columns
    return [name for name in ignore if name in have or name not in candidates]


def _check_columns(names: Sequence[str], known: Sequence[Mapping[str, Any]], columns: Collection[str]) -> None:
    """Names all parameters at once that the candidates lack, with the cure."""
    optional = left_out({name: [row.get(name) for row in known] for name in names})
    missing = [name for name in names if name not in optional and _column(name, columns) is None]
    if not missing:
        return
    folded = {other.casefold(): other for other in columns if other not in names}
    close = {name: get_close_matches(name.casefold(), folded, 1) for name in missing}
    hints = [f"{name!r} may be their {folded[match[0]]!r}" for name, match in close.items() if match]
    cure = "; ".join([*hints, f"leave out what is no parameter: {' '.join(f'--ignore {name}' for name in missing)}"])
    raise InvalidSpaceError(f"the candidates have no column {', '.join(map(repr, missing))}; {cure}")


def _hint(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, 3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"the columns are {', '.join(names)}"


def _numbers(name: str, values: Sequence[Any], what: str = "cost") -> Tensor:
    numbers = []
    for row, value in enumerate(map(plain, values), start=1):
        if not is_missing(value) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidSpaceError(f"row {row}, column {name!r}: the {what} {value!r} is not a number")
        numbers.append(float("nan") if is_missing(value) else float(value))
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")


def _with_costs(
    space: ParameterSpace,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    costs: Mapping[str, str],
    scores: Mapping[str, str],
) -> ParameterSpace:
    """A declared space with the costs and scores that the tables know."""
    for name, parameter in space.parameters.items():
        if name not in names and not parameter.when and not parameter.optional:
            raise InvalidSpaceError(
                f"there is no column {name!r}, which {space.name} declares; {_hint(name, _names(rows))}"
            )
    if not costs and not scores:
        return space
    pool = [_part(row, names) for row in rows]
    return ParameterSpace(space.parameters, name=space.name, costs=costs, scores=_same(scores), pool=pool)


def _arch(space: ParameterSpace, record: Mapping[str, Any], where: str) -> Configuration:
    try:
        return space.check(record)
    except InvalidArchitectureError:
        raise InvalidArchitectureError(f"{where}: {space.is_valid(record).reason}") from None
