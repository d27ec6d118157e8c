r"""The command that ranks: the user's own candidates, or all architectures of a benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from pyg_nas_np.cli import rank_benchmark, rank_own
from pyg_nas_np.cli.benchmarks import (
    BENCHMARKS,
    DatasetOption,
    DownloadOption,
    MetricOption,
    RootOption,
    open_benchmark,
)
from pyg_nas_np.cli.options import (
    MinimizeOption,
    SeedOption,
    check_output,
    check_predictors,
    check_priors,
    direction,
    say,
)
from pyg_nas_np.cli.own_files import (
    CandidatesOption,
    CostOption,
    IgnoreOption,
    LabelsOption,
    ScoreOption,
    SpaceOption,
    TargetOption,
    is_long,
    is_own,
    name_of,
    open_own,
    streamed,
)
from pyg_nas_np.cli.rank_latency import LatencyLimitOption, LatencyOption, check_latency
from pyg_nas_np.cli.report import write_report
from pyg_nas_np.cli.tables import console
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.utils import seeded

SAMPLE = 5000
"""Configurations drawn from a space where no candidates are given."""

KEPT = 1000
"""Best candidates of a long file that are kept, unless told otherwise."""


def rank(
    ctx: typer.Context,
    labels: LabelsOption = None,
    candidates: CandidatesOption = None,
    target: TargetOption = None,
    minimize: MinimizeOption = None,
    ignore: IgnoreOption = None,
    cost: CostOption = None,
    score: ScoreOption = None,
    space: SpaceOption = None,
    latency: LatencyOption = None,
    latency_limit: LatencyLimitOption = None,
    sample: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Candidates to draw from the space where none are given.")
    ] = SAMPLE,
    benchmark: Annotated[
        str, typer.Option(help=f"Rank a benchmark instead: one of {', '.join(BENCHMARKS)}.")
    ] = "nasbench201",
    dataset: DatasetOption = None,
    context: Annotated[
        int, typer.Option(min=0, help="Number of labels of a benchmark to fit on; 0: by the prior.")
    ] = 50,
    split: Annotated[
        str, typer.Option(help="Of a benchmark: 'index', or 'class' to leave twins of the labelled out.")
    ] = "class",
    metric: MetricOption = None,
    root: RootOption = None,
    download: DownloadOption = False,
    predictor: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(PREDICTORS)}; repeat to compare, the first one ranks. (default: convnp)"),
    ] = None,
    seed: SeedOption = 0,
    top_k: Annotated[int, typer.Option(min=1, max=10_000, help="Architectures to print.")] = 10,
    keep: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Best candidates of a file above 1 MB that are kept and written.")
    ] = KEPT,
    output: Annotated[Optional[Path], typer.Option(help="Folder for ranking.csv, scores.csv and ranking.png.")] = None,  # noqa: UP045
    report: Annotated[Optional[Path], typer.Option(help="Self-contained HTML page to write.")] = None,  # noqa: UP045
) -> None:
    """Rank your own candidates from your own labels, or all architectures of a benchmark from a few.

    Without labels, what larger sizes, depth and zero-cost scores promise decides, and for cells what was measured in
    other spaces.
    """
    started = time.perf_counter()
    names = check_predictors(predictor or ["convnp"], split)
    own = is_own(ctx, labels)
    check_latency(latency, latency_limit, own=own)
    written = ("ranking.csv",) if labels is not None and not own else ("ranking.csv", "scores.csv", "ranking.png")
    if output is not None:
        for name in written:
            check_output(output / name)
    if report is not None:
        check_output(report, option="--report")
    if own:
        task = open_own(labels, candidates, target, ignore, space, cost, minimize, scores=score, unmeasured=True)
        if not len(task.y):
            check_priors(names)
        if not task.pool:
            task = task.sampled(sample, seeded(seed))
            say(f"No candidates are given: {len(task.pool):,} configurations were drawn from the space (--sample)")
        explained = task.pool
        if candidates is not None and is_long(candidates, ranked=True):
            task = streamed(task, candidates, names[0], max(keep, top_k))
        ranking = rank_own.run(task, explained, names, seed, top_k, output, latency, latency_limit)
        title = name_of(str(labels or candidates or space))
        count = "Candidates"
        setting = {"Label": task.target, "Labels given": _given(len(task.y))}
    else:
        data = open_benchmark(benchmark, dataset, root, metric, download)
        title, count = rank_benchmark.data_name(data), "Architectures"
        if labels is None:
            if context == 0:
                check_priors(names)
            ranking = rank_benchmark.rank_draw(data, names, context, split, seed, direction(minimize))
            setting = {"Label": ranking.label, "Source": data.source.name, "Split": f"by {split}, seed {seed}"}
        else:
            ranking = rank_benchmark.rank_by_own_labels(data, Path(labels), names[0], direction(minimize))
            setting = {"Label": "your own", "Source": name_of(labels)}
        setting["Labels given"] = _given(ranking.seen.numel())
        rank_benchmark.show(ranking, f"{title}, {context} labels", top_k, output)
    if report is not None:
        head = {count: f"{ranking.total:,}", "Ranked by": ranking.name}
        head["Best"] = "the largest label" if ranking.maximize else "the smallest label"
        write_report(report, ranking, f"{title}: predicted ranking", head | setting, top_k=top_k)
        say(f"Wrote {report}")
    console.print(f"{time.perf_counter() - started:.1f} s in all")


def _given(labels: int) -> str:
    return f"{labels:,}" if labels else "none: ranked by the prior, in standard scores"
