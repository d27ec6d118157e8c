r"""Searches within a total price of trainings, simulated on recorded tables: how much until the optimum.

    python benchmarks/budgeted_search.py --seeds 30 --methods budgeted full random asha hyperband bohb
    python benchmarks/budgeted_search.py --report-only

A full training costs 1, a shorter one the share of its epochs. Levels are those that a table records: 12 and 200
epochs of NAS-Bench-201 and 4, 12, 36, 108 of NAS-Bench-101 are trainings of their own, each paid in full; epochs of
learning curves are passed on the way, and a training that goes on pays the difference. The labels are validation
accuracies; ``cifar10`` is the test accuracy after 200 epochs (as in ``search.py``) with the validation accuracy after
12. The regret is (best - found) / (best - median) of the labels of full trainings; found are full trainings alone. A
run ends at the optimum or when the budget of its table is spent.

Methods: ``budgeted`` is :class:`~pyg_nas_np.search.BudgetedSearch`, ``full`` trains all in full as proposed by
``PredictorSearch(ConvNPPredictor())``, ``random`` too at random. ``asha`` promotes whatever is among the best share
of its rung (the share is the ratio of the prices), else it starts a random architecture; its rungs, and those of
``hyperband``, are the levels, with as many architectures as suit their prices. ``bohb`` is Optuna's TPE with its
``HyperbandPruner``; a trial is the nearest row (standardised columns) that was not started, and there is none on
NAS-Bench-101, whose cells are no flat configurations.

Every (table, method, seed) is one row of ``results/budgeted_search.csv``, written as it comes; what is there is not
run again. ``trace`` has the prices at which the regret fell, with the regret. Seeds from 100 on are for tuning.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import logging
import math
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import _rows
import numpy as np
import torch
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.readers import read_baker, read_naap440
from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch, PredictorSearch
from pyg_nas_np.search.layer_strings import parse_net
from pyg_nas_np.spaces import NASBench101Space, ParameterSpace, SearchSpace
from pyg_nas_np.utils import atomic_path

DATA = Path(os.environ.get("PYG_NAS_NP_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
FIELDS = ("table", "method", "seed", "budget", "to_optimum", "trace", "seconds")
LEAST = 3
"""Runs that a line of the report needs."""


class Table(NamedTuple):
    r"""Recorded trainings.

    Args:
        space: The space.
        archs: Its ``n`` candidates.
        labels: ``[n, L]`` by level, NaN if diverged; larger is better.
        fidelity: The levels.
        columns: ``[n, D]``, what TPE sees.
        budget: Total price.
    """

    space: SearchSpace[Any]
    archs: Any
    labels: Tensor
    fidelity: Fidelity
    columns: np.ndarray[Any, Any] | None
    budget: float


def nasbench201(name: str, root: str) -> Table:
    data = NASBench201(f"{root}/{name}", name)
    short = {"ImageNet16-120": "imagenet"}.get(name, name)
    low = _column(DATA / "nasbench201" / "nb201_12ep.csv", f"{short}_val_12")
    full = data.y.double()
    if name == "cifar10":
        full = _column(DATA / "nasbench201" / "nb201_200ep_cifar10_test.csv", "cifar10_test_200")
    archs, labels = torch.arange(len(data.space)), torch.stack([low, full], dim=1)
    return Table(data.space, archs, labels, Fidelity("epochs", (12, 200)), _edges(data.space), 60.0)


def _edges(space: Any) -> np.ndarray[Any, Any]:
    names = [
        [edge.split("~")[0] for edge in space.to_str(arch).strip("|").replace("+", "").split("|") if edge]
        for arch in space
    ]
    operations = sorted({name for row in names for name in row})
    return np.array([[operations.index(name) for name in row] for row in names], dtype=np.float64)


def nasbench101(root: str) -> Table:
    space = NASBench101Space()
    with gzip.open(DATA / "nasbench101" / "nb101_20001.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    levels = (4, 12, 36, 108)
    labels = torch.tensor([[float(row[f"val_acc_{level}"]) for level in levels] for row in rows], dtype=torch.float64)
    archs, order = torch.as_tensor(space.index_hashes([row["module_hash"] for row in rows])).sort()
    return Table(space, archs, labels[order], Fidelity("epochs", levels), None, 50.0)


def curves_of(name: str, root: str) -> Table:
    if name == "naap440":
        curves, levels = read_naap440(DATA / "curves" / "naap440" / "naap440.csv"), (3, 18, 90)
    else:
        curves = read_baker(DATA / "curves" / "baker2017" / f"{name}.csv")
        levels = (1, 4, 20) if name == "metaqnn_cifar10" else (4, 24, curves.epochs[-1])
    records = _records(curves, name)
    space = ParameterSpace.from_records(records)
    rows: dict[Any, int] = {}
    for row, record in enumerate(records):
        if np.isfinite(curves.values[row, -1]):
            rows.setdefault(space.check(record), row)
    kept = list(rows.values())
    labels = torch.from_numpy(curves.values[np.ix_(kept, [curves.epochs.index(level) for level in levels])].copy())
    columns = np.column_stack([*curves.architecture.values(), *curves.hyperparameters.values()])[kept]
    return Table(space, list(rows), labels, Fidelity("epochs", levels, continued=True), columns, 60.0)


def _records(curves: LearningCurves, name: str) -> list[dict[str, Any]]:
    features = {**curves.architecture, **curves.hyperparameters}
    records = [{key: float(column[row]) for key, column in features.items()} for row in range(len(curves))]
    if name == "metaqnn_cifar10":
        for record, net in zip(records, curves.configs, strict=True):
            record["layers"] = [_layer(str(layer)) for layer in parse_net(net)[:-2]]
    return records


def _layer(text: str) -> dict[str, Any]:
    kind, _, rest = text.rstrip(")").partition("(")
    numbers = [int(number) for number in rest.split(",")]
    size = numbers[1] if kind == "C" else numbers[0]
    return {
        "kind": kind,
        "filters": numbers[0] if kind in ("C", "FC") else 0,
        "size": 0 if kind in ("D", "FC") else size,
    }


def _column(path: Path, name: str) -> Tensor:
    with open(path, newline="") as file:
        return torch.tensor([float(row[name]) for row in csv.DictReader(file)], dtype=torch.float64)


LOADERS: dict[str, Callable[[str], Table]] = {
    "cifar10": lambda root: nasbench201("cifar10", root),
    "cifar100": lambda root: nasbench201("cifar100", root),
    "ImageNet16-120": lambda root: nasbench201("ImageNet16-120", root),
    "nasbench101": nasbench101,
    "metaqnn_cifar10": lambda root: curves_of("metaqnn_cifar10", root),
    "deep_resnets_tinyimagenet": lambda root: curves_of("deep_resnets_tinyimagenet", root),
    "naap440": lambda root: curves_of("naap440", root),
}
load = cache(lambda name, root: LOADERS[name](root))


# -- methods ----------------------------------------------------------------------------------------------------------


class Over(Exception):
    r"""The optimum is found, or the budget spent."""


class Run:
    r"""A run that pays for its trainings."""

    def __init__(self, table: Table) -> None:
        self.table, self.spent, self.best, self.to_optimum = table, 0.0, -math.inf, ""
        full = table.labels[:, -1]
        self.top, self.scale = float(full.max()), float(full.max() - full.median())
        self.reached: dict[int, int] = {}
        self.trace: list[str] = []

    def train(self, row: int, position: int) -> list[tuple[int, float]]:
        r"""Pays for a training and returns the labels that it passes."""
        fidelity, start = self.table.fidelity, self.reached.get(row)
        self.spent += fidelity.price(position, start)
        if self.spent > self.table.budget + 1e-9:
            raise Over
        self.reached[row] = position
        y = float(self.table.labels[row, position])
        if position == fidelity.top and y > self.best:
            self.best = y
            self.trace.append(f"{self.spent:.3f}:{(self.top - y) / self.scale:.4f}")
            if y == self.top:
                self.to_optimum = f"{self.spent:.3f}"
                raise Over
        first = (-1 if start is None else start) + 1 if fidelity.continued else position
        return [(p, float(self.table.labels[row, p])) for p in range(first, position + 1)]


def budgeted(run: Run, seed: int) -> None:
    table = run.table
    search: Any = BudgetedSearch(table.space, table.fidelity, table.budget, candidates=table.archs, seed=seed)
    row_of = _rows_by_arch(table)
    while trainings := search.ask():
        for arch, level, _, _ in trainings:
            row = row_of(arch)
            for position, y in run.train(row, table.fidelity.levels.index(level)):
                search.tell([arch], table.fidelity.levels[position], [y])


def full(run: Run, seed: int) -> None:
    table = run.table
    predictor = ConvNPPredictor(stacking=False)
    search: Any = PredictorSearch(table.space, predictor, candidates=table.archs, seed=seed)
    row_of = _rows_by_arch(table)
    while archs := search.ask():
        [(_, y)] = run.train(row_of(archs[0]), table.fidelity.top)[-1:]
        search.tell(archs, [y])


def _rows_by_arch(table: Table) -> Callable[[Any], int]:
    if isinstance(table.archs, Tensor):
        rows = {int(index): row for row, index in enumerate(table.archs)}
        index: Any = table.space
        return lambda arch: rows[index.index(arch)]
    known = {arch: row for row, arch in enumerate(table.archs)}
    return lambda arch: known[arch]


def random(run: Run, seed: int) -> None:
    for row in _order(run, seed):
        run.train(row, run.table.fidelity.top)


def _order(run: Run, seed: int) -> Iterator[int]:
    return iter(np.random.default_rng(seed).permutation(len(run.table.labels)).tolist())


def asha(run: Run, seed: int) -> None:
    fresh, prices = _order(run, seed), run.table.fidelity.prices
    rungs: list[dict[int, float]] = [{} for _ in prices]
    promoted: list[set[int]] = [set() for _ in prices]
    while True:
        for position in range(len(prices) - 2, -1, -1):
            rung = rungs[position]
            count = int(len(rung) * prices[position] / prices[position + 1] + 1e-9)
            best = sorted(rung, key=lambda row: -rung[row])[:count]
            if chosen := [row for row in best if row not in promoted[position]]:
                promoted[position].add(chosen[0])
                row, target = chosen[0], position + 1
                break
        else:
            row, target = next(fresh), 0
        rungs[target][row] = _finite(run.train(row, target)[-1][1])


def hyperband(run: Run, seed: int) -> None:
    fresh, prices = _order(run, seed), run.table.fidelity.prices
    while True:
        for start in range(len(prices)):
            count = math.ceil(len(prices) / (len(prices) - start) / prices[start] - 1e-9)
            alive = [row for row, _ in zip(fresh, range(count), strict=False)]
            if not alive:
                return
            for position in range(start, len(prices)):
                ended = {row: _finite(run.train(row, position)[-1][1]) for row in alive}
                share = prices[position] / prices[position + 1] if position + 1 < len(prices) else 1.0
                alive = sorted(ended, key=lambda row: -ended[row])[: max(1, int(len(alive) * share + 1e-9))]


def bohb(run: Run, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table, columns = run.table, run.table.columns
    assert columns is not None
    fidelity, categorical = table.fidelity, isinstance(table.archs, Tensor)
    spread = columns.std(axis=0)
    columns, spread = columns[:, spread > 0], spread[spread > 0]
    ratio = max(2, round(fidelity.levels[1] / fidelity.levels[0]))
    pruner = optuna.pruners.HyperbandPruner(int(fidelity.levels[0]), int(fidelity.levels[-1]), min(ratio, 16))
    study = optuna.create_study(
        study_name=f"seed {seed}", direction="maximize", pruner=pruner, sampler=optuna.samplers.TPESampler(seed=seed)
    )
    free = np.ones(len(columns), dtype=bool)
    while free.any():
        trial = study.ask()
        if categorical:
            point = [trial.suggest_categorical(f"c{i}", sorted(set(column))) for i, column in enumerate(columns.T)]
        else:
            point = [trial.suggest_float(f"c{i}", column.min(), column.max()) for i, column in enumerate(columns.T)]
        gap = columns != np.array(point) if categorical else (columns - np.array(point)) / spread
        row = int(np.where(free, np.square(gap).sum(axis=1), np.inf).argmin())
        free[row] = False
        for position, level in enumerate(fidelity.levels):
            y = _finite(run.train(row, position)[-1][1])
            trial.report(y, int(level))
            if position < fidelity.top and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, y)


def _finite(y: float) -> float:
    return y if math.isfinite(y) else -1e9


METHODS = {f.__name__: f for f in (budgeted, full, random, asha, hyperband, bohb)}


def measure(name: str, method: str, seed: int, root: str) -> dict[str, Any]:
    run = Run(load(name, root))
    start = time.perf_counter()
    with suppress(Over, StopIteration):
        METHODS[method](run, seed)
    return {
        "table": name,
        "method": method,
        "seed": seed,
        "budget": run.table.budget,
        "to_optimum": run.to_optimum,
        "trace": " ".join(run.trace),
        "seconds": time.perf_counter() - start,
    }


# -- report -----------------------------------------------------------------------------------------------------------


def regret_at(trace: str, prices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    r"""The regret after each price; NaN before the first full training."""
    steps = [tuple(map(float, step.split(":"))) for step in trace.split()]
    result = np.full(len(prices), np.nan)
    for price, regret in steps:
        result[prices >= price] = regret
    return result


CHECKPOINTS = np.array([5.0, 10.0, 20.0, 30.0, 50.0])


def report(rows: list[_rows.Row]) -> str:
    lines = ["| table | method | seeds | price to the optimum | [quartiles] | found | " + " | ".join(
        f"regret@{price:g}" for price in CHECKPOINTS) + " | s / run |"]  # fmt: skip
    lines.append("|" + "---|" * (7 + len(CHECKPOINTS)))
    for name in LOADERS:
        for method in METHODS:
            own = [row for row in rows if (row["table"], row["method"]) == (name, method)]
            if len(own) < LEAST:
                continue
            optima = np.array([float(row["to_optimum"] or "inf") for row in own])
            low, middle, high = np.quantile(optima, [0.25, 0.5, 0.75], method="closest_observation")
            budget = max(float(row["budget"]) for row in own)
            shown = [f"> {budget:g}" if math.isinf(value) else f"{value:.1f}" for value in (middle, low, high)]
            regrets = np.median(
                np.nan_to_num([regret_at(row["trace"], CHECKPOINTS) for row in own], nan=np.inf), axis=0
            )
            seconds = float(np.median([float(row["seconds"]) for row in own]))
            cells = [name, method, str(len(own)), shown[0], f"[{shown[1]}, {shown[2]}]"]
            cells += [f"{np.isfinite(optima).mean():.0%}", *(f"{value:.3f}" for value in regrets), f"{seconds:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[_rows.Row], path: Path) -> None:
    r"""Median regret against price, one panel a table."""
    from matplotlib.figure import Figure

    runs = Counter((row["table"], row["method"]) for row in rows)
    names = [name for name in LOADERS if any(runs[name, method] >= LEAST for method in METHODS)]
    figure = Figure(figsize=(3.6 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        prices = np.linspace(0.5, 60.0, 239)
        for number, method in enumerate(METHODS):
            own = [row["trace"] for row in rows if (row["table"], row["method"]) == (name, method)]
            if runs[name, method] < LEAST:
                continue
            curves = np.array([regret_at(trace, prices) for trace in own])
            seen = ~np.isnan(curves).any(axis=0)
            low, middle, high = np.quantile(curves[:, seen], [0.25, 0.5, 0.75], axis=0)
            axes.plot(prices[seen], middle, color=f"C{number}", label=method)
            axes.fill_between(prices[seen], low, high, color=f"C{number}", alpha=0.15, lw=0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("price [full trainings]")
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("regret (median, quartiles)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=80, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=30, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed; those from 100 on are for tuning")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no run after so many minutes")
    parser.add_argument(
        "--root", default=str(Path(tempfile.gettempdir()) / "pyg_nas_np_search"), help="NASBench201 data"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "budgeted_search.csv", help="rows of results")
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    done = {(row["table"], row["method"], int(row["seed"])) for row in _rows.read(args.output)}
    deadline = time.monotonic() + 60 * args.minutes
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.tables:
            for method in args.methods:
                missing = (name, method, seed) not in done and (name, method) != ("nasbench101", "bohb")
                if missing and not args.report_only and time.monotonic() < deadline:
                    _rows.append(args.output, FIELDS, measure(name, method, seed, args.root))
    rows = _rows.read(args.output)
    text = f"{report(rows)}\n\n{machine()}"
    print(text)
    with atomic_path(args.output.with_suffix(".md")) as tmp:
        Path(tmp).write_text(text + "\n")
    plot(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
