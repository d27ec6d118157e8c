r"""Terminal tables and CSV files."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.predictors.evaluation import Evaluation
from pyg_nas_np.utils import atomic_path

# Output that goes into a file or a log must not be folded at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160)

COLUMNS = {
    "kendall_tau": ("tau", ".3f"),
    "spearman": ("Spearman", ".3f"),
    "n_at_10": ("N@10", ".0f"),
    "precision_at_1_percent": ("P@1%", ".2f"),
    "regret_at_1": ("regret@1", ".2f"),
    "regret_at_10": ("regret@10", ".2f"),
    "nll": ("NLL", ".2f"),
    "crps": ("CRPS", ".2f"),
    "coverage_90": ("cover 90%", ".2f"),
    "fit_seconds": ("fit s", ".2f"),
    "predict_seconds": ("predict s", ".2f"),
}


def score_table(scores: Mapping[str, Evaluation], title: str) -> Table:
    r"""Returns one row a predictor."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("predictor")
    for label, _ in COLUMNS.values():
        table.add_column(label, justify="right")
    for name, evaluation in scores.items():
        values = evaluation.to_dict()
        table.add_row(name, *(format(values[key], spec) for key, (_, spec) in COLUMNS.items()))
    return table


def write_scores(path: Path, scores: Mapping[str, Evaluation]) -> None:
    r"""Writes one row a predictor as CSV, all scores in full."""
    rows = [[name, *evaluation.to_dict().values()] for name, evaluation in scores.items()]
    write_csv(path, ["predictor", *next(iter(scores.values())).to_dict()], rows)


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    r"""Writes a CSV file atomically.

    Text that a spreadsheet would run as a formula, because it begins with ``=``, ``+``, ``-``, ``@``, a tab or a
    carriage return, gets an apostrophe in front; numbers stay as they are. :func:`plain_text` undoes it.
    """
    with atomic_path(path) as tmp, open(tmp, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_cell, header))
        writer.writerows([_cell(value) for value in row] for row in rows)


def csv_cell(value: object) -> object:
    r"""Returns a value of a record as a cell: lists as JSON, nothing for None.

    Example:
        >>> csv_cell([3, 5]), csv_cell(None), csv_cell(0.1)
        ('[3, 5]', '', 0.1)
    """
    if isinstance(value, list | dict):
        return json.dumps(value)
    return "" if value is None else value


def _cell(value: object) -> object:
    risky = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if risky else value


def plain_text(cell: str) -> str:
    r"""Returns the text that :func:`write_csv` was given for a cell.

    Example:
        >>> plain_text("'=1+1"), plain_text("'tis"), plain_text("-5")
        ('=1+1', "'tis", '-5')
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
