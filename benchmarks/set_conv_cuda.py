"""Compiles every Triton kernel in every configuration for every architecture and tabulates what became of it.

No GPU is needed: ``python benchmarks/set_conv_cuda.py`` writes ``benchmarks/results/set_conv_cuda.csv``, a row for each
kernel and architecture. It takes a core about twenty minutes; that file is of ``--radials matern52``, the one with the
most arithmetic.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from pyg_nas_np.ops.ahead import ARCHITECTURES, Compiled, compile_ahead
from pyg_nas_np.ops.radial import KERNELS
from pyg_nas_np.ops.triton_kernels import WIDTHS, configurations
from pyg_nas_np.utils import atomic_path


class Summary(NamedTuple):
    """All configurations of one kernel for one architecture."""

    kernel: str
    architecture: int
    configurations: int
    least_registers: int
    most_registers: int
    spilled_bytes: int  # of the worst, as below
    shared_bytes: int


def compiled(task: tuple[str, int, Sequence[str], Sequence[str]]) -> list[Compiled]:
    kernel, architecture, dtypes, radials = task
    return list(compile_ahead([architecture], dtypes, [kernel], radials))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], help="types of the inputs")
    parser.add_argument("--radials", nargs="+", choices=KERNELS, default=KERNELS, help="kernels of the convolution")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "set_conv_cuda.csv")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args()
    kernels = dict.fromkeys(name for name, *_ in configurations(WIDTHS))
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        parts = pool.map(compiled, product(kernels, args.architectures, [args.dtypes], [args.radials]))
        rows = [row for part in parts for row in part]
    print(f"{'kernel':20}{'sm':>5}{'configurations':>16}{'registers':>12}{'spilled':>9}{'shared kB':>11}")
    summary = []
    for kernel, architecture in dict.fromkeys((row.kernel, row.architecture) for row in rows):
        mine = [row for row in rows if (row.kernel, row.architecture) == (kernel, architecture)]
        line = Summary(
            kernel,
            architecture,
            len(mine),
            min(row.registers for row in mine),
            max(row.registers for row in mine),
            max(row.spilled_bytes for row in mine),
            max(row.shared_bytes for row in mine),
        )
        summary.append(line)
        registers = f"{line.least_registers}-{line.most_registers}"
        print(
            f"{kernel:20}{architecture:>5}{line.configurations:>16}{registers:>12}{line.spilled_bytes:>9}"
            f"{line.shared_bytes / 1024:>11.1f}"
        )
    with atomic_path(args.out) as path, path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Summary._fields, *summary])
    for row in rows:
        if row.spilled_bytes:
            print(row)
    print(f"{len(rows)} kernels compiled, {sum(row.spilled_bytes > 0 for row in rows)} spill registers")


if __name__ == "__main__":
    main()
