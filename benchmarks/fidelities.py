r"""Ranks recorded trainings from full and cheaper ones, beside what the same price buys in full trainings alone.

    python benchmarks/fidelities.py --draws 10
    python benchmarks/fidelities.py --report-only

Tables and levels are those of ``budgeted_search.py``. A draw labels random architectures at the lowest level, a third
of them at the next one where there is one in between, and a part of these in full (:data:`SIZES`). Kendall's tau is
over 2,000 other candidates, in their labels of full trainings. Methods: ``full`` is
:class:`~pyg_nas_np.ConvNPPredictor` on the full trainings alone, ``equal price`` on as many as all these trainings cost
together, ``levels`` on all of them, ``chain`` is :class:`~pyg_nas_np.convnp.FidelityPredictor` on all of them,
``cheap`` is :class:`~pyg_nas_np.ConvNPPredictor` on the lowest level.

Every (table, size, draw, method) is one row of ``results/fidelities.csv``, written as it comes; what is there is not
run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import _rows
import torch
from _timing import RESULTS, machine
from budgeted_search import LOADERS, Table, load
from torch import Tensor

from pyg_nas_np.convnp import ConvNPPredictor, FidelityPredictor
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.predictors.base import Predictor

SIZES = ((30, 3), (60, 10), (100, 25))
"""Numbers of trainings at the lowest and at the last level."""

FIELDS = ("table", "cheap", "full", "draw", "method", "tau", "seconds")
METHODS = ("full", "equal price", "levels", "chain", "cheap")
TESTED = 2000


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
    if method in ("levels", "chain"):
        kind = ConvNPPredictor if method == "levels" else FidelityPredictor
        rows = torch.cat(levels)
        at = torch.cat([torch.full((part.numel(),), level) for level, part in enumerate(levels)])
        predictor = kind(table.space, fidelity=table.fidelity)
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


def report(path: Path) -> None:
    rows = _rows.read(path)
    print("| table | cheap + full | " + " | ".join(METHODS) + " | draws |")
    print("|---|---|" + "--:|" * (len(METHODS) + 1))
    for name in LOADERS:
        for cheap, full in SIZES:
            own = [r for r in rows if (r["table"], r["cheap"], r["full"]) == (name, str(cheap), str(full))]
            if own:
                cells = {m: [float(r["tau"]) for r in own if r["method"] == m] for m in METHODS}
                means = " | ".join(f"{fmean(c):.3f}" if c else "" for c in cells.values())
                print(f"| {name} | {cheap} + {full} | {means} | {min(map(len, cells.values()))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=list(LOADERS), choices=list(LOADERS))
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
                    predicted = fitted(method, table, levels).predict(taken(table, rest))
                    tau = float(kendall_tau(predicted, table.labels[rest, -1], undefined=0.0))
                    row = dict(zip(FIELDS, (*key, tau, time.perf_counter() - start), strict=True))
                    _rows.append(args.results, FIELDS, row)
    report(args.results)
    print(machine())


if __name__ == "__main__":
    main()
