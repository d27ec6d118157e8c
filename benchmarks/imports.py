r"""What it costs to import the package and to ask for help, beside the libraries that it stands on.

Every round runs each command once in a process of its own, so that all of them see the same machine; the figures are
medians of processor time, which other programs disturb less than wall time::

    python benchmarks/imports.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from _timing import RESULTS, Report

HELP = "import sys; from pyg_nas_np.cli import main; sys.argv[1:] = ['--help']; main()"
COMMANDS = {
    "import torch": "import torch",
    "import torch_geometric": "import torch_geometric",
    "import pyg_nas_np": "import pyg_nas_np",
    "import pyg_nas_np, torch_geometric": "import pyg_nas_np, torch_geometric",
    "ConvNPPredictor": "from pyg_nas_np import ConvNPPredictor",
    "pyg-nas-np --help": HELP,
}
AIMS = {
    "import pyg_nas_np": ("import torch_geometric", 1.1),
    "import pyg_nas_np, torch_geometric": ("import torch_geometric", 1.1),
    "pyg-nas-np --help": ("import torch", 1.5),
}
"""The most that a command may cost, as a multiple of another."""


def processor_seconds(code: str) -> float:
    r"""Runs a program and returns the user and system time of its process."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    # The first round fills the caches of files and of compiled modules.
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.repeats + 1):
        for name, code in COMMANDS.items():
            times[name].append(processor_seconds(code))
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    report = Report()
    for name, seconds in medians.items():
        base, most = AIMS.get(name, ("import torch_geometric", None))
        note = f"{seconds / medians[base]:.2f} of {base}"
        report.add(name, {"seconds": seconds}, None if most is None else most * medians[base], note)
    report.write(RESULTS / "imports.csv")


if __name__ == "__main__":
    main()
