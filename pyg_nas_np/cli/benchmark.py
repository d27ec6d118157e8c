r"""The command that compares predictors over label budgets and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, Optional

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor

import pyg_nas_np
from pyg_nas_np.cli.benchmarks import (
    BENCHMARKS,
    DatasetOption,
    DownloadOption,
    MetricOption,
    RootOption,
    open_benchmark,
)
from pyg_nas_np.cli.options import MinimizeOption, check_output, check_predictors, say
from pyg_nas_np.cli.own_files import IgnoreOption, LabelsOption, SpaceOption, TargetOption, is_own, name_of, open_own
from pyg_nas_np.cli.tables import COLUMNS, console, plain_text, write_csv
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets import ArchitectureDataset, Split, TableDataset
from pyg_nas_np.datasets.own_task import OwnTask
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.evaluation import evaluate
from pyg_nas_np.utils import DataFileError, MissingLabelsError
from pyg_nas_np.utils.table_files import read_csv, read_header

KEY = ("version", "benchmark", "dataset", "metric", "best", "source", "split", "context", "predictor", "seed")
"""What tells one run from another in ``runs.csv``."""

SCORES = tuple(COLUMNS)

LEAST = 4
"""Labels to test on, below which scores tell nothing."""


class Subject(NamedTuple):
    r"""What predictors are compared on.

    Attributes:
        data: The labelled architectures.
        key: Values of :data:`KEY` between version and context.
        maximize: Whether larger labels are better.
        split: Draws training and test part, by number of labels and seed.
        own: Whether it is the user's, so that splits are of few labels and overlap.
        title: What it is, in words.
    """

    data: ArchitectureDataset | TableDataset
    key: tuple[str, ...]
    maximize: bool
    split: Callable[[int, int], Split]
    own: bool
    title: str


def compare(
    ctx: typer.Context,
    labels: LabelsOption = None,
    target: TargetOption = None,
    minimize: MinimizeOption = None,
    ignore: IgnoreOption = None,
    space: SpaceOption = None,
    benchmark: Annotated[
        str, typer.Option(help=f"Compare on a benchmark instead: one of {', '.join(BENCHMARKS)}.")
    ] = "nasbench201",
    dataset: DatasetOption = None,
    split: Annotated[
        str, typer.Option(help="Of a benchmark: 'index', or 'class' to leave twins of the labelled out.")
    ] = "index",
    metric: MetricOption = None,
    root: RootOption = None,
    download: DownloadOption = False,
    predictor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(PREDICTORS)}; repeat. (default: convnp, gp, xgboost)"),
    ] = None,
    context: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(min=1, help="Numbers of labels to fit on; repeat. (default: 20, 100; of your own 50 % and 80 %)"),
    ] = None,
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=100_000, help="Draws of the labelled, seeds 0, 1, ... (default: 3; of your own 10)"),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for runs.csv and summary.csv; runs that are there already are not repeated."),
    ] = None,
) -> None:
    """Compare predictors on your own labels or a benchmark's: mean ± standard error of their scores over draws."""
    names = check_predictors(predictor or ("convnp", "gp", "xgboost"), split)
    if output is not None:
        check_output(output / "runs.csv")
        check_output(output / "summary.csv")
    if is_own(ctx, labels, ("context",)):
        task = open_own(labels, None, target, ignore, space, None, minimize)
        subject, known = _own(task, name_of(str(labels))), len(task.y)
        budgets, seeds = context or [round(0.5 * known), round(0.8 * known)], seeds or 10
        if max(budgets) > known - LEAST:
            raise typer.BadParameter(
                f"{max(budgets)} of {known} labels leave fewer than {LEAST} to test", param_hint="--context"
            )
    else:
        if labels is not None:
            raise typer.BadParameter("are of your own space here; a benchmark has its own", param_hint="--labels")
        subject = _benchmark(open_benchmark(benchmark, dataset, root, metric, download), benchmark, split, minimize)
        budgets, seeds = context or [20, 100], seeds or 3
    budgets = sorted(set(budgets))
    path = None if output is None else output / "runs.csv"
    runs = {} if path is None else _read_runs(path)
    # All predictors share one table of features; the first must not pay for it alone.
    shared_features(subject.data.space).table(None if not subject.own else subject.data.archs)
    wanted, ratio = [], {}
    # Seed by seed, so that an interrupted benchmark has compared all predictors on the same draws.
    for seed in range(seeds):
        for budget in budgets:
            parts = subject.split(budget, seed)
            ratio[str(budget)] = parts.test.numel() / budget if subject.own else 0.0
            for name in names:
                key = (pyg_nas_np.__version__, *subject.key, str(budget), name, str(seed))
                wanted.append(key)
                if key in runs:
                    continue
                scores = evaluate(PREDICTORS[name](maximize=subject.maximize), subject.data, parts)[0].to_dict()
                runs[key] = [scores[column] for column in SCORES]
                if path is not None:
                    write_csv(path, [*KEY, *SCORES], ([*key, *values] for key, values in runs.items()))
    chosen = {key: runs[key] for key in wanted}
    summary = _summarise(chosen, ratio)
    console.print(_table(summary, f"{subject.title}, {seeds} seeds"))
    if subject.own and len(names) > 1:
        say(_verdict(chosen, ratio, str(budgets[-1])))
    if output is not None:
        header = [*KEY[:-1], "seeds", *(f"{column}{end}" for column in SCORES for end in ("", "_se"))]
        rows = [
            [*key, seeds, *(v for pair in zip(*values, strict=True) for v in pair)] for key, values in summary.items()
        ]
        write_csv(output / "summary.csv", header, rows)
        say(f"Wrote runs.csv and summary.csv to {output}")


