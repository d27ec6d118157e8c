r"""The command that compares predictors over label budgets and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.markup import escape
from rich.table import Table

import pyg_nas_np
from pyg_nas_np.cli.benchmarks import BENCHMARKS, open_benchmark
from pyg_nas_np.cli.options import MinimizeOption, check_output, say
from pyg_nas_np.cli.tables import COLUMNS, console, plain_text, write_csv
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.evaluation import evaluate
from pyg_nas_np.utils import DataFileError, MissingLabelsError
from pyg_nas_np.utils.table_files import read_csv, read_header

KEY = ("version", "benchmark", "dataset", "metric", "best", "source", "split", "context", "predictor", "seed")
"""What tells one run from another in ``runs.csv``."""

SCORES = tuple(COLUMNS)


def compare(
    benchmark: Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARKS)}.")] = "nasbench201",
    dataset: Annotated[Optional[str], typer.Option(help="Image or graph data set. (default: the first)")] = None,  # noqa: UP045
    predictor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(PREDICTORS)}; repeat. (default: convnp, gp, xgboost)"),
    ] = None,
    context: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(min=1, help="Numbers of labels to fit on; repeat. (default: 20, 100)"),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100_000, help="Draws of the labelled architectures, seeds 0, 1, ...")
    ] = 3,
    split: Annotated[str, typer.Option(help="'index', or 'class' to leave twins of the labelled out.")] = "index",
    metric: Annotated[Optional[str], typer.Option(help="Metric to predict. (default: the benchmark's)")] = None,  # noqa: UP045
    minimize: MinimizeOption = None,
    root: Annotated[Optional[Path], typer.Option(help="Folder of the data set. (default: in the cache)")] = None,  # noqa: UP045
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for runs.csv and summary.csv; runs that are there already are not repeated."),
    ] = None,
    download: Annotated[bool, typer.Option(help="Download the official file where nothing else has labels.")] = False,
) -> None:
    """Compare predictors: mean ± standard error of their scores over seeds, for each number of labels."""
    names, budgets = list(dict.fromkeys(predictor or ("convnp", "gp", "xgboost"))), sorted(set(context or (20, 100)))
    if unknown := [name for name in names if name not in PREDICTORS]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(PREDICTORS)}", param_hint="--predictor")
    if split not in ("index", "class"):
        raise typer.BadParameter(f"'{split}' is neither 'index' nor 'class'", param_hint="--split")
    if output is not None:
        check_output(output / "runs.csv")
        check_output(output / "summary.csv")
    data = open_benchmark(benchmark, dataset, root, metric, download)
    if not bool(data.label_mask.any()):
        raise MissingLabelsError(f"{benchmark} has no labels to score by. {data.label_help}")
    dataset = str(getattr(data, "dataset", ""))
    path = None if output is None else output / "runs.csv"
    runs = {} if path is None else _read_runs(path)
    # All predictors share one table of features; the first must not pay for it alone.
    shared_features(data.space).table()
    maximize = data.maximize if minimize is None else not minimize
    best = "largest" if maximize else "smallest"
    setting = (pyg_nas_np.__version__, benchmark, dataset, data.metric, best, data.source.name, split)
    wanted = []
    # Seed by seed, so that an interrupted benchmark has compared all predictors on the same draws.
    for seed in range(seeds):
        for budget in budgets:
            parts = data.split(budget, by=split, seed=seed)  # type: ignore[arg-type]
            for name in names:
                key = (*setting, str(budget), name, str(seed))
                wanted.append(key)
                if key in runs:
                    continue
                scores = evaluate(PREDICTORS[name](maximize=maximize), data, parts)[0].to_dict()
                runs[key] = [scores[column] for column in SCORES]
                if path is not None:
                    write_csv(path, [*KEY, *SCORES], ([*key, *values] for key, values in runs.items()))
    title = f"{benchmark} {dataset}: {data.metric} from {data.source.name}, the {best} is best, split by {split}"
    title += f", {seeds} seeds"
    summary = _summarise({key: runs[key] for key in wanted})
    console.print(_table(summary, title))
    if output is not None:
        header = [*KEY[:-1], "seeds", *(f"{column}{end}" for column in SCORES for end in ("", "_se"))]
        rows = [
            [*key, seeds, *(v for pair in zip(*values, strict=True) for v in pair)] for key, values in summary.items()
        ]
        write_csv(output / "summary.csv", header, rows)
        say(f"Wrote runs.csv and summary.csv to {output}")


def _read_runs(path: Path) -> dict[tuple[str, ...], list[float]]:
    if not path.exists():
        return {}
    if tuple(read_header(path)) != (*KEY, *SCORES):
        raise DataFileError(f"{path} has other columns than this version writes; name another folder by --output")
    table = read_csv(path)
    first = len(KEY)
    return {
        tuple(map(plain_text, cells[:first])): [table.number(row, first + k) for k in range(len(SCORES))]
        for row, cells in enumerate(table.rows)
    }


def _summarise(runs: dict[tuple[str, ...], list[float]]) -> dict[tuple[str, ...], tuple[list[float], list[float]]]:
    """Mean and standard error over the seeds, by all of the key but the seed, smallest context first."""
    cells: dict[tuple[str, ...], list[list[float]]] = {}
    for key, values in runs.items():
        cells.setdefault(key[:-1], []).append(values)
    summary = {}
    for key, rows in sorted(cells.items(), key=lambda item: int(item[0][KEY.index("context")])):
        table = torch.tensor(rows, dtype=torch.float64)
        # One seed tells nothing about the error: not a number.
        error = table.std(dim=0) / math.sqrt(len(rows)) if len(rows) > 1 else torch.full_like(table[0], math.nan)
        summary[key] = table.mean(dim=0).tolist(), error.tolist()
    return summary


def _table(summary: dict[tuple[str, ...], tuple[list[float], list[float]]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    table.add_column("labels", justify="right")
    table.add_column("predictor", overflow="fold")
    for label, _ in COLUMNS.values():
        table.add_column(label.replace("regret", "reg."), justify="right", no_wrap=True)
    previous = ""
    for key, (mean, error) in summary.items():
        budget, name = key[KEY.index("context")], key[KEY.index("predictor")]
        if previous not in ("", budget):
            table.add_section()
        table.add_row("" if budget == previous else budget, name, *_cells(mean, error))
        previous = budget
    return table


def _cells(mean: Sequence[float], error: Sequence[float]) -> list[str]:
    cells = []
    for m, e, (label, spec) in zip(mean, error, COLUMNS.values(), strict=True):
        text = format(m, spec)
        # Times are averages of a few, on a machine that may be busy.
        cells.append(text if math.isnan(e) or label.endswith(" s") else f"{text}±{format(e, spec)}")
    return cells
