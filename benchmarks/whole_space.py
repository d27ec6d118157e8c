r"""Times the ranking of a whole space, with uncertainty, from 100 labels, by ConvNP and by other predictors.

Run: ``python benchmarks/whole_space.py [--threads 2] [--device cuda]``; writes ``benchmarks/results/whole_space.csv``.
Each case has a process of its own. The first ranking computes the descriptors of the whole space, further ones find
them computed. The enumerated space is loaded before, as are scores of the encoder that an earlier process has kept on
disk; labels are a noisy function of the multiply-accumulates. The device is that of ConvNP.
"""

from __future__ import annotations

import argparse
import time

import torch
from _timing import RESULTS, Report, Result, in_child, run_child

from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.spaces import space_by_name

AIMS = {"nasbench201": 1.5, "nasbench101": 8.0}
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
    times, cores = [], []
    for _ in range(2):
        options = {"device": args.device} if args.predictor == "convnp" else {}
        predictor = PREDICTORS[args.predictor](space, **options)
        start, used = time.perf_counter(), time.process_time()
        predictor.fit(context, y).predict(graphs, return_std=True)
        times.append(time.perf_counter() - start)
        cores.append(time.process_time() - used)
    return {"seconds": times[0], "again": times[1], "cpu": cores[0], "cpu_again": cores[1]}


def spent(took: Result) -> str:
    return f"{took['cpu']:.2f} s of processors; again {took['again']:.2f} s, {took['cpu_again']:.2f} s of processors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--spaces", nargs="+", choices=AIMS, default=list(AIMS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step")
    parser.add_argument("--space")
    parser.add_argument("--predictor")
    args = parser.parse_args()
    if args.step:
        return run_child({"rank": rank}, args)
    torch.set_num_threads(args.threads)
    report = Report()
    for space in args.spaces:
        ours = in_child("rank", space=space, predictor="convnp", threads=args.threads, device=args.device)
        report.add(f"{space}, convnp", ours, AIMS[space], spent(ours))
        for name in PEERS:
            peer = in_child("rank", space=space, predictor=name, threads=args.threads)
            note = f"{spent(peer)}; convnp takes {ours['seconds'] / peer['seconds']:.1f}x its time"
            report.add(f"{space}, {name}", peer, note=note)
    report.write(RESULTS / "whole_space.csv")


if __name__ == "__main__":
    main()
