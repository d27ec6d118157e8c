r"""The command that searches: what to train next of the user's own, or a simulation on a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, cast, get_args

import typer

from pyg_nas_np.cli import search_budget, search_own
from pyg_nas_np.cli.benchmarks import BENCHMARKS, DatasetOption, DownloadOption, RootOption, open_benchmark
from pyg_nas_np.cli.options import MinimizeOption, SeedOption, check_output, finite, given
from pyg_nas_np.cli.own_files import (
    CandidatesOption,
    IgnoreOption,
    LabelsOption,
    SpaceOption,
    TargetOption,
    is_long,
    is_own,
    open_own,
    streamed,
)
from pyg_nas_np.cli.search_benchmark import print_trace, propose, write_trace
from pyg_nas_np.cli.search_budget_labels import parse_fidelity
from pyg_nas_np.convnp import PREDICTORS
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
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.utils import MissingLabelsError
from pyg_nas_np.utils.files import only_user

BASELINES: dict[str, Callable[..., Search[Any]]] = {
    "random": RandomSearch,
    "evolution": RegularizedEvolution,
    "local": LocalSearch,
}
METHODS = ("predictor", "bananas", *BASELINES)

BUDGETED = ("fidelity", "prices", "continued", "release", "run", "workers", "report", "least_gain")
"""Options that only searches within a budget have."""

UNBUDGETED = ("queries", "limit", "method", "predictor", "scale", "acquisition")
"""Options that they do not have."""


def search(
    ctx: typer.Context,
    labels: LabelsOption = None,
    space: SpaceOption = None,
    candidates: CandidatesOption = None,
    target: TargetOption = None,
    minimize: MinimizeOption = None,
    ignore: IgnoreOption = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Architectures to propose at a time.")] = 1,
    cost: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Second objective to keep low: a column or parameter; of benchmarks num_parameters or flops. With "
            "--budget, what a full training costs, in the unit of the budget. (default: none; 1)"
        ),
    ] = None,
    limit: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Largest allowed cost of your own proposals, as 'params=5e6'; repeat."),
    ] = None,
    benchmark: Annotated[
        str, typer.Option(help=f"Search a benchmark instead: one of {', '.join(BENCHMARKS)}.")
    ] = "nasbench201",
    dataset: DatasetOption = None,
    queries: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Simulate a search of so many measurements, by the labels of the benchmark."),
    ] = None,
    metric: Annotated[Optional[str], typer.Option(help="Metric to search by. (default: the benchmark's)")] = None,  # noqa: UP045
    root: RootOption = None,
    download: DownloadOption = False,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "predictor",
    predictor: Annotated[str, typer.Option(help=f"One of {', '.join(PREDICTORS)}.")] = "convnp",
    scale: Annotated[
        str,
        typer.Option(help="Scale of the labels: 'rank', 'robust' for accuracies, or 'auto' to tell by their range."),
    ] = "auto",
    acquisition: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Acquisition))}.")] = "ucb",
    initial: Annotated[int, typer.Option(min=1, max=1_000_000, help="Architectures drawn at random first.")] = 10,
    seed: SeedOption = 0,
    state: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File to go on from, where it exists, and to write."),
    ] = None,
    output: Annotated[Optional[Path], typer.Option(help="CSV to write: proposals or the simulation.")] = None,  # noqa: UP045
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Search within the price of so many full trainings, cheap ones included; needs --state."),
    ] = None,
    fidelity: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --budget: column of --labels and its levels, as 'epochs=4,12,200'."),
    ] = None,
    prices: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --budget: price of each level in any unit, as '1,2,20'. (default: as the levels)"),
    ] = None,
    continued: Annotated[
        bool, typer.Option("--continued", help="With --budget: trainings go on from the level that they have reached.")
    ] = False,
    release: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(help="With --budget: number of a training whose worker died, to free it; repeat."),
    ] = None,
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="With --budget: command that trains one network and prints its label on the last line, with "
            "{level}, {start}, {trial}, {arch} and parameters in braces."
        ),
    ] = None,
    least_gain: Annotated[
        float,
        typer.Option(
            min=0.0, callback=finite, help="With --budget: end where the next full training is expected to gain less."
        ),
    ] = 0.0,
    workers: Annotated[int, typer.Option(min=1, max=1000, help="With --run: commands that run at a time.")] = 1,
    report: Annotated[Optional[Path], typer.Option(help="With --budget: HTML page to write.")] = None,  # noqa: UP045
) -> None:
    """Propose what to train next, or simulate a whole search on a benchmark."""
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
        ctx.with_resource(only_user(state))
    if output is not None:
        check_output(output)
    if wrong := given(ctx, BUDGETED if budget is None else UNBUDGETED):
        need = "needs --budget" if budget is None else "is for searches without --budget"
        raise typer.BadParameter(need, param_hint=wrong[0])
    if budget is not None:
        if state is None:
            raise typer.BadParameter("is needed: the next call reads from it what was spent", param_hint="--state")
        if fidelity is None:
            raise typer.BadParameter("is needed, as epochs=4,12,200", param_hint="--fidelity")
        if labels is not None and "://" in labels:
            raise typer.BadParameter("must be a CSV file with --budget", param_hint="--labels")
        if report is not None:
            check_output(report, ".html", option="--report")
        plan = search_budget.Plan(
            budget,
            parse_fidelity(fidelity, prices, continued),
            target or "label",
            not minimize,
            seed,
            state,
            batch,
            tuple(release or ()),
            run,
            workers,
            output,
            report,
            initial if given(ctx, ["initial"]) else None,
            least_gain,
            cost,
        )
        measured = None if labels is None else Path(labels)
        if is_own(ctx, labels):
            on: SearchSpace[Any] = search_budget.own_space(space, measured, candidates, plan, ignore or ())
        else:
            on = open_benchmark(benchmark, dataset, root, metric, download).space
        search_budget.run(on, measured, candidates, plan)
        return

    def made(on: SearchSpace[Any], allowed: Any, maximize: bool, second: Any) -> Search[Any]:
        common: dict[str, Any] = {"candidates": allowed, "maximize": maximize, "seed": seed}
        if method in BASELINES:
            return BASELINES[method](on, **common)
        if method == "bananas":
            return BananasSearch(on, lambda s: PREDICTORS[predictor](s, labels=scale), initial=initial, **common)
        chosen = PREDICTORS[predictor](labels=scale)
        way = cast(Acquisition, acquisition)
        return PredictorSearch(on, chosen, acquisition=way, initial=initial, cost=second, **common)

    if is_own(ctx, labels):
        if state is not None and space is None:
            raise typer.BadParameter("needs --space: an inferred space changes with the labels", param_hint="--state")
        limits = search_own.parse_limits(limit or [])
        costs = list(dict.fromkeys([*limits, *([] if cost is None else [cost])]))
        task = open_own(labels, candidates, target, ignore, space, costs, minimize, unmeasured=True, search=True)
        if candidates is not None and is_long(candidates) and len(task.y):
            task = streamed(task, candidates, predictor, search_own.SHORTLIST)
        search_own.run(task, made, PREDICTORS[predictor], batch, cost, limits, seed, state, output)
        return
    data = open_benchmark(benchmark, dataset, root, metric, download)
    allowed = None
    if queries is not None:
        allowed = data.arch_index[data.label_mask]
        if allowed.numel() == 0:
            raise MissingLabelsError(f"{benchmark} has no labels to search by. {data.label_help}")
        if queries > allowed.numel():
            raise typer.BadParameter(
                f"{queries} is more than the {allowed.numel():,} architectures with labels", param_hint="--queries"
            )
    chosen = made(data.space, allowed, data.maximize if minimize is None else not minimize, cost)
    if state is not None and state.exists():
        chosen.resume(state)
    if queries is None:
        propose(chosen, None if labels is None else Path(labels), batch, output)
    else:
        trace = simulate(chosen, data, queries, batch=batch)
        print_trace(data, chosen, trace)
        if output is not None:
            write_trace(output, data.space, trace, data)
    if state is not None:
        chosen.save(state)
