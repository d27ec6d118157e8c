r"""Repeated proposals of the Optuna sampler, where threads and processes share a study.

    python benchmarks/parallel_trials.py
    python benchmarks/parallel_trials.py --trials 40 --settings memory:4t sqlite:1 sqlite:4 journal:4

A setting is a storage and a number of processes, or of threads in one process (``4t``). The objective is the number of
FLOPs, which costs nothing, so that workers do little else than propose: nothing makes equal proposals more likely. With
``--own`` no space is declared: the objective suggests a block and what that block has, 160 configurations in all; the
first trials, which no other one could know of, are drawn before the workers start. The aim is 0 repeats everywhere.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import torch
from _timing import machine

from pyg_nas_np.integrations.optuna import ConvNPSampler, suggest_arch
from pyg_nas_np.predictors import RidgePredictor
from pyg_nas_np.spaces import NASBench201Space

SETTINGS = ("memory:1", "memory:4t", "sqlite:1", "sqlite:2", "sqlite:4", "sqlite:4t", "journal:1", "journal:2",
            "journal:4", "journal:4t")  # fmt: skip
NAME = "parallel trials"


def open_storage(kind: str, folder: Path) -> optuna.storages.BaseStorage:
    if kind == "memory":
        return optuna.storages.InMemoryStorage()
    if kind == "sqlite":
        # Several processes may wait for the one that writes.
        return optuna.storages.RDBStorage(
            f"sqlite:///{folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.log")))


def cell(trial: optuna.Trial) -> float:
    space = NASBench201Space()
    return float(space.flops(suggest_arch(trial, space)))


def own(trial: optuna.Trial) -> float:
    size = trial.suggest_int("depth", 1, 4) * trial.suggest_categorical("width", [8, 16, 24, 32])
    if trial.suggest_categorical("block", ["conv", "mbconv"]) == "mbconv":
        return float(size * trial.suggest_int("expand", 1, 6))
    return float(size * trial.suggest_int("kernel", 1, 7, step=2))


def work(storage: optuna.storages.BaseStorage, trials: int, threads: int, without_space: bool) -> None:
    torch.set_num_threads(1)
    space = None if without_space else NASBench201Space()
    study = optuna.load_study(
        study_name=NAME, storage=storage, sampler=ConvNPSampler(space, RidgePredictor(), n_startup_trials=6)
    )
    study.optimize(own if without_space else cell, n_trials=trials, n_jobs=threads)


def measure(kind: str, processes: int, threads: int, trials: int, without_space: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(kind, Path(folder))
        study = optuna.create_study(study_name=NAME, storage=storage, direction="maximize")
        if without_space:
            work(storage, 4, 1, True)
        started = time.perf_counter()
        if processes == 1:
            work(storage, trials, threads, without_space)
        else:
            shares = [trials // processes + (i < trials % processes) for i in range(processes)]
            command = [sys.executable, __file__, *(["--own"] if without_space else []), "--worker", kind, folder]
            workers = [subprocess.Popen([*command, str(share)]) for share in shares]
            codes = [worker.wait() for worker in workers]
            if any(codes):
                raise SystemExit(f"a worker of {kind}:{processes} has failed")
        seconds = time.perf_counter() - started
        drawn = [
            tuple(sorted(trial.params.items()))
            for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        ]
    return {
        "space": "none" if without_space else "nasbench201",
        "storage": kind,
        "processes": processes,
        "threads": threads,
        "trials": len(drawn),
        "repeated": len(drawn) - len(set(drawn)),
        "seconds": f"{seconds:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="trials of a setting")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="storage:processes or storage:threads with t")
    parser.add_argument("--own", action="store_true", help="declare no space")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/parallel_trials.csv"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if arguments.worker:
        kind, folder, share = arguments.worker
        work(open_storage(kind, Path(folder)), int(share), 1, arguments.own)
        return
    rows = []
    for setting in arguments.settings:
        kind, _, count = setting.partition(":")
        threads, processes = (int(count[:-1]), 1) if count.endswith("t") else (1, int(count))
        rows.append(measure(kind, processes, threads, arguments.trials, arguments.own))
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    print(f"{sum(int(str(r['repeated'])) for r in rows)} of {sum(int(str(r['trials'])) for r in rows)} trials repeated")
    print(machine())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.output, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
