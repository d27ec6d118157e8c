r"""The command that checks labels: of a benchmark by its published statistics, of the user's by themselves."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from pyg_nas_np.cli.benchmarks import BenchmarkOption, DatasetOption, RootOption, open_benchmark
from pyg_nas_np.cli.own_files import IgnoreOption, LabelsOption, SpaceOption, TargetOption, is_own, name_of, open_own
from pyg_nas_np.cli.tables import console


def verify(
    ctx: typer.Context,
    labels: LabelsOption = None,
    target: TargetOption = None,
    ignore: IgnoreOption = None,
    space: SpaceOption = None,
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    root: RootOption = None,
) -> None:
    """Check that your own labels vary and repeats agree, or compare a benchmark with its published statistics."""
    if is_own(ctx, labels):
        task = open_own(labels, None, target, ignore, space, None, None)
        title, checks = name_of(str(labels)), task.dataset().verify()
    else:
        data = open_benchmark(benchmark, dataset, root)
        title, checks = f"{benchmark} from {data.source.name}", data.published()
    table = Table(title=escape(title), title_justify="left")
    for column in ("check", "expected" if labels is not None else "published", "found", ""):
        table.add_column(column)
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]differs[/red]"
        table.add_row(escape(check.name), f"{check.expected:g}", f"{check.actual:g}", mark)
    console.print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
