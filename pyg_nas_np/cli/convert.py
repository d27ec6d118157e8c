r"""The command that converts labels, from whatever source, into one plain table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pyg_nas_np.cli.benchmarks import BenchmarkOption, DatasetOption, DownloadOption, RootOption, open_benchmark
from pyg_nas_np.cli.options import check_output, say
from pyg_nas_np.cli.own_files import IgnoreOption, LabelsOption, SpaceOption, TargetOption, is_own, open_own
from pyg_nas_np.cli.tables import csv_cell, write_csv
from pyg_nas_np.datasets.compact import SUFFIXES, write_compact
from pyg_nas_np.datasets.own_task import columns_of
from pyg_nas_np.utils import MissingLabelsError


def convert(
    ctx: typer.Context,
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Table to write: .csv, of benchmarks also .csv.gz or .parquet.")
    ],
    labels: LabelsOption = None,
    target: TargetOption = None,
    ignore: IgnoreOption = None,
    space: SpaceOption = None,
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    metric: Annotated[Optional[list[str]], typer.Option(help="Metrics to keep; repeat. (default: all)")] = None,  # noqa: UP045
    root: RootOption = None,
    download: DownloadOption = False,
) -> None:
    """Convert your own measurements, or the labels of a benchmark, from whatever source into one plain table."""
    own = is_own(ctx, labels)
    suffixes = (".csv",) if own else SUFFIXES
    if not output.name.endswith(suffixes):
        raise typer.BadParameter(f"'{output.name}' must end in one of {', '.join(suffixes)}", param_hint="OUTPUT")
    check_output(output, option="OUTPUT")
    if own:
        task = open_own(labels, None, target, ignore, space, None, None)
        columns = columns_of(task.space, [*task.archs, *task.pool])
        columns[task.target] = [*task.y.tolist(), *[""] * len(task.pool)]
        write_csv(
            output, list(columns), ([csv_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
        )
        say(f"Wrote {len(columns) - 1} parameters and {task.target} of {len(columns[task.target])} rows to {output}")
        return
    data = open_benchmark(benchmark, dataset, root, None, download)
    wanted = list(dict.fromkeys(metric or data.metrics))
    missing = [name for name in wanted if name not in data.metrics]
    if missing or not wanted:
        have = ", ".join(data.metrics) or "none"
        raise MissingLabelsError(
            f"{', '.join(missing) or 'labels'} not available (available: {have}). {data.label_help}"
        )
    write_compact(output, data.arch_names(), {name: data.metrics[name] for name in wanted})
    say(f"Wrote {', '.join(wanted)} to {output}")
