r"""Times the next proposal after one more label, by fits from scratch and by fits that start from the one before.

    python benchmarks/next_ask.py --cifar10-test FILE

``FILE`` is a CSV of ``index`` and ``cifar10_test_200`` of NAS-Bench-201; searches on NAS-Bench-101, which propose cells
that no table has, learn a noisy function of the multiply-accumulates. Each case has a process of its own, in which both
kinds of search tell and ask in turn. Seconds are of the processor, on one thread, the median of ``--asks`` calls; those
of ``wall_seconds`` are of the clock, on two threads, warm.

``replay`` follows a search on NAS-Bench-201 whose fits start from the one before. At some steps its proposal is
compared with that of a fit from scratch, and this with one whose learners have another seed: which share of first
proposals is the same (equal merit counts), at which rank the other order has them, and how far the predicted mean
scores are apart (root mean square over the space, in standard deviations). Writes ``benchmarks/results/next_ask.csv``.
"""

from __future__ import annotations

import argparse
import csv
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _timing import RESULTS, Result, in_child, machine, run_child
from sklearn.base import clone
from torch import Tensor

from pyg_nas_np.convnp import ConvNPPredictor
from pyg_nas_np.search import PredictorSearch
from pyg_nas_np.search.acquisition import upper_confidence_bound
from pyg_nas_np.spaces import EnumerableSpace, space_by_name

CASES = {"nasbench201": (20, 50, 99, 120, 150, 200, 300), "nasbench101": (50, 120, 150)}
AIMS = {"nasbench201": 0.2, "nasbench101": 0.8}
REPLAY = {"between": (145, 209), "every": 8}
COLUMNS = ("space", "labels", "cold_seconds", "warm_seconds", "ratio", "wall_seconds", "note")
LAYOUT = "{:<12} {:>7} {:>13} {:>13} {:>6} {:>13}  {}"

Values = Callable[[Tensor], Tensor]


def labels_of(space: EnumerableSpace, file: str) -> Values:
    size = space.batch_flops(torch.arange(len(space))).double().log1p()
    noise = torch.randn(len(space), generator=torch.Generator().manual_seed(0))
    labels = (size - size.mean()) / size.std() + 0.3 * noise
    if space.name == "nasbench201" and file:
        with open(file, newline="") as rows:
            for row in csv.DictReader(rows):
                labels[int(row["index"])] = float(row["cifar10_test_200"])
    return lambda index: labels[index]


def prepared(space: EnumerableSpace, values: Values, count: int, warm: bool, **params: object) -> PredictorSearch:
    search = PredictorSearch(space, ConvNPPredictor(**params), warm_start=warm, initial=2)
    known = torch.randperm(len(space), generator=torch.Generator().manual_seed(1))[:count]
    search.tell(known, values(known))
    return search


def ask(args: argparse.Namespace) -> Result:
    torch.set_num_threads(args.threads)
    space = space_by_name(args.space)
    values = labels_of(space, args.file)
    kinds, clock = (("cold", "warm"), time.process_time) if args.threads == 1 else (("warm",), time.perf_counter)
    searches = {kind: prepared(space, values, args.labels, kind == "warm") for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in searches}
    for step in range(args.asks + 1):
        for kind, search in searches.items():
            start = clock()
            chosen = search.ask()
            # The first call computes tables and has no fit to start from.
            times[kind] += [clock() - start] * (step > 0)
            search.tell(chosen, values(torch.tensor(space.indices(chosen))))
    return {"seconds": 0.0, **{kind: statistics.median(some) for kind, some in times.items()}}


def replay(args: argparse.Namespace) -> Result:
    torch.set_num_threads(1)
    space = space_by_name("nasbench201")
    values, every = labels_of(space, args.file), torch.arange(len(space))
    first, last = REPLAY["between"]
    search = prepared(space, values, first, True)
    found: dict[str, list[tuple[float, float, float]]] = {"warm": [], "seed": []}
    for count in range(first, last + 1):
        known = torch.tensor(space.indices(search.measured))
        chosen = torch.tensor(space.indices(search.ask()))
        if (count - first) % REPLAY["every"] == 0:
            merits, means = [], []
            for seed in (0, 1):
                cold = clone(search.predictor).set_params(warm_start=False, random_state=seed).fit(known, search.y)
                mean, std = cold.predict_scores(every)
                merit = upper_confidence_bound(mean, std, search.beta)
                merit[known] = -torch.inf
                merits.append(merit)
                means.append(mean)
            other = means[0] - search.predictor.predict_scores(every)[0]
            for kind, at, apart in (
                ("warm", int(chosen), other),
                ("seed", int(merits[1].argmax()), means[0] - means[1]),
            ):
                rank = 1 + int((merits[0] > merits[0][at]).sum())
                found[kind].append((float(rank == 1), float(rank), float(apart.square().mean().sqrt())))
        search.tell(chosen, values(chosen))
    result = {"seconds": 0.0, "steps": float(len(found["warm"]))}
    for kind, rows in found.items():
        same, rank, apart = zip(*rows, strict=True)
        result |= {
            f"{kind}_same": statistics.mean(same),
            f"{kind}_rank": statistics.median(rank),
            f"{kind}_apart": statistics.mean(apart),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cifar10-test", dest="file", default="")
    parser.add_argument("--file", dest="file")
    parser.add_argument("--asks", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "next_ask.csv")
    parser.add_argument("--step")
    parser.add_argument("--space")
    parser.add_argument("--labels", type=int)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.step:
        return run_child({"ask": ask, "replay": replay}, args)
    rows: list[dict[str, object]] = []

    def add(*values: object) -> None:
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        print(LAYOUT.format(*values), flush=True)

    print(LAYOUT.format(*COLUMNS))
    child = functools.partial(in_child, file=args.file, asks=args.asks)
    for space, counts in CASES.items():
        for count in counts:
            took, two = (child("ask", space=space, labels=count, threads=threads) for threads in (1, 2))
            shown = (f"{seconds:.3f}" for seconds in (took["cold"], took["warm"]))
            ratio = f"{took['cold'] / took['warm']:.1f}"
            add(space, count, *shown, ratio, f"{two['warm']:.3f}", f"aim {AIMS[space]:g} s")
    if args.file:
        found = child("replay")
        for kind, name in (("warm", "warm against cold"), ("seed", "cold against cold of another seed")):
            note = (
                f"{name}: {found[f'{kind}_same']:.0%} of {found['steps']:.0f} first proposals the same, median rank "
                f"{found[f'{kind}_rank']:g}, mean scores {found[f'{kind}_apart']:.3f} apart"
            )
            add("nasbench201", "{}-{}".format(*REPLAY["between"]), "", "", "", "", note)
    add("machine", "", "", "", "", "", machine())
    with open(args.output, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
