r"""Ranks recorded trainings from full and cheaper ones, beside what the same price buys in full trainings alone.

    python benchmarks/fidelities.py --draws 10
    python benchmarks/fidelities.py --report-only

Tables and levels are those of ``budgeted_search.py``, with two of learning curves more (:data:`MORE`). A draw labels
random architectures at the lowest level, a third of them at the next one where there is one in between, and a part of
these in full (:data:`SIZES`). Kendall's tau is over up to 2,000 other candidates, in their labels of full trainings;
``nll`` and ``coverage`` (of 90 % intervals) are of the same predictions, where at least two trainings are finished.
Methods: ``full`` is :class:`~pyg_nas_np.ConvNPPredictor` on the full trainings alone, ``equal price`` on as many as all
these trainings cost together, ``levels`` on all of them, ``chain`` is :class:`~pyg_nas_np.convnp.FidelityPredictor` on
all of them, ``one process`` the same with a single Gaussian process, ``cheap`` is
:class:`~pyg_nas_np.ConvNPPredictor` on the lowest level.

Every (table, size, draw, method) is one row of ``results/fidelities.csv``, written as it comes; what is there is not
run again.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import _rows
import torch
from _timing import RESULTS, machine
from budgeted_search import LOADERS, Table, curves_of
from torch import Tensor

from pyg_nas_np.convnp import ConvNPPredictor, FidelityPredictor
from pyg_nas_np.metrics.functional import gaussian_nll, interval_coverage, kendall_tau
from pyg_nas_np.predictors.base import Predictor

SIZES = ((60, 0), (60, 1), (60, 5), (30, 3), (60, 10), (100, 25))
"""Numbers of trainings at the lowest and at the last level."""

FIELDS = ("table", "cheap", "full", "draw", "method", "tau", "nll", "coverage", "seconds")
METHODS = ("full", "equal price", "levels", "chain", "one process", "cheap")
TESTED = 2000


def perplexities(root: str) -> Table:
    r"""The language models, whose labels become larger the better."""
    table = curves_of("lstm_ptb", root)
    return table._replace(labels=-table.labels)


MORE = {"deep_resnets_cifar10": lambda root: curves_of("deep_resnets_cifar10", root), "lstm_ptb": perplexities}
"""Tables that no search is simulated on."""

TABLES = {**LOADERS, **MORE}
load = cache(lambda name, root: TABLES[name](root))


def drawn(table: Table, cheap: int, full: int, draw: int) -> tuple[list[Tensor], Tensor]:
    r"""Rows that are labelled at each level, and rows to rank: finite labels alone."""
    finite = table.labels.isfinite().all(dim=1).nonzero().flatten()
    order = finite[torch.randperm(finite.numel(), generator=torch.Generator().manual_seed(draw))]
    last = table.fidelity.top
    counts = [cheap if level == 0 else full if level == last else max(full, cheap // 3) for level in range(last + 1)]
    return [order[:count] for count in counts], order[cheap:][-TESTED:]


def taken(table: Table, rows: Tensor) -> Any:
    return table.archs[rows] if isinstance(table.archs, Tensor) else [table.archs[row] for row in rows.tolist()]


def fitted(method: str, table: Table, levels: list[Tensor]) -> Predictor:
    y, names = table.labels, table.fidelity.levels
    if method in ("levels", "chain", "one process"):
        rows = torch.cat(levels)
        at = torch.cat([torch.full((part.numel(),), level) for level, part in enumerate(levels)])
        predictor: Any = ConvNPPredictor(table.space, fidelity=table.fidelity)
        if method != "levels":
            predictor = FidelityPredictor(table.space, fidelity=table.fidelity, alone=method == "one process")
        return predictor.fit(taken(table, rows), y[rows, at], fidelity=[names[level] for level in at.tolist()])
    if method == "cheap":
        return ConvNPPredictor(table.space).fit(taken(table, levels[0]), y[levels[0], 0])
    rows = levels[-1]
    if method == "equal price":
        reached: dict[int, int] = {}
        price = 0.0
        for level, part in enumerate(levels):
            for row in part.tolist():
                price += table.fidelity.price(level, reached.get(row))
                reached[row] = level
        # The rows of the lowest level come first in the order of the draw: these are as random as any.
        rows = levels[0][: max(round(price), 2)]
    return ConvNPPredictor(table.space).fit(taken(table, rows), y[rows, -1])


def measured(predictor: Any, archs: Any, y: Tensor, scaled: bool) -> dict[str, float | str]:
    r"""Tau, negative log density and coverage, the latter two only if predictions are on the scale of the labels."""
    mean, std = predictor.predict(archs, return_std=True)
    row: dict[str, float | str] = {"tau": float(kendall_tau(mean, y, undefined=0.0)), "nll": "", "coverage": ""}
    if scaled:
        row |= {"nll": float(gaussian_nll(mean, std, y)), "coverage": float(interval_coverage(mean, std, y))}
    return row


def report(path: Path, value: str) -> None:
    rows = _rows.read(path)
    print(f"\n{value}\n\n| table | cheap + full | " + " | ".join(METHODS) + " | draws |")
    print("|---|---|" + "--:|" * (len(METHODS) + 1))
    for name in TABLES:
        for cheap, full in SIZES:
            own = [r for r in rows if (r["table"], r["cheap"], r["full"]) == (name, str(cheap), str(full))]
            if own:
                cells = {m: [float(r[value]) for r in own if r["method"] == m and r[value]] for m in METHODS}
                means = " | ".join(f"{fmean(c):.3f}" if c else "" for c in cells.values())
                print(f"| {name} | {cheap} + {full} | {means} | {max(map(len, cells.values()))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--root", default="out/data", help="folder of downloaded and processed data sets")
    parser.add_argument("--results", type=Path, default=RESULTS / "fidelities.csv")
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = {tuple(row[name] for name in FIELDS[:5]) for row in _rows.read(args.results)}
    for draw in range(0 if args.report_only else args.draws):
        for name in args.tables:
            for cheap, full in SIZES:
                for method in METHODS:
                    key = (name, str(cheap), str(full), str(draw), method)
                    if key in done:
                        continue
                    table = load(name, args.root)
                    levels, rest = drawn(table, cheap, full, draw)
                    start = time.perf_counter()
                    scaled = full >= 2 and method != "cheap"
                    found = measured(fitted(method, table, levels), taken(table, rest), table.labels[rest, -1], scaled)
                    row = dict(zip(FIELDS[:5], key, strict=True)) | found | {"seconds": time.perf_counter() - start}
                    _rows.append(args.results, FIELDS, row)
    for value in ("tau", "nll", "coverage"):
        report(args.results, value)
    print(machine())


if __name__ == "__main__":
    main()
