r"""The command that searches: the next architectures to measure, or a simulation on a benchmark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, cast, get_args

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pyg_nas_np.cli.benchmarks import BENCHMARKS, open_benchmark
from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.options import MinimizeOption, SeedOption, check_output, say
from pyg_nas_np.cli.tables import console, write_csv
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets import ArchitectureDataset
from pyg_nas_np.predictors.labels import LabelScale
from pyg_nas_np.search import (
    BananasSearch,
    LocalSearch,
    PredictorSearch,
    RandomSearch,
    RegularizedEvolution,
    Search,
    simulate,
)
from pyg_nas_np.search.predictor_search import Acquisition
from pyg_nas_np.search.simulation import Trace
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import require_cells
from pyg_nas_np.utils import MissingLabelsError

BASELINES: dict[str, Callable[..., Search[Any]]] = {
    "random": RandomSearch,
    "evolution": RegularizedEvolution,
    "local": LocalSearch,
}
METHODS = ("predictor", "bananas", *BASELINES)


def search(
    benchmark: Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARKS)}.")] = "nasbench201",
    dataset: Annotated[Optional[str], typer.Option(help="Image or graph data set. (default: the first)")] = None,  # noqa: UP045
    queries: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Simulate a search of so many measurements, by the labels of the benchmark."),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV with your own measurements so far, columns 'arch' and 'label'."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Architectures to propose at a time.")] = 1,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "predictor",
    predictor: Annotated[str, typer.Option(help=f"One of {', '.join(PREDICTORS)}.")] = "convnp",
    scale: Annotated[
        str,
        typer.Option(help="Scale of the labels: 'rank', 'robust' for accuracies, or 'auto' to tell by their range."),
    ] = "auto",
    acquisition: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Acquisition))}.")] = "ucb",
    initial: Annotated[int, typer.Option(min=1, max=1_000_000, help="Architectures drawn at random first.")] = 10,
    cost: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Second objective to keep low: 'num_parameters' or 'flops'."),
    ] = None,
    minimize: MinimizeOption = None,
    seed: SeedOption = 0,
    state: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File to go on from, where it exists, and to write."),
    ] = None,
    metric: Annotated[Optional[str], typer.Option(help="Metric to search by. (default: the benchmark's)")] = None,  # noqa: UP045
    root: Annotated[Optional[Path], typer.Option(help="Folder of the data set. (default: in the cache)")] = None,  # noqa: UP045
    output: Annotated[Optional[Path], typer.Option(help="CSV to write: proposals or the simulation.")] = None,  # noqa: UP045
    download: Annotated[bool, typer.Option(help="Download the official file where nothing else has labels.")] = False,
) -> None:
    """Propose the next architectures to measure, or simulate a whole search on a benchmark."""
    for option, value, known in (
        ("method", method, METHODS),
        ("predictor", predictor, tuple(PREDICTORS)),
        ("scale", scale, get_args(LabelScale)),
        ("acquisition", acquisition, get_args(Acquisition)),
    ):
        if value not in known:
            raise typer.BadParameter(f"'{value}' is none of {', '.join(known)}", param_hint=f"--{option}")
    if queries is not None and labels is not None:
        raise typer.BadParameter("simulates by the benchmark's labels, --labels are your own", param_hint="--queries")
    if state is not None:
        check_output(state, option="--state")
    if output is not None:
        check_output(output)
    data = open_benchmark(benchmark, dataset, root, metric, download)
    maximize = data.maximize if minimize is None else not minimize
    candidates = None
    if queries is not None:
        candidates = data.arch_index[data.label_mask]
        if candidates.numel() == 0:
            raise MissingLabelsError(f"{benchmark} has no labels to search by. {data.label_help}")
        if queries > candidates.numel():
            raise typer.BadParameter(
                f"{queries} is more than the {candidates.numel():,} architectures with labels", param_hint="--queries"
            )
    common: dict[str, Any] = {"candidates": candidates, "maximize": maximize, "seed": seed}
    chosen: Search[Any]
    if method in BASELINES:
        chosen = BASELINES[method](data.space, **common)
    elif method == "bananas":
        chosen = BananasSearch(
            data.space, lambda space: PREDICTORS[predictor](space, labels=scale), initial=initial, **common
        )
    else:
        chosen = PredictorSearch(
            data.space,
            PREDICTORS[predictor](labels=scale),
            acquisition=cast(Acquisition, acquisition),
            initial=initial,
            cost=cast(Any, cost),
            **common,
        )
    if state is not None and state.exists():
        chosen.resume(state)
    if queries is None:
        _propose(chosen, labels, batch, output)
    else:
        trace = simulate(chosen, data, queries, batch=batch)
        _print_trace(data, chosen, trace)
        if output is not None:
            _write_trace(output, data.space, trace, data)
    if state is not None:
        chosen.save(state)


def _propose(chosen: Search[Any], labels: Path | None, batch: int, output: Path | None) -> None:
    space = require_cells(chosen.space)
    if labels is not None:
        _tell_new(chosen, *read_own_labels(space, labels))
    archs = chosen.ask(batch)
    table = Table(title=f"Measure next, after {len(chosen.index)} measurements", title_justify="left")
    for column in ("index", "parameters", "architecture"):
        table.add_column(column, justify="left" if column == "architecture" else "right", overflow="fold")
    for arch in archs:
        cells = (space.index(arch), f"{space.num_parameters(arch):,}", space.to_str(arch))
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    if len(chosen.index):
        arch, value = chosen.best
        say(f"Best so far: {value:g}, {chosen.space.to_str(arch)}")
    if output is not None:
        write_csv(output, ["arch", "label"], [[chosen.space.to_str(arch), ""] for arch in archs])
        say(f"Wrote {len(archs)} proposals to {output}; fill in the labels and add them to your measurements")


def _tell_new(chosen: Search[Any], index: Tensor, y: Tensor) -> None:
    """Tells the measurements that a resumed search has not been told before."""
    known = Counter(zip(chosen.index.tolist(), chosen.y.tolist(), strict=True))
    fresh = []
    for position, pair in enumerate(zip(index.tolist(), y.double().tolist(), strict=True)):
        if known[pair] > 0:
            known[pair] -= 1
        else:
            fresh.append(position)
    chosen.tell(index[fresh], y[fresh])


def _print_trace(data: ArchitectureDataset, chosen: Search[Any], trace: Trace) -> None:
    total = int(data.label_mask.sum())
    table = Table(title=escape(f"{chosen!r} on {data.metric}"), title_justify="left")
    for column in ("measured", "best so far", f"rank of {total:,}", "regret"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    before = torch.tensor([math.inf], dtype=torch.float64)
    for i in (trace.regret.diff(prepend=before) < 0).nonzero().flatten().tolist():
        values = (f"{trace.best_y[i]:.3f}", str(int(trace.best_rank[i])), f"{trace.regret[i]:.3f}")
        table.add_row(str(i + 1), *values, escape(data.space.to_str(data.space[int(trace.indices[i])])))
    console.print(table)
    found = trace.queries_to_optimum
    console.print(f"Optimum found at measurement {found}" if found else f"Optimum not among {len(trace.indices)}")
    if isinstance(chosen, PredictorSearch) and chosen.cost is not None:
        front = Table(title="Pareto front", title_justify="left")
        for column in ("cost", "measured", "architecture"):
            front.add_column(column, overflow="fold")
        for arch, value, price in chosen.pareto_front:
            front.add_row(f"{price:,.0f}", f"{value:.3f}", escape(data.space.to_str(arch)))
        console.print(front)


def _write_trace(path: Path, space: CellSpace[Any], trace: Trace, data: ArchitectureDataset) -> None:
    y = torch.full((len(space),), math.nan)
    y[data.arch_index] = data.y
    rows = zip(
        range(1, len(trace.indices) + 1),
        trace.indices.tolist(),
        [space.to_str(arch) for arch in space.resolve(trace.indices)],
        y[trace.indices].tolist(),
        trace.best_y.tolist(),
        trace.best_rank.tolist(),
        trace.regret.tolist(),
        strict=True,
    )
    write_csv(path, ["query", "index", "arch", "label", "best", "best_rank", "regret"], rows)
