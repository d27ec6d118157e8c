r"""What zero-cost scores and the prior are worth on NAS-Bench-201, from no label on.

    python benchmarks/zero_cost.py --data ../shared/data --draws 5

SWAP (mean of four draws of weights), NASWOT and SynFlow of one cell of each equivalence class, on small networks and 16
training images of CIFAR-10, are computed once and kept. Predictors see them of all cells. Protocol of
``predictors.py``: n random labels, Kendall's tau on all other cells. Rows that are there are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from _metad2a_networks import cifar10
from _rows import append, read
from _timing import RESULTS
from predictors import nb201
from torch import Tensor

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.datasets.splits import index_split
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.networks.zero_cost import score_archs
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import cache_dir

SCORES = ("swap", "naswot", "synflow")
INPUTS = ("none", "swap", "naswot", "synflow", "+".join(SCORES))
LABELS = (0, 10, 20, 50, 100)
FIELDS = ("predictor", "scores", "labels", "draw", "tau", "coverage_90", "seconds")
Z90 = 1.6449
CHUNK = 50


def scores_of(space: CellSpace[Any], data: Path, deadline: float) -> dict[str, Tensor] | None:
    r"""Scores of the whole space, ``[A]`` each; None where the time did not suffice."""
    path = cache_dir() / "benchmarks" / "zero-cost" / "nasbench201.csv"
    keys = space.batch_canonical()
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    known = {row["class"]: row for row in read(path)}
    missing = [key for key in first if key not in known]
    images = cifar10(data)[:16] if missing else torch.empty(0)
    for start in range(0, len(missing), CHUNK):
        if time.monotonic() > deadline:
            return None
        part = missing[start : start + CHUNK]
        table = score_archs(space, [space[first[key]] for key in part], images, scores=SCORES, repeats=4)
        for key, values in zip(part, table.values.tolist(), strict=True):
            row = {"class": key, **{name: f"{value:.9g}" for name, value in zip(SCORES, values, strict=True)}}
            append(path, ("class", *SCORES), row)
            known[key] = row
    return {name: torch.tensor([float(known[key][name]) for key in keys], dtype=torch.float64) for name in SCORES}


def run(args: argparse.Namespace) -> None:
    deadline = time.monotonic() + 60 * args.minutes
    table = nb201("c10-test", args.data)
    space = table.dataset.space
    scores = scores_of(space, args.data, deadline)
    if scores is None:
        print("stopped by --minutes; run again to go on")
        return
    done = {tuple(row[key] for key in FIELDS[:4]) for row in read(args.results)}
    for draw in range(args.draws):
        order = index_split(torch.arange(len(table.y)), max(LABELS), seed=draw).train
        for n, names in itertools.product(LABELS, INPUTS):
            row = {"predictor": "convnp", "scores": names, "labels": n, "draw": draw}
            if tuple(map(str, row.values())) in done or (n == 0 and draw > 0):
                continue
            if time.monotonic() > deadline:
                print("stopped by --minutes; run again to go on")
                return
            given = {name: scores[name] for name in names.split("+")} if names != "none" else None
            started = time.perf_counter()
            predictor = ConvNPPredictor(space).fit(order[:n], table.y[order[:n]], scores=given)
            mean, std = predictor.predict(torch.arange(len(table.y)), return_std=True)
            seconds = time.perf_counter() - started
            rest = torch.ones(len(table.y), dtype=torch.bool)
            rest[order[:n]] = False
            # Before the first label, the scale of predictions is that of standard scores.
            y = table.y[rest].double() if n else rank_gauss(table.y.double())
            tau = float(kendall_tau(mean[rest], y))
            inside = float(((y - mean[rest]).abs() < Z90 * std[rest]).double().mean())
            append(args.results, FIELDS, {**row, "tau": tau, "coverage_90": inside, "seconds": seconds})


def report(path: Path) -> None:
    r"""Prints the mean of tau over the draws."""
    rows = read(path)
    print("| scores | " + " | ".join(map(str, LABELS)) + " |")
    for names in INPUTS:
        cells = []
        for n in LABELS:
            taus = [float(row["tau"]) for row in rows if row["scores"] == names and row["labels"] == str(n)]
            cells.append(f"{statistics.mean(taus):.3f}" if taus else "-")
        print(f"| {names} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    parser.add_argument("--draws", type=int, default=5, help="draws of labels")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit")
    parser.add_argument("--results", type=Path, default=RESULTS / "zero_cost.csv")
    args = parser.parse_args()
    run(args)
    report(args.results)


if __name__ == "__main__":
    main()
