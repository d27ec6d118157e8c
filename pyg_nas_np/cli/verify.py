r"""The command that compares a benchmark with its published statistics."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.cli.benchmarks import BenchmarkOption, DatasetOption, RootOption, open_benchmark
from pyg_nas_np.cli.tables import console


def verify(
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    root: RootOption = None,
) -> None:
    """Compare a benchmark with its published statistics."""
    data = open_benchmark(benchmark, dataset, root)
    table = Table(title=escape(f"{benchmark} from {data.source.name}"), title_justify="left")
    for column in ("check", "published", "found", ""):
        table.add_column(column)
    checks = data.published()
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]differs[/red]"
        table.add_row(escape(check.name), f"{check.expected:g}", f"{check.actual:g}", mark)
    console.print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
