r"""What the benchmark scripts share: repeated timing, steps in processes of their own, tables, the machine."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Result = dict[str, float]
"""What a step measures, by name; always ``seconds``, and ``peak_mib`` once its process has ended."""

RESULTS = Path(__file__).parent / "results"


def seconds(function: Callable[..., object], *args: object, repeats: int = 3) -> list[float]:
    r"""Times a call, once per repeat."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return times


def machine() -> str:
    r"""Describes the processor and the versions that the figures depend on."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    )


def in_child(step: str, repeats: int = 1, **options: object) -> Result:
    r"""Runs a step of the calling script in fresh processes: median seconds, and the largest peak of memory.

    Every occurrence of ``{}`` in an option is replaced by the number of the repeat.
    """
    results = []
    for repeat in range(repeats):
        command = [sys.executable, sys.argv[0], "--step", step]
        for name, value in options.items():
            command += [f"--{name}", str(value).replace("{}", str(repeat))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    merged = {name: statistics.median(result[name] for result in results) for name in results[0]}
    return merged | {"peak_mib": max(result["peak_mib"] for result in results)}


def run_child(steps: Mapping[str, Callable[[argparse.Namespace], Result]], arguments: argparse.Namespace) -> None:
    r"""The other side of :func:`in_child`: runs the step and prints its result as the last line."""
    result = steps[arguments.step](arguments)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    print(json.dumps(result | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}))


class Report:
    r"""Prints rows as they come and writes them as one CSV, with the machine in the last row."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []
        print(f"{'step':<44} {'seconds':>9} {'peak MiB':>9} {'aim':>7}  note")

    def add(self, step: str, result: Result, aim: float | None = None, note: str = "") -> None:
        r"""Adds a measured step; :obj:`aim` is the time in seconds that it should stay below."""
        time_taken, peak = result["seconds"], result.get("peak_mib")
        self._row(
            step, f"{time_taken:.4f}", "" if peak is None else f"{peak:.0f}", "" if aim is None else f"{aim:g}", note
        )
        if aim is not None and time_taken > aim:
            print(f"  above the aim of {aim:g} s")

    def skip(self, step: str, reason: str) -> None:
        r"""Adds a step that could not be measured, with the reason."""
        self._row(step, "", "", "", f"skipped: {reason}")

    def _row(self, step: str, time_taken: str, peak: str, aim: str, note: str) -> None:
        self.rows.append({"step": step, "seconds": time_taken, "peak_mib": peak, "aim_seconds": aim, "note": note})
        print(f"{step:<44} {time_taken:>9} {peak:>9} {aim:>7}  {note}", flush=True)

    def write(self, path: Path) -> None:
        r"""Writes the table."""
        self._row("machine", "", "", "", machine())
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
