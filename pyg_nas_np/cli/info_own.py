r"""What is in the user's own file: what each column was taken for, what the labels are, and what to do next."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.cli.options import say
from pyg_nas_np.cli.own_files import LINE, show_space
from pyg_nas_np.cli.ranking import value_text
from pyg_nas_np.cli.tables import console
from pyg_nas_np.datasets.measurements import MeasuredTable
from pyg_nas_np.datasets.own_task import OwnTask, read_own_task
from pyg_nas_np.spaces import ParameterSpace, Repeat
from pyg_nas_np.spaces.parameters import is_missing, plain
from pyg_nas_np.utils import InvalidLabelsError, atomic_path

SHOWN = 6
"""Categories listed of a column."""

_METRIC = re.compile(r"acc|loss|err|score|auc|f1|bleu|perplex|metric|reward|value|map|iou|top.?[15]", re.IGNORECASE)
_SMALL = re.compile(r"loss|err|perplex|latency|time|mse|mae|rmse", re.IGNORECASE)


def describe(
    labels: str,
    candidates: Path | None,
    target: str | None,
    ignore: Sequence[str],
    minimize: bool | None,
    space: Path | None,
    write_space: Path | None,
) -> None:
    r"""Prints what a file holds.

    Args:
        labels: The measurements.
        candidates: What to choose from.
        target: Column of the labels. (default: the only one that can be)
        ignore: Columns that are not used.
        minimize: Whether smaller labels are better.
        space: Declaration of the space.
        write_space: JSON file to write the space to.
    """
    table = MeasuredTable(labels)
    columns = table.export.columns
    try:
        table.target(target)
    except InvalidLabelsError as error:
        if target is not None:
            raise
        console.print(_columns(columns, {}, f"{table.num_rows:,} rows"))
        say(str(error).replace("name one as target", "name one by --target"))
        guess = _likely(columns)
        say(f"Try: {_command('info', labels, candidates, guess, ignore, bool(_SMALL.search(guess)) or None)}")
        return
    task = read_own_task(labels, candidates, target=target, ignore=ignore, minimize=minimize, space=space)
    roles = {name: repr(parameter)[:LINE] for name, parameter in task.space.parameters.items()}
    roles |= {raw: f"left out: {reason}" for raw, reason in getattr(task.space, "left_out", {}).items()}
    roles = {raw: roles[name] for raw, name in table.export.parameters.items() if name in roles}
    roles[table.target(target)] = f"the label, the {'largest' if task.maximize else 'smallest'} is best"
    title = table.export.title or "plain columns"
    console.print(_columns(columns, roles, f"{table.num_rows:,} rows: {title}"))
    for note in task.notes:
        say(note)
    say(_labels(task))
    gathered = [name for name, parameter in task.space.parameters.items() if isinstance(parameter, Repeat)]
    if gathered:
        console.print("Space:", highlight=False)
        show_space(task.space)
    if write_space is not None:
        _write_space(write_space, task.space)
    count = len(task.pool)
    if count:
        say(f"{count:,} candidates: {'rows without a label' if candidates is None else candidates.name}")
    needed = None if table.export.metrics is not None and len(table.export.metrics) == 1 else target
    say(f"Try: {_command('rank', labels, candidates, needed, ignore, minimize)}")


def _columns(columns: Mapping[str, Sequence[Any]], roles: Mapping[str, str], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for name in ("column", "values", "distinct", "empty", *(["taken for"] if roles else [])):
        table.add_column(name, justify="right" if name in ("distinct", "empty") else "left", overflow="fold")
    for name, column in columns.items():
        filled = [plain(value) for value in column if not is_missing(value)]
        distinct = {repr(value): value for value in filled}
        cells = [name, _values(list(distinct.values())), f"{len(distinct):,}", f"{len(column) - len(filled):,}"]
        table.add_row(*map(escape, cells + ([roles.get(name, "not used")] if roles else [])))
    return table


def _values(distinct: Sequence[Any]) -> str:
    if not distinct:
        return "–"
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct):
        return value_text(min(distinct)) + (f" ... {value_text(max(distinct))}" if len(distinct) > 1 else "")
    shown = [value_text(value) if isinstance(value, float | list) else str(value)[:30] for value in distinct[:SHOWN]]
    return ", ".join(shown) + (f" and {len(distinct) - SHOWN:,} more" if len(distinct) > SHOWN else "")


def _labels(task: OwnTask) -> str:
    quantiles = task.y.quantile(task.y.new_tensor([0.0, 0.5, 1.0])).tolist()
    low, middle, high = (f"{value:.5g}" for value in quantiles)
    distinct = len(set(task.archs))
    return f"{len(task.y)} labels of {distinct} configurations: {task.target} from {low} to {high}, median {middle}"


def _likely(columns: Mapping[str, Sequence[Any]]) -> str:
    """The column that is most likely the label: called like a metric, otherwise the last one of numbers."""
    numeric = []
    for name, column in columns.items():
        filled = [plain(value) for value in column if not is_missing(value)]
        if filled and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in filled):
            numeric.append(name)
    named = [name for name in numeric if _METRIC.search(name)]
    return (named or numeric or list(columns))[-1]


def _command(
    command: str, labels: str, candidates: Path | None, target: str | None, ignore: Sequence[str], minimize: bool | None
) -> str:
    words = ["pyg-nas-np", command, *([labels] if command == "info" else ["--labels", labels])]
    words += [] if candidates is None else ["--candidates", str(candidates)]
    words += [] if target is None else ["--target", target]
    words += [] if not minimize else ["--minimize"]
    words += [word for name in ignore for word in ("--ignore", name)]
    return shlex.join(words)


def _write_space(path: Path, space: ParameterSpace) -> None:
    lists = [name for name, parameter in space.parameters.items() if isinstance(parameter, Repeat)]
    if lists:
        raise typer.BadParameter(
            f"{lists[0]!r} was gathered from numbered columns, which a declaration cannot name",
            param_hint="--write-space",
        )
    # A plain declaration: what an inferred space remembers of its table is not a part of it.
    declared = {"name": path.stem, "parameters": ParameterSpace.to_dict(space)["parameters"]}
    with atomic_path(path) as tmp:
        tmp.write_text(json.dumps(declared, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"Wrote the space to {path}; edit it and pass it as --space")
