r"""What the prior and zero-cost scores are worth, from no label on.

    python benchmarks/zero_cost.py --data ../shared/data --draws 5

SWAP (mean of four draws of weights), NASWOT and SynFlow of one cell of each equivalence class, on small networks and 16
training images of CIFAR-10, are computed once and kept. Predictors see them of all cells of NAS-Bench-201: as a
benchmark (CIFAR-10 test accuracy; with and without the encoder, which has not seen it), and as a table of the user, as
graphs or as records alone. The prior is also tested on the tables of ``own_spaces.py`` without any label. n random
labels, Kendall's tau and the coverage of 90 % intervals on all other architectures; before the first label, labels are
standard scores. Rows that are there are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _metad2a_networks import cifar10
from _own_tables import CELL, DEVELOPED, FAMILIES, LOADERS, NetworkSpace, cell
from _rows import Row, append, read
from _timing import RESULTS
from predictors import nb201
from torch import Tensor

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.convnp import BankPredictor
from pyg_nas_np.datasets.splits import index_split
from pyg_nas_np.metrics.functional import kendall_tau
from pyg_nas_np.networks.zero_cost import score_archs
from pyg_nas_np.predictors import Predictor
from pyg_nas_np.predictors.labels import rank_gauss
from pyg_nas_np.spaces import CellSpace, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import cache_dir

SCORES = ("swap", "naswot", "synflow")
ENCODER = "encoder"
INPUTS = ("none", "swap", "naswot", "synflow", "+".join(SCORES), ENCODER, "+".join((ENCODER, *SCORES)))
LABELS = (0, 10, 20, 50, 100)
FIELDS = ("table", "scores", "labels", "draw", "tau", "coverage_90", "seconds")
CELLS, GRAPHS, RECORDS = "nb201-c10-test", "nb201-c10 as graphs", "nb201-c10 as records"
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


def own_spaces(scores: dict[str, Tensor], flat: bool) -> tuple[dict[str, ParameterSpace], Tensor]:
    r"""NAS-Bench-201 as a table of the user: without and with columns of scores; as graphs, or as records alone."""
    table, cells = LOADERS["nb201-c10"](), NASBench201Space()
    rows = []
    for arch in table.archs:
        ops = list(arch.to_dict().values())
        index = cells.index(cells.from_str("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops)))
        rows.append({**arch.to_dict(), **arch.costs, **{name: float(column[index]) for name, column in scores.items()}})
    plain = [{name: value for name, value in row.items() if name not in scores} for row in rows]
    spaces: dict[str, ParameterSpace] = {}
    for names, pool, given in (("none", plain, ()), ("+".join(scores), rows, scores)):
        options: dict[str, Any] = {"costs": {"model_size": "model_size"}, "scores": {n: n for n in given}, "pool": pool}
        parameters = table.space.parameters
        if flat:
            spaces[names] = ParameterSpace(parameters, **options)
        else:
            spaces[names] = NetworkSpace(parameters, lambda r: cell(list(r.values())), CELL, **options)
    return spaces, table.y


def measured(predictor: Predictor, archs: Any, y: Tensor, n: int, draw: int, **fit: Any) -> dict[str, float]:
    r"""Fits to n random labels and tests on all others; before the first label in standard scores."""
    rows = torch.arange(len(y))
    order = index_split(rows, min(max(LABELS), len(y) - 1), seed=draw).train[:n]
    rest = rows[~torch.isin(rows, order)]
    started = time.perf_counter()
    if isinstance(archs, Tensor):
        mean, std = predictor.fit(order, y[order], **fit).predict(rest, return_std=True)
    else:
        predictor.fit([archs[i] for i in order], y[order])
        mean, std = predictor.predict([archs[i] for i in rest], return_std=True)
    seconds = time.perf_counter() - started
    y = (y if n else rank_gauss(y.double()))[rest].double()
    inside = ((y - mean).abs() < Z90 * std).double().mean()
    tau = kendall_tau(mean, y, undefined=0.0)
    return {"tau": float(tau), "coverage_90": float(inside), "seconds": seconds}


def run(args: argparse.Namespace) -> None:
    deadline = time.monotonic() + 60 * args.minutes
    table = nb201("c10-test", args.data)
    space = table.dataset.space
    scores = scores_of(space, args.data, deadline)
    done = {tuple(row[key] for key in FIELDS[:4]) for row in read(args.results)}

    def wanted(name: str, inputs: Sequence[str], labels: Sequence[int]) -> Iterator[tuple[str, int, int, Row]]:
        for draw, n, names in itertools.product(range(args.draws), labels, inputs):
            row = {"table": name, "scores": names, "labels": str(n), "draw": str(draw)}
            if tuple(row.values()) in done or (n == 0 and draw > 0):
                continue
            if scores is None or time.monotonic() > deadline:
                print("stopped by --minutes; run again to go on")
                return
            yield names, n, draw, row

    for names, n, draw, row in wanted(CELLS, INPUTS, LABELS):
        assert scores is not None
        given = {name: scores[name] for name in names.split("+") if name in scores} or None
        predictor = ConvNPPredictor(space, encoder="universal" if ENCODER in names else None)
        found = measured(predictor, torch.arange(len(table.y)), table.y, n, draw, scores=given)
        append(args.results, FIELDS, {**row, **found})
    for name, flat in ((GRAPHS, False), (RECORDS, True)):
        spaces, y = own_spaces(scores or {}, flat)
        for names, n, draw, row in wanted(name, (INPUTS[0], "+".join(SCORES)), LABELS):
            found = measured(BankPredictor(spaces[names]), list(spaces[names].pool), y, n, draw)
            append(args.results, FIELDS, {**row, **found})
    for name in sorted(DEVELOPED):
        for names, n, draw, row in wanted(name, ("none", ENCODER), (0,)):
            own = LOADERS[name]()
            encoder = "universal" if names == ENCODER else None
            predictor = ConvNPPredictor(own.space, maximize=own.maximize, encoder=encoder)
            append(args.results, FIELDS, {**row, **measured(predictor, own.archs, own.y, n, draw)})


def report(path: Path) -> None:
    r"""Prints means over the draws."""
    rows = read(path)
    print("| table | scores | " + " | ".join(map(str, LABELS)) + " |")
    for name, names in dict.fromkeys((row["table"], row["scores"]) for row in rows):
        cells = []
        for n in LABELS:
            own = [row for row in rows if (row["table"], row["scores"], row["labels"]) == (name, names, str(n))]
            means = [statistics.mean(float(row[key]) for row in own) for key in ("tau", "coverage_90")] if own else []
            cells.append("{:.3f} ({:.2f})".format(*means) if means else "-")
        print(f"| {name} | {names} | " + " | ".join(cells) + " |")
    for names in ("none", ENCODER):
        first: dict[str, list[list[float]]] = {}
        for row in rows:
            if row["table"] in DEVELOPED and row["scores"] == names:
                first.setdefault(FAMILIES[row["table"]], []).append([float(row["tau"]), float(row["coverage_90"])])
        if first:
            families = [torch.tensor(pairs).mean(dim=0) for pairs in first.values()]
            tau, inside = torch.stack(families).mean(dim=0).tolist()
            text = f"tau {tau:.3f}, 90 % intervals hold {inside:.3f}"
            print(f"The prior on own tables, scores: {names}, mean over families: {text}")


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
