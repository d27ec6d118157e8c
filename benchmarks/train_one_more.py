r"""How far the prospects of a search within a budget can be trusted, on recorded tables: train one more?

    python benchmarks/train_one_more.py --seeds 5
    python benchmarks/train_one_more.py --report-only

A :class:`~pyg_nas_np.search.BudgetedSearch` runs on the tables of ``budgeted_search.py`` as there, but goes on after
the optimum. At :data:`PRICES` it is asked for its prospect (:meth:`~pyg_nas_np.search.BudgetedSearch.prospect`), by
margins in units of (best - median) of the labels of full trainings. The table knows whether a candidate is better by
so much, and what the next spent full training has gained. Every answer is a row of ``results/train_one_more.csv``, but
for those that say that nothing is known yet.

The report has the mean probability and the frequency, their Brier score (smaller is better) beside that of the
frequency alone, and the expected gain of the next full training beside the true one. Seeds from 100 on are for tuning.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import defaultdict
from typing import Any

import _rows
import numpy as np
import torch
from _timing import RESULTS
from budgeted_search import LOADERS, Run, _rows_by_arch, load

from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.utils import ExperimentalWarning

FIELDS = ("table", "seed", "price", "full", "margin", "probability", "better", "expected_gain", "gain")
PRICES = (3, 5, 8, 12, 16, 20, 25, 30)
MARGINS = (0.0, 0.02, 0.05)


def measure(name: str, seed: int, root: str) -> list[dict[str, Any]]:
    table = load(name, root)
    run, row_of = Run(table), _rows_by_arch(table)
    search: Any = BudgetedSearch(table.space, table.fidelity, PRICES[-1] + 2, candidates=table.archs, seed=seed)
    labels = table.labels[:, -1]
    finished: set[int] = set()
    waiting, rows, open_ = list(PRICES), [], []
    while trainings := search.ask():
        for arch, level, start, _ in trainings:
            row, position = row_of(arch), table.fidelity.levels.index(level)
            first = 0 if start is None else table.fidelity.levels.index(start) + 1
            passed = range(first, position + 1) if table.fidelity.continued else [position]
            for p in passed:
                search.tell([arch], table.fidelity.levels[p], [float(table.labels[row, p])])
            if position == table.fidelity.top:
                finished.add(row)
        if not finished:
            continue
        best = float(labels[sorted(finished)].nan_to_num(-math.inf).max())
        for before, spent, group in list(open_):
            if search.spent >= spent + 1.0 - 1e-9:
                open_.remove((before, spent, group))
                for found in group:
                    found["gain"] = (best - before) / run.scale
        if waiting and search.spent >= waiting[0]:
            price = waiting.pop(0)
            others = labels.clone()
            others[sorted(finished)] = -math.inf
            lead = (float(others.nan_to_num(-math.inf).max()) - best) / run.scale
            group = []
            for margin in MARGINS:
                told = search.prospect(margin * run.scale)
                if math.isinf(told.gain):
                    break
                group.append(
                    {
                        "table": name,
                        "seed": seed,
                        "price": price,
                        "full": len(finished),
                        "margin": margin,
                        "probability": round(told.probability, 4),
                        "better": int(lead > margin),
                        "expected_gain": told.gain / run.scale,
                    }
                )
            rows += group
            open_.append((best, search.spent, group))
    return [found for found in rows if "gain" in found]


def report() -> None:
    cells: dict[tuple[str, float], list[dict[str, str]]] = defaultdict(list)
    for row in _rows.read(RESULTS / "train_one_more.csv"):
        cells[row["table"], float(row["margin"])].append(row)
        cells["all", float(row["margin"])].append(row)
    print("| table | margin | answers | probability | frequency | Brier | of the frequency | expected gain | gain |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, margin), rows in sorted(cells.items(), key=lambda item: (item[0][0] == "all", item[0])):
        p, hit, expected, gain = (
            np.array([float(row[key]) for row in rows]) for key in ("probability", "better", "expected_gain", "gain")
        )
        brier, base = ((p - hit) ** 2).mean(), hit.mean() * (1 - hit.mean())
        print(
            f"| {name} | {margin:g} | {len(rows)} | {p.mean():.2f} | {hit.mean():.2f} | {brier:.3f} | {base:.3f} "
            f"| {expected.mean():.4f} | {gain.mean():.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ["cifar10", "cifar100", "ImageNet16-120", "metaqnn_cifar10", "deep_resnets_tinyimagenet", "naap440"]
    parser.add_argument("--tables", nargs="+", choices=list(LOADERS), default=tables)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--root", default="data", help="folder of processed data sets")
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ExperimentalWarning)
    torch.set_num_threads(1)
    path = RESULTS / "train_one_more.csv"
    if not args.report_only:
        done = {(row["table"], int(row["seed"])) for row in _rows.read(path)}
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            for name in args.tables:
                if (name, seed) not in done:
                    for row in measure(name, seed, args.root):
                        _rows.append(path, FIELDS, row)
                    print(f"{name}, seed {seed}", flush=True)
    report()


if __name__ == "__main__":
    main()
