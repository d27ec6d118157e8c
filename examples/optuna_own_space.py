r"""Searches a space with conditions, architecture and learning rate jointly, through Optuna with two processes.

The objective is an ordinary one of Optuna; its sampler is the only line that tells of this package. A formula stands in
for the training of a network. The processes share a study on disk, and never try the same twice:

    python examples/optuna_own_space.py --trials 24 --workers 2
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
from pathlib import Path

import optuna
import torch

from pyg_nas_np.integrations.optuna import ConvNPSampler

NAME = "own space"


def objective(trial: optuna.Trial) -> float:
    r"""Declares the space while it runs, and returns the error of a network."""
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    depth = trial.suggest_int("depth", 2, 12)
    widths = [trial.suggest_int(f"width_{i}", 16, 128, step=16) for i in range(3)]
    expand, kernel = 1, 3
    if trial.suggest_categorical("block", ["conv", "mbconv"]) == "mbconv":
        expand = trial.suggest_int("expand", 1, 6)
    else:
        kernel = trial.suggest_int("kernel", 3, 7, step=2)
    size = math.log2(depth * sum(widths) * expand * kernel)
    return 0.05 + (math.log10(lr) + 2.5) ** 2 / 20 + (size - 13) ** 2 / 100 + 0.01 * kernel


def open_study(path: Path) -> optuna.Study:
    r"""Opens the study, or makes it."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.create_study(study_name=NAME, storage=storage, load_if_exists=True, sampler=ConvNPSampler())


def work(path: Path, trials: int) -> None:
    r"""Runs in each process."""
    torch.set_num_threads(1)  # The processes share the cores.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    open_study(path).optimize(objective, n_trials=trials)


def main(arguments: list[str] | None = None) -> optuna.Study:
    r"""Runs the workers and prints the best trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24, help="trials of all processes together")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--journal", type=Path, help="file of the study (default: a temporary one)")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = options.journal or Path(folder) / "study.log"
        study = open_study(path)
        shares = [options.trials // options.workers + (i < options.trials % options.workers)
                  for i in range(options.workers)]  # fmt: skip
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=work, args=(path, share)) for share in shares]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            if worker.exitcode:
                raise SystemExit(f"a worker has failed with exit status {worker.exitcode}")
        trials = study.trials
    best = min(trials, key=lambda trial: trial.value or math.inf)
    print(f"{len(trials)} trials, {len({tuple(trial.params.items()) for trial in trials})} of them distinct")
    print(f"best: trial {best.number} with an error of {best.value:.3f}: {best.params}")
    return study


if __name__ == "__main__":
    main()
