r"""Times the ranking of a whole space, with uncertainty, from 100 labels, by ConvNP and by other predictors.

Run: ``python benchmarks/whole_space.py [--threads 2]``; writes ``benchmarks/results/whole_space.csv``. Each case has a
process of its own. The first ranking computes the descriptors of the whole space, further ones find them computed. The
enumerated space is loaded before; labels are a noisy function of the multiply-accumulates.
"""

from __future__ import annotations

import argparse
import time

import torch
from _timing import RESULTS, Report, Result, in_child, run_child

from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.spaces import space_by_name

AIMS = {"nasbench201": 3.0, "nasbench101": 40.0}
PEERS = ("gp", "xgboost", "random-forest")
LABELS = 100


def rank(args: argparse.Namespace) -> Result:
    torch.set_num_threads(args.threads)
    space = space_by_name(args.space)
    generator = torch.Generator().manual_seed(0)
    everything, some = torch.arange(len(space)), torch.randperm(len(space), generator=generator)[:LABELS]
    size = space.batch_flops(some).double().log1p()
    y = 90 + (size - size.mean()) / size.std() + 0.3 * torch.randn(LABELS, generator=generator)
    graphs, context = space.batch_encode(everything), space.batch_encode(some)
    times = []
    for _ in range(2):
        predictor = PREDICTORS[args.predictor](space)
        start = time.perf_counter()
        predictor.fit(context, y).predict(graphs, return_std=True)
        times.append(time.perf_counter() - start)
    return {"seconds": times[0], "again": times[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--spaces", nargs="+", choices=AIMS, default=list(AIMS))
    parser.add_argument("--step")
    parser.add_argument("--space")
    parser.add_argument("--predictor")
    args = parser.parse_args()
    if args.step:
        return run_child({"rank": rank}, args)
    torch.set_num_threads(args.threads)
    report = Report()
    for space in args.spaces:
        ours = in_child("rank", space=space, predictor="convnp", threads=args.threads)
        report.add(f"{space}, convnp", ours, AIMS[space], f"again {ours['again']:.2f} s")
        for name in PEERS:
            peer = in_child("rank", space=space, predictor=name, threads=args.threads)
            note = f"again {peer['again']:.2f} s; convnp takes {ours['seconds'] / peer['seconds']:.1f}x its time"
            report.add(f"{space}, {name}", peer, note=note)
    report.write(RESULTS / "whole_space.csv")


if __name__ == "__main__":
    main()
