r"""The command that converts the labels of a benchmark into one compact table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pyg_nas_np.cli.benchmarks import BenchmarkOption, DatasetOption, DownloadOption, RootOption, open_benchmark
from pyg_nas_np.cli.options import check_output, say
from pyg_nas_np.datasets.compact import SUFFIXES, write_compact
from pyg_nas_np.utils import MissingLabelsError


def convert(
    target: Annotated[Path, typer.Argument(help="Compact table to write: .csv, .csv.gz or .parquet.")],
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    metric: Annotated[Optional[list[str]], typer.Option(help="Metrics to keep; repeat. (default: all)")] = None,  # noqa: UP045
    root: RootOption = None,
    download: DownloadOption = False,
) -> None:
    """Convert the labels of a benchmark, from whatever source, into one compact table."""
    if not target.name.endswith(SUFFIXES):
        raise typer.BadParameter(f"'{target.name}' must end in one of {', '.join(SUFFIXES)}", param_hint="TARGET")
    check_output(target, option="TARGET")
    data = open_benchmark(benchmark, dataset, root, None, download)
    wanted = list(dict.fromkeys(metric or data.metrics))
    missing = [name for name in wanted if name not in data.metrics]
    if missing or not wanted:
        have = ", ".join(data.metrics) or "none"
        raise MissingLabelsError(
            f"{', '.join(missing) or 'labels'} not available (available: {have}). {data.label_help}"
        )
    write_compact(target, data.arch_names(), {name: data.metrics[name] for name in wanted})
    say(f"Wrote {', '.join(wanted)} to {target}")