def _benchmark(data: ArchitectureDataset, name: str, by: str, minimize: bool | None) -> Subject:
    if not bool(data.label_mask.any()):
        raise MissingLabelsError(f"{name} has no labels to score by. {data.label_help}")
    maximize = data.maximize if minimize is None else not minimize
    best = "largest" if maximize else "smallest"
    key = (name, str(getattr(data, "dataset", "")), data.metric, best, data.source.name, by)
    title = f"{name} {key[1]}: {data.metric} from {data.source.name}, the {best} is best, split by {by}"
    return Subject(data, key, maximize, lambda n, seed: data.split(n, by=by, seed=seed), False, title)  # type: ignore[arg-type]


def _own(task: OwnTask, name: str) -> Subject:
    data = task.dataset()
    best = "largest" if task.maximize else "smallest"
    key = ("own", name, task.target, best, task.digest, "architecture")
    title = f"{name}: {task.target}, the {best} is best, tested on the rest of {len(data)} labels"
    return Subject(data, key, task.maximize, lambda n, seed: data.split(n, seed=seed), True, title)


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


def _summarise(
    runs: dict[tuple[str, ...], list[float]], ratio: Mapping[str, float]
) -> dict[tuple[str, ...], tuple[list[float], list[float]]]:
    """Mean and standard error over the seeds, by all of the key but the seed, smallest context first."""
    cells: dict[tuple[str, ...], list[list[float]]] = {}
    for key, values in runs.items():
        cells.setdefault(key[:-1], []).append(values)
    summary = {}
    for key, rows in sorted(cells.items(), key=lambda item: int(item[0][KEY.index("context")])):
        table = torch.tensor(rows, dtype=torch.float64)
        summary[key] = table.mean(dim=0).tolist(), _error(table, ratio[key[KEY.index("context")]]).tolist()
    return summary


def _error(table: Tensor, ratio: float) -> Tensor:
    """Standard error of the mean over draws ``[n, ...]``; where these overlap, by Nadeau and Bengio (2003).

    The ratio is that of test to training labels of overlapping draws, 0 of others.
    """
    # One seed tells nothing about the error: not a number.
    if len(table) < 2:
        return torch.full_like(table[0], math.nan)
    return (table.var(dim=0) * (1 / len(table) + ratio)).sqrt()


def _verdict(runs: Mapping[tuple[str, ...], list[float]], ratio: Mapping[str, float], budget: str) -> str:
    """Which predictor ranks best at one number of labels, and whether by more than chance."""
    taus: dict[str, list[float]] = {}
    for key, values in runs.items():
        if key[KEY.index("context")] == budget:
            taus.setdefault(key[KEY.index("predictor")], []).append(values[SCORES.index("kendall_tau")])
    table = {name: torch.tensor(values, dtype=torch.float64) for name, values in taus.items()}
    order = sorted(table, key=lambda name: float(table[name].mean()), reverse=True)
    first, second = order[:2]
    gap = table[first] - table[second]
    ahead, error = float(gap.mean()), float(_error(gap, ratio[budget]))
    said = f"Best from {budget} labels: {first}, tau {float(table[first].mean()):.3f}, ahead of {second} by {ahead:.3f}"
    if math.isnan(error):
        return f"{said} in a single draw; --seeds tells how far that is chance"
    return f"{said} ± {error:.3f}" + ("" if ahead > 2 * error else ", which may be chance")


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
