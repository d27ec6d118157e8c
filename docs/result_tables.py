"""The directive ``results``: a table of a file of ``benchmarks/results``, and what printed it.

Numbers of the site come from these files while it is built; a page that uses the directive holds none by hand.
"""

from __future__ import annotations

import csv
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"

Rows = list[dict[str, str]]


def words(text: str) -> list[str]:
    r"""Reads an option that lists names."""
    return [word.strip() for word in text.split(",")]


def shown(text: str) -> str:
    r"""Returns a cell as it is shown: four significant digits, thousands apart."""
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"


def number_of(text: str) -> float:
    r"""Returns the place of a column, by its number where it has one."""
    return float(text) if text.replace(".", "", 1).isdigit() else float("inf")


def pivot(rows: Rows, index: Sequence[str], column: str, value: str) -> list[list[str]]:
    r"""Returns a heading and one line for each combination of ``index``: means of ``value`` by ``column``."""
    names = sorted(dict.fromkeys(row[column] for row in rows), key=lambda name: (number_of(name), name))
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        if row[value]:
            line = cells.setdefault(tuple(row[name] for name in index), {})
            line.setdefault(row[column], []).append(float(row[value]))
    body = [[*key, *(str(fmean(line[n])) if n in line else "" for n in names)] for key, line in cells.items()]
    return [[*index, *names], *body]


def means(rows: Rows, index: Sequence[str], values: Sequence[str]) -> list[list[str]]:
    r"""Returns a heading and a line for each combination of ``index``: its number of rows, and means of ``values``."""
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in index), []).append(row)
    body = [
        [*key, str(len(group)), *(str(fmean(float(row[name]) for row in group)) for name in values)]
        for key, group in groups.items()
    ]
    return [[*index, "rows", *values], *body]


def listed(rows: Rows, columns: Sequence[str]) -> list[list[str]]:
    r"""Returns a heading and all rows, without the columns that none of them fills."""
    names = [name for name in columns or rows[0] if any(row[name] for row in rows)]
    return [names, *([row[name] for name in names] for row in rows)]


def selected(rows: Rows, options: dict[str, Any]) -> list[list[str]]:
    r"""Returns the lines that the options of the directive ask for.

    Raises:
        LookupError: If the file has no such column, or no row that fulfils the conditions.
    """
    index, values, conditions = options.get("rows", []), options.get("value", []), options.get("where", [])
    columns = [options["columns"]] if "columns" in options else []
    asked = [*index, *values, *columns, *(condition.partition("=")[0] for condition in conditions)]
    unknown = [name for name in asked if name not in rows[0]]
    if unknown:
        raise LookupError(f"no column {', '.join(unknown)} among {', '.join(rows[0])}")
    for condition in conditions:
        name, _, wanted = condition.partition("=")
        rows = [row for row in rows if row[name] == wanted]
    if not rows:
        raise LookupError(f"no row with {', '.join(conditions)}")
    if columns:
        return pivot(rows, index, columns[0], values[0])
    return means(rows, index, values) if values else listed(rows, index)


def printed_at(path: Path) -> str:
    r"""Returns the commit that last changed a file, and nothing outside a checkout."""
    command = ["git", "-C", str(path.parent), "log", "-1", "--format=%h of %cs", "--", path.name]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class Results(SphinxDirective):
    r"""Shows a file of results as a table.

    With ``columns`` and ``value`` it has a line for each combination of ``rows``, and the mean of ``value`` for each
    entry of the column ``columns``; with ``value`` alone, the means of these columns. Otherwise it lists all rows, or
    only the columns ``rows`` of them.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "command": directives.unchanged_required,
        "where": words,
        "rows": words,
        "columns": directives.unchanged_required,
        "value": words,
    }

    def run(self) -> list[nodes.Node]:
        r"""Returns the table and the line that says where it comes from."""
        path = RESULTS / self.arguments[0]
        self.env.note_dependency(str(path))
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        try:
            lines = selected(rows, self.options)
        except LookupError as error:
            raise self.error(f"{path.name}: {error.args[0]}") from error
        source = nodes.paragraph(classes=["results-source"])
        commit = printed_at(path)
        source += nodes.Text("Printed by ")
        source += nodes.literal(text=self.options["command"])
        source += nodes.Text("; file ")
        source += nodes.literal(text=f"benchmarks/results/{path.name}")
        source += nodes.Text(f", commit {commit}." if commit else ".")
        return [table(lines), source]


def table(lines: list[list[str]]) -> nodes.table:
    r"""Returns lines of cells as a table; the first one is its heading."""
    group = nodes.tgroup(cols=len(lines[0]))
    group += [nodes.colspec(colwidth=1) for _ in lines[0]]
    parts = [nodes.thead(), nodes.tbody()]
    for number, line in enumerate(lines):
        row = nodes.row()
        for cell in line:
            text = cell.replace("_", " ") if number == 0 else shown(cell)
            row += nodes.entry("", nodes.paragraph(text=text))
        parts[number > 0] += row
    group += parts
    whole = nodes.table("", group, classes=["results"])
    return whole


def setup(app: Sphinx) -> dict[str, Any]:
    r"""Adds the directive."""
    app.add_directive("results", Results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
