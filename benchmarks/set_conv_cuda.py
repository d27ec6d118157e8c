"""Compiles every Triton kernel in every configuration for every architecture and tabulates what became of it.

No GPU is needed: ``python benchmarks/set_conv_cuda.py`` writes ``benchmarks/results/set_conv_cuda.csv``.
"""

from __future__ import annotations

import argparse
import csv
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from pyg_nas_np.ops.ahead import ARCHITECTURES, Compiled, compile_ahead
from pyg_nas_np.ops.triton_kernels import WIDTHS, configurations
from pyg_nas_np.utils import atomic_path


def compiled(task: tuple[str, int]) -> list[Compiled]:
    kernel, architecture = task
    return list(compile_ahead([architecture], kernels=[kernel]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "set_conv_cuda.csv")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args()
    kernels = dict.fromkeys(name for name, *_ in configurations(WIDTHS))
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        parts = pool.map(compiled, product(kernels, args.architectures))
        rows = [row for part in parts for row in part]
    with atomic_path(args.out) as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Compiled._fields)
        writer.writerows(rows)
    print(f"{'kernel':16}{'sm':>5}{'configurations':>16}{'registers':>12}{'spilled':>9}{'shared kB':>11}")
    for kernel, architecture in dict.fromkeys((row.kernel, row.architecture) for row in rows):
        mine = [row for row in rows if (row.kernel, row.architecture) == (kernel, architecture)]
        registers = f"{min(r.registers for r in mine)}-{max(r.registers for r in mine)}"
        print(
            f"{kernel:16}{architecture:>5}{len(mine):>16}{registers:>12}{max(r.spilled_bytes for r in mine):>9}"
            f"{max(r.shared_bytes for r in mine) / 1024:>11.1f}"
        )
    spilling = [row for row in rows if row.spilled_bytes]
    print(f"{len(rows)} kernels compiled, {len(spilling)} spill registers")


if __name__ == "__main__":
    main()
