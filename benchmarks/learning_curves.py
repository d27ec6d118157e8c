r"""Learning-curve prediction and early stopping on published curves, compared with Baker et al. (2017).

    python benchmarks/learning_curves.py --data FOLDER --workers 16     # everything, 20 minutes on 16 cores
    python benchmarks/learning_curves.py --data FOLDER --fast           # few repeats, minutes
    python benchmarks/learning_curves.py --data FOLDER --only stopping --minutes 8

``FOLDER`` holds ``baker2017/*.csv`` (https://github.com/MITAutoML/accelerating_nas) and ``naap440/naap440.csv``
(https://github.com/talcs/NAAP-440). Work is cut into single repeats, each in a process with one thread. Every cell of a
table keeps its repeats in a CSV under ``--cells``, written as they come: a run that was interrupted or that ran out of
``--minutes`` goes on where it stopped, and more ``--repeats`` add to those that are there. Tables and plots are made
from all repeats found, and go to ``--output`` and ``--plots``.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from _timing import RESULTS, machine
from numpy.typing import NDArray
from scipy.stats import kendalltau

from pyg_nas_np.curves import (
    BayesianCurveNet,
    CurveConvNP,
    CurvePredictor,
    EarlyStopping,
    FastHyperband,
    Hyperband,
    LastSeenValue,
    ParametricExtrapolation,
    RacingHyperband,
    RecordedRun,
    SequentialRegression,
    replay,
)
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.curves.features import FEATURES
from pyg_nas_np.curves.readers import read_baker, read_naap440
from pyg_nas_np.utils import MissingExtraError, atomic_path, require

SETS = ("metaqnn_cifar10", "deep_resnets_cifar10", "deep_resnets_tinyimagenet", "lstm_ptb", "naap440")
TRAINING = 100
FIRST_SEED = 100  # Of the splits and orderings; models were chosen on those of seeds below 50.
PAPER = {
    ("metaqnn_cifar10", "svr-rbf"): (0.9422, 0.0025),
    ("metaqnn_cifar10", "svr-linear"): (0.9444, 0.0014),
    ("metaqnn_cifar10", "forest"): (0.9227, 0.0091),
    ("metaqnn_cifar10", "ols"): (0.9322, 0.011),
    ("deep_resnets_tinyimagenet", "svr-rbf"): (0.8578, 0.0182),
    ("deep_resnets_tinyimagenet", "svr-linear"): (0.918, 0.011),
    ("deep_resnets_tinyimagenet", "forest"): (0.9137, 0.0218),
    ("deep_resnets_tinyimagenet", "ols"): (0.9015, 0.018),
    ("lstm_ptb", "svr-rbf"): (0.8329, 0.0771),
    ("lstm_ptb", "svr-linear"): (0.9859, 0.008),
    ("lstm_ptb", "forest"): (0.9138, 0.0197),
    ("lstm_ptb", "ols"): (0.898, 0.0016),
}
r"""Table 1 of the paper: R² at 25 % of the curve with its standard error."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    r"""What one row of a table is computed from.

    Args:
        name: Of its file.
        labels: The first columns of its row.
        work: Computes the rows of one repeat; it is pickled.
        repeats: How many there are to be.
        seconds: Roughly what a repeat takes. The longest start first, so that none runs alone at the end.
    """

    name: str
    labels: Row
    work: Callable[[int], Iterator[Row]]
    repeats: int
    seconds: float = 1.0


def load(folder: Path, name: str) -> LearningCurves:
    if name == "naap440":
        return read_naap440(folder / "naap440" / "naap440.csv")
    trained = name in ("deep_resnets_cifar10", "lstm_ptb")
    return read_baker(folder / "baker2017" / f"{name}.csv", first_epoch=1 if trained else None)


SEARCHED = ("svr-rbf", "svr-linear", "forest", "boosting", "gp", "ensemble")
"""Regressors with a random search."""

SECONDS = {
    "parametric": 60.0,
    "bayesian-net": 20.0,
    "convnp": 20.0,
    "boosting": 20.0,
    "forest": 20.0,
    "ensemble": 8.0,
    "gp": 0.5,
    "ols": 0.5,
}

LCE_TESTED = 60
"""Curves of each test set that the parametric extrapolation is tried on: it fits each of them alone."""


def make_model(kind: str, draws: int, seed: int, features: Sequence[str] = FEATURES) -> CurvePredictor:
    if kind == "convnp":
        return CurveConvNP(steps=600, random_state=seed)
    if kind == "last-value":
        return LastSeenValue()
    if kind == "parametric":
        return ParametricExtrapolation()
    if kind == "bayesian-net":
        return BayesianCurveNet(random_state=seed)
    # The paper's regressors are measured as they are there, ours with what we added.
    stuck = None if kind in ("ols", "svr-rbf", "svr-linear", "forest") else 5
    return SequentialRegression(kind, features=features, draws=draws, stuck=stuck, random_state=seed)


def ordering(curves: LearningCurves, repeat: int) -> NDArray[np.int64]:
    return np.random.default_rng(FIRST_SEED + repeat).permutation(len(curves))


def r2_rows(
    repeat: int, curves: LearningCurves, kind: str, draws: int, fraction: float, features: Sequence[str] = FEATURES
) -> Iterator[Row]:
    tau, order = curves.prefix(fraction), ordering(curves, repeat)
    train, test = curves[order[:TRAINING]], curves[order[TRAINING:]]
    if kind == "parametric":
        test = test[:LCE_TESTED]
    start = time.perf_counter()
    model = make_model(kind, draws, repeat, features).fit(train)
    model.predict(train[:1], tau)  # What is fitted when first asked for belongs to the training.
    fitted = time.perf_counter()
    mean, std = model.predict(test, tau, return_std=True)
    done = time.perf_counter()
    error = mean - test.final
    yield {
        "tau": tau,
        "r2": 1.0 - np.square(error).sum() / np.square(test.final - test.final.mean()).sum(),
        "kendall_tau": kendalltau(mean, test.final).statistic,
        "coverage_90": np.mean(np.abs(error) <= 1.645 * std),
        "fit_seconds": fitted - start,
        "predict_seconds": (done - fitted) / len(test),
        "tested": len(test),
    }


DELTAS = (0.8, 0.9, 0.95, 0.99)


def stopping_rows(repeat: int, curves: LearningCurves, burn_in: int, regressor: str, draws: int) -> Iterator[Row]:
    order = ordering(curves, repeat)
    first: EarlyStopping | None = None
    for delta in DELTAS:
        model = SequentialRegression(regressor, draws=draws)
        rule = EarlyStopping(curves.epochs, curves.direction, model, delta=delta, burn_in=burn_in)
        if first is not None:
            rule.adopt(first)  # The burn-in is the same, and so is what is fitted to it.
        result = replay(curves, order, rule, checks=20)
        first = rule
        yield {"delta": delta, "speedup": result.speedup, "regret": result.regret}


def pruner_rows(repeat: int, curves: LearningCurves, name: str) -> Iterator[Row]:
    r"""Optuna's pruners on the same orderings; successive halving is asynchronous (the ASHA rule)."""
    optuna = require("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    total, order = len(curves.epochs), ordering(curves, repeat)
    made = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=10),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=total),
        "patient-median": lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(n_startup_trials=10), 2),
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    }
    direction = "maximize" if curves.direction == "up" else "minimize"
    study = optuna.create_study(direction=direction, pruner=made[name](), study_name=f"{name}-{repeat}")
    spent, best = 0, -np.inf
    for i in order.tolist():
        trial = study.ask()
        for step, value in enumerate(curves.values[i].tolist(), start=1):
            spent += 1
            trial.report(value, step)
            if step < total and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(curves.final[i]))
            best = max(best, float(curves.sign * curves.final[i]))
    regret = float((curves.sign * curves.final).max() - best)
    yield {"speedup": total * len(order) / spent, "regret": regret}


def ray_rows(repeat: int, curves: LearningCurves) -> Iterator[Row]:
    r"""Ray Tune's asynchronous successive halving (ASHA), its scheduler alone, fed one training after the other."""
    schedulers = require("ray.tune.schedulers", "ray")
    total, order = len(curves.epochs), ordering(curves, repeat)
    mode = "max" if curves.direction == "up" else "min"
    scheduler = schedulers.AsyncHyperBandScheduler(
        metric="value", mode=mode, max_t=total, grace_period=1, reduction_factor=3
    )
    spent, best = 0, -np.inf
    for i in order.tolist():
        trial = SimpleNamespace(trial_id=str(i))
        scheduler.on_trial_add(None, trial)
        for step, value in enumerate(curves.values[i].tolist(), start=1):
            spent += 1
            result = {"value": value, "training_iteration": step}
            if step < total and scheduler.on_trial_result(None, trial, result) == "STOP":
                break
        else:
            best = max(best, float(curves.sign * curves.final[i]))
        scheduler.on_trial_remove(None, trial)
    regret = float((curves.sign * curves.final).max() - best)
    yield {"speedup": total * len(order) / spent, "regret": regret}


BUDGETS = (30, 50, 100)
OPTUNA_PRUNERS: dict[str, Callable[[Any, int], Any]] = {
    "median": lambda p, total: p.MedianPruner(),
    "hyperband": lambda p, total: p.HyperbandPruner(min_resource=1, max_resource=total),
    "patient": lambda p, total: p.PatientPruner(p.MedianPruner(), 2),
    "halving": lambda p, total: p.SuccessiveHalvingPruner(),
}
"""With Optuna's defaults, but for Hyperband, which must be told how long a training is."""


def own_trainer(curves: LearningCurves, rule: EarlyStopping) -> Callable[[int], int]:
    total = len(curves.epochs)
    prefixes = np.unique(np.linspace(1, total - 1, min(20, total - 1)).round().astype(int)).tolist()

    def train(i: int) -> int:
        one = curves[[i]]
        for tau in prefixes if rule.why_idle() is None else []:
            if rule.decide_all(one.truncate(tau))[0].stop:
                return tau
        rule.finish_all(one)
        return total

    return train


def optuna_trainer(curves: LearningCurves, name: str, repeat: int) -> Callable[[int], int]:
    optuna = require("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    total = len(curves.epochs)
    direction = "maximize" if curves.direction == "up" else "minimize"
    pruner = OPTUNA_PRUNERS[name](optuna.pruners, total)
    study = optuna.create_study(direction=direction, pruner=pruner, study_name=f"{name}-{repeat}")

    def train(i: int) -> int:
        trial = study.ask()
        for step, value in enumerate(curves.values[i].tolist(), start=1):
            trial.report(value, step)
            if step < total and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return step
        study.tell(trial, float(curves.final[i]))
        return total

    return train


def ray_trainer(curves: LearningCurves) -> Callable[[int], int]:
    total = len(curves.epochs)
    scheduler = require("ray.tune.schedulers", "ray").AsyncHyperBandScheduler(
        metric="value", mode="max" if curves.direction == "up" else "min", max_t=total, reduction_factor=3
    )

    def train(i: int) -> int:
        trial = SimpleNamespace(trial_id=str(i))
        scheduler.on_trial_add(None, trial)
        spent = total
        for step, value in enumerate(curves.values[i].tolist(), start=1):
            result = {"value": value, "training_iteration": step}
            if step < total and scheduler.on_trial_result(None, trial, result) == "STOP":
                spent = step
                break
        scheduler.on_trial_remove(None, trial)
        return spent

    return train


def trainer(curves: LearningCurves, rule: str, repeat: int) -> Callable[[int], int]:
    r"""Trains one configuration under a rule and returns the number of epochs."""
    if rule == "Ray ASHA":
        return ray_trainer(curves)
    if rule.startswith("Optuna "):
        return optuna_trainer(curves, rule.removeprefix("Optuna "), repeat)
    made: dict[str, Callable[[], EarlyStopping]] = {
        "default": lambda: EarlyStopping(curves.epochs, curves.direction),
        "default, delta 0.99": lambda: EarlyStopping(curves.epochs, curves.direction, delta=0.99),
        "burn-in 40": lambda: EarlyStopping(curves.epochs, curves.direction, burn_in=40),
    }
    return own_trainer(curves, made[rule]())


BUDGET_RULES = (
    "default",
    "default, delta 0.99",
    "burn-in 40",
    *(f"Optuna {name}" for name in OPTUNA_PRUNERS),
    "Ray ASHA",
)


def budget_rows(repeat: int, curves: LearningCurves, rule: str, equal: bool = True) -> Iterator[Row]:
    r"""A search of few trainings: what it saves and loses, and what it finds with the epochs of full trainings."""
    total, order = len(curves.epochs), ordering(curves, repeat)
    train, final = trainer(curves, rule, repeat), (curves.sign * curves.final)[order]
    spent: list[int] = []
    # First as many configurations as the largest budget, then on until the epochs of the middle one are used.
    while len(spent) < len(order) and (len(spent) < BUDGETS[-1] or (equal and sum(spent) < BUDGETS[1] * total)):
        spent.append(train(int(order[len(spent)])))
    epochs = np.array(spent)
    used, full = epochs.cumsum(), epochs == total

    def regret(count: int, best: float) -> float:
        done = final[:count][full[:count]]
        return best - float(done.max() if len(done) else final.min())

    for budget in BUDGETS:
        row: Row = {"trainings": budget, "speedup": budget * total / used[budget - 1]}
        row["regret"] = regret(budget, float(final[:budget].max()))
        fits = int((used <= budget * total).sum())
        known = used[-1] >= budget * total or len(spent) == len(order)
        row["equal_epochs_regret"] = regret(fits, float(final.max())) if known else float("nan")
        yield row


FORMS = {
    "fast, kappa 1/eta": lambda epochs, direction: FastHyperband(epochs, direction),
    "fast, kappa 0.1": lambda epochs, direction: FastHyperband(epochs, direction, kappa=0.1),
    "racing, delta 0.95": lambda epochs, direction: RacingHyperband(epochs, direction),
    "racing, delta 0.9": lambda epochs, direction: RacingHyperband(epochs, direction, delta=0.9),
}


def hyperband_rows(repeat: int, curves: LearningCurves, form: str, searches: int) -> Iterator[Row]:
    r"""Consecutive searches; the fast forms remember those before."""
    rng = np.random.default_rng(FIRST_SEED + repeat)
    epochs = len(curves.epochs)
    plain = Hyperband(epochs, curves.direction)
    fast = FORMS[form](epochs, curves.direction)
    for number in range(searches):
        order = rng.integers(len(curves), size=plain.num_configs)
        results = [s.search(lambda n, o=order: RecordedRun(curves, int(o[n]))) for s in (plain, fast)]
        yield {
            "search": number,
            "plain_epochs": results[0].epochs,
            "fast_epochs": results[1].epochs,
            "plain_value": results[0].value,
            "fast_value": results[1].value,
        }


def file_of(cell: Cell, folder: Path) -> Path:
    return folder / f"{cell.name}.csv"


def number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{name: number(value) for name, value in row.items()} for row in csv.DictReader(file)]


def write(path: Path, rows: Sequence[Row]) -> None:
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as tmp, open(tmp, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def one_thread() -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)


def repeat_rows(work: Callable[[int], Iterator[Row]], repeat: int) -> list[Row]:
    return [{"repeat": repeat, **row} for row in work(repeat)]


def compute(cells: Sequence[Cell], folder: Path, workers: int, minutes: float) -> int:
    r"""Computes what the files lack, first repeats first, and returns the number of failures."""
    start, run = time.monotonic(), int(time.time())
    jobs = [
        (cell, repeat)
        for cell in cells
        for repeat in sorted({*range(cell.repeats)} - {int(row["repeat"]) for row in read(file_of(cell, folder))})
    ]
    jobs.sort(key=lambda job: (-job[1], job[0].seconds))  # Taken from the end.
    print(f"{len(jobs)} repeats to compute with {workers} workers", flush=True)
    if not jobs:
        return 0
    # Read by the numeric libraries when a worker imports them.
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
    running: dict[Future[list[Row]], tuple[Cell, int, float]] = {}
    failures = 0
    with ProcessPoolExecutor(workers, get_context("spawn"), one_thread) as pool:
        while True:
            while jobs and len(running) < workers and time.monotonic() - start < 60 * minutes:
                cell, repeat = jobs.pop()
                future = pool.submit(repeat_rows, cell.work, repeat)
                running[future] = cell, repeat, time.monotonic()
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, repeat, began = running.pop(future)
                now = time.monotonic()
                took = f"  [{now - start:6.0f} s] {cell.name}, repeat {repeat}: {now - began:.1f} s"
                try:
                    rows = [row | {"run": run} for row in future.result()]
                except MissingExtraError as error:
                    print(f"{took}, left out: {error}", flush=True)
                    continue
                except Exception as error:  # One failure must not cost the others.
                    failures += 1
                    print(
                        f"{took}, failed:",
                        *traceback.format_exception(error, chain=False),
                        error.__cause__ or "",
                        flush=True,
                    )
                    continue
                path = file_of(cell, folder)
                write(path, sorted(read(path) + rows, key=lambda row: row["repeat"]))
                print(took, flush=True)
    if jobs:
        print(f"out of time: {len(jobs)} repeats are missing", flush=True)
    return failures


def mean_and_error(rows: Sequence[Row], name: str) -> tuple[float, float]:
    values = np.array([row[name] for row in rows])
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def r2_cells(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> Iterator[Cell]:
    r"""R² by set, model and share of the curve that is seen."""
    fractions = args.fractions or ((0.25,) if args.fast else (0.05, 0.1, 0.25, 0.5, 0.75))
    kinds = ["last-value", "ols", *SEARCHED, "convnp", "parametric", "bayesian-net"]
    for name, curves in sets.items():
        for kind in kinds:
            if args.models and kind not in args.models:
                continue
            slow = kind in ("parametric", "bayesian-net")
            draws = args.draws if kind in SEARCHED else 1
            for fraction in fractions:
                # The table is about a quarter of the curve; the other shares are for the plot.
                most = (3 if slow else args.repeats) if fraction == 0.25 else (1 if slow else 3)
                yield Cell(
                    f"r2-{name}-{kind}-{fraction}" + (f"-{draws}" if kind in SEARCHED else ""),
                    {"set": name, "model": kind, "draws": draws if kind in SEARCHED else "", "fraction": fraction},
                    partial(r2_rows, curves=curves, kind=kind, draws=draws, fraction=fraction),
                    min(args.repeats, most),
                    SECONDS.get(kind, 3.0 if kind in SEARCHED else 0.5),
                )


def r2_table(args: argparse.Namespace, filled: Sequence[tuple[Cell, list[Row]]]) -> None:
    table: list[Row] = []
    print(
        f"{'set':<27}{'model':<14}{'seen':>5}{'R²':>8}{'± se':>7}{'median':>8}{'paper':>8}{'tau':>7}{'cover':>7}"
        f"{'fit s':>8}{'µs each':>10}{'tested':>8}{'repeats':>9}"
    )
    for cell, rows in filled:
        mean, error = mean_and_error(rows, "r2")
        row = cell.labels | {"r2": round(mean, 4), "r2_se": round(error, 4)}
        row["r2_median"] = round(float(np.median([r["r2"] for r in rows])), 4)
        row["paper"] = PAPER.get((row["set"], row["model"]), ("",))[0] if row["fraction"] == 0.25 else ""
        for key in ("kendall_tau", "coverage_90", "fit_seconds", "predict_seconds"):
            row[key] = float(f"{mean_and_error(rows, key)[0]:.4g}")
        row |= {"tested": int(max(r["tested"] for r in rows)), "repeats": len(rows)}
        table.append(row)
        print(
            f"{row['set']:<27}{row['model']:<14}{row['fraction']:>5.0%}{mean:>8.3f}{error:>7.3f}{row['r2_median']:>8.3f}"
            f"{row['paper']!s:>8}{row['kendall_tau']:>7.3f}{row['coverage_90']:>7.2f}{row['fit_seconds']:>8.2f}"
            f"{1e6 * row['predict_seconds']:>10.1f}{row['tested']:>8}{row['repeats']:>9}"
        )
    write(args.output / "learning_curves_r2.csv", table)
    print_speed(args, filled)
    if table and not args.fast:
        plot_r2(args.plots / "curves_r2.png", table)


def print_speed(args: argparse.Namespace, filled: Sequence[tuple[Cell, list[Row]]]) -> None:
    r"""Prints training and predictions of the regressors against LCE, repeats of the same run only."""
    quarter = {(c.labels["set"], c.labels["model"]): rows for c, rows in filled if c.labels["fraction"] == 0.25}
    table: list[Row] = []
    for (name, kind), ours in quarter.items():
        if kind not in ("ols", *SEARCHED):
            continue
        theirs = {(row["run"], row["repeat"]): row for row in quarter.get((name, "parametric"), [])}
        ratios = [
            row["tested"] * theirs[pair]["predict_seconds"]
            / (row["fit_seconds"] + row["tested"] * row["predict_seconds"])
            for row in ours if (pair := (row["run"], row["repeat"])) in theirs
        ]  # fmt: skip
        if ratios:
            row = {"set": name, "model": kind, "predictions": int(ours[0]["tested"]), "repeats": len(ratios)}
            table.append(row | {"times_faster_than_lce": round(float(np.median(ratios)), 1)})
            print(
                f"{name}: training and {row['predictions']} predictions of {kind} are {np.median(ratios):.0f}x faster "
                f"than LCE (median of {len(ratios)})"
            )
    write(args.output / "learning_curves_speed.csv", table)


def features_cells(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> Iterator[Cell]:
    r"""Table 2 of the paper: which features carry the prediction."""
    for name, curves in sets.items():
        for features in (("TS",), ("AP",), ("HP",), ("TS", "AP"), ("AP", "HP"), ("TS", "AP", "HP")):
            if ("HP" in features and not curves.hyperparameters) or ("AP" in features and not curves.architecture):
                continue
            label = "+".join(features)
            yield Cell(
                f"features-{name}-{label}-{args.draws}",
                {"set": name, "features": label, "draws": args.draws},
                partial(r2_rows, curves=curves, kind="svr-rbf", draws=args.draws, fraction=0.25, features=features),
                args.repeats,
                3.0,
            )


def features_table(args: argparse.Namespace, filled: Sequence[tuple[Cell, list[Row]]]) -> None:
    table: list[Row] = []
    for cell, rows in filled:
        mean, error = mean_and_error(rows, "r2")
        table.append(cell.labels | {"r2": round(mean, 4), "r2_se": round(error, 4), "repeats": len(rows)})
        print(f"{cell.labels['set']:<27}{cell.labels['features']:<12}{mean:>8.3f} ± {error:.3f} ({len(rows)} repeats)")
    write(args.output / "learning_curves_features.csv", table)


SEARCHES = ("metaqnn_cifar10", "deep_resnets_tinyimagenet", "deep_resnets_cifar10")
"""Data sets from a search over networks."""


def stopping_cells(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> Iterator[Cell]:
    r"""Speed-up and regret of simulated searches."""
    for name in (name for name in SEARCHES if name in sets):
        curves = sets[name]
        for regressor in ("gp",) if args.fast else ("gp", "svr-rbf", "ols"):
            if args.models and regressor not in args.models:
                continue
            for burn_in in (100, 40):
                yield Cell(
                    f"stopping-{name}-{regressor}-{burn_in}-{args.draws}",
                    {"set": name, "rule": f"{regressor}, burn-in {burn_in}"},
                    partial(stopping_rows, curves=curves, burn_in=burn_in, regressor=regressor, draws=args.draws),
                    args.repeats,
                    20 * SECONDS.get(regressor, 3.0),
                )
        for pruner in ("median", "hyperband", "patient-median", "asha"):
            yield Cell(
                f"stopping-{name}-optuna-{pruner}",
                {"set": name, "rule": f"Optuna {pruner}"},
                partial(pruner_rows, curves=curves, name=pruner),
                args.repeats,
                100.0,
            )
        yield Cell(
            f"stopping-{name}-ray", {"set": name, "rule": "Ray ASHA"}, partial(ray_rows, curves=curves), args.repeats
        )


def stopping_table(args: argparse.Namespace, filled: Sequence[tuple[Cell, list[Row]]]) -> None:
    table: list[Row] = []
    print(f"{'set':<27}{'rule':<34}{'speed-up':>9}{'(median)':>9}{'regret':>8}{'(median)':>9}{'none lost':>10}")
    for cell, rows in filled:
        for delta in dict.fromkeys(row.get("delta", "") for row in rows):
            chosen = [row for row in rows if row.get("delta", "") == delta]
            speed, regret = (np.array([row[key] for row in chosen]) for key in ("speedup", "regret"))
            row = cell.labels | {"delta": delta, "speedup": round(float(speed.mean()), 3)}
            row |= {"speedup_median": round(float(np.median(speed)), 3), "regret": round(float(regret.mean()), 5)}
            row |= {"regret_median": round(float(np.median(regret)), 5), "kept_best": int((regret == 0).sum())}
            table.append(row | {"orderings": len(chosen)})
            rule = f"{row['rule']} {delta}"
            print(
                f"{row['set']:<27}{rule:<34}{row['speedup']:>9.2f}{row['speedup_median']:>9.2f}"
                f"{row['regret']:>8.4f}{row['regret_median']:>9.4f}{row['kept_best']:>7}/{len(chosen)}"
            )
    write(args.output / "learning_curves_stopping.csv", table)
    if table and not args.fast:
        plot_stopping(args.plots / "curves_stopping.png", table)


def budget_cells(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> Iterator[Cell]:
    r"""Searches of 30, 50 and 100 trainings."""
    for name, curves in sets.items():
        for rule in BUDGET_RULES:
            if args.models and rule not in args.models:
                continue
            yield Cell(
                f"budget-{name}-{re.sub('[^a-z0-9.]+', '-', rule.lower())}",
                {"set": name, "rule": rule},
                partial(budget_rows, curves=curves, rule=rule, equal="delta" not in rule),
                args.repeats,
                10.0,
            )


def budget_table(args: argparse.Namespace, filled: Sequence[tuple[Cell, list[Row]]]) -> None:
    table: list[Row] = []
    print(
        f"{'set':<27}{'rule':<20}{'trainings':>10}{'speed-up':>9}{'regret':>9}{'(mean)':>9}{'kept best':>11}"
        f"{'equal epochs':>14}{'(mean)':>9}"
    )
    for cell, rows in filled:
        for budget in BUDGETS:
            chosen = [row for row in rows if row["trainings"] == budget]
            row = cell.labels | {"trainings": budget}
            for key, digits in (("speedup", 3), ("regret", 5), ("equal_epochs_regret", 5)):
                values = np.array([r[key] for r in chosen])
                known = bool(np.isfinite(values).all())
                row[f"{key}_median"] = round(float(np.median(values)), digits) if known else ""
                row[f"{key}_mean"] = round(float(values.mean()), digits) if known else ""
            row |= {"kept_best": sum(r["regret"] == 0 for r in chosen), "orderings": len(chosen)}
            table.append(row)
            print(
                f"{row['set']:<27}{row['rule']:<20}{budget:>10}{row['speedup_median']:>9.2f}{row['regret_median']:>9.4f}"
                f"{row['regret_mean']:>9.4f}{row['kept_best']:>8}/{len(chosen):<2}{row['equal_epochs_regret_median']!s:>14}"
                f"{row['equal_epochs_regret_mean']!s:>9}"
            )
    write(args.output / "learning_curves_budget.csv", table)


def hyperband_cells(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> Iterator[Cell]:
    r"""Consecutive runs of Hyperband and of its fast forms on the same configurations."""
    for name in (name for name in SEARCHES if name in sets):
        for form in FORMS:
            yield Cell(
                f"hyperband-{name}-{re.sub('[^a-z0-9.]+', '-', form)}-{args.searches}",
                {"set": name, "form": form},
                partial(hyperband_rows, curves=sets[name], form=form, searches=args.searches),
                min(args.repeats, 3),
                300.0,
            )


def hyperband_table(args: argparse.Namespace, filled: Sequence[tuple[Cell, list[Row]]]) -> None:
    table: list[Row] = []
    print(
        f"{'set':<27}{'form':<20}{'speed-up':>9}{'last 10':>9}{'plain':>8}{'fast':>8}{'gap ± se':>17}{'searches':>10}"
    )

    def speedup(rows: Sequence[Row]) -> float:
        return round(sum(row["plain_epochs"] for row in rows) / sum(row["fast_epochs"] for row in rows), 3)

    for cell, rows in filled:
        last = max(row["search"] for row in rows)
        row = cell.labels | {"speedup": speedup(rows)}
        row["speedup_last_10"] = speedup([r for r in rows if r["search"] > last - 10])
        row |= {f"{kind}_value": round(mean_and_error(rows, f"{kind}_value")[0], 4) for kind in ("plain", "fast")}
        gap, error = mean_and_error([{"gap": r["fast_value"] - r["plain_value"]} for r in rows], "gap")
        row |= {"gap": round(gap, 4), "gap_se": round(error, 4), "searches": len(rows)}
        row["repeats"] = len({r["repeat"] for r in rows})
        table.append(row)
        print(
            f"{row['set']:<27}{row['form']:<20}{row['speedup']:>9.2f}{row['speedup_last_10']:>9.2f}"
            f"{row['plain_value']:>8.4f}{row['fast_value']:>8.4f}{gap:>9.4f} ±{error:.4f}{len(rows):>10}"
        )
    write(args.output / "learning_curves_hyperband.csv", table)


def plot_r2(path: Path, table: Sequence[Row]) -> None:
    figure_module = require("matplotlib.figure", "viz")
    names = list(dict.fromkeys(row["set"] for row in table))
    figure = figure_module.Figure(figsize=(3.6 * len(names), 3.6), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        for number, model in enumerate(dict.fromkeys(row["model"] for row in table)):
            rows = [row for row in table if row["set"] == name and row["model"] == model]
            style = {"color": f"C{number % 10}", "linestyle": "--" if number >= 10 else "-", "marker": "o", "ms": 3}
            axes.plot([row["fraction"] for row in rows], [row["r2"] for row in rows], label=model, **style)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 1)
        axes.set_xlabel("share of the curve seen")
    figure.axes[0].set_ylabel("R² of the final value")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=11, fontsize=8)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=130)


def plot_stopping(path: Path, table: Sequence[Row]) -> None:
    names = list(dict.fromkeys(row["set"] for row in table))
    figure = require("matplotlib.figure", "viz").Figure(figsize=(4 * len(names), 5), layout="constrained")
    grid = figure.subplots(2, len(names), sharex=True, squeeze=False)
    for column, name in enumerate(names):
        for rule in dict.fromkeys(row["rule"] for row in table if row["delta"] != ""):
            rows = [row for row in table if (row["set"], row["rule"]) == (name, rule)]
            for axes, key in zip(grid[:, column], ("speedup_median", "regret"), strict=True):
                axes.plot([row["delta"] for row in rows], [row[key] for row in rows], marker="o", ms=3, label=rule)
        for row in table:
            if row["set"] == name and row["delta"] == "":
                for axes, key in zip(grid[:, column], ("speedup_median", "regret"), strict=True):
                    axes.axhline(row[key], lw=0.8, ls=":", color="0.5")
                    axes.annotate(row["rule"], (0.8, row[key]), fontsize=6, color="0.4", va="bottom")
        grid[0, column].set_title(name, fontsize=9)
        grid[1, column].set_xlabel("Δ")
    grid[0, 0].set_ylabel("speed-up (median ordering)")
    grid[1, 0].set_ylabel("regret (mean)")
    grid[0, -1].legend(fontsize=6, frameon=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=110)


PARTS = {
    "r2": (r2_cells, r2_table),
    "features": (features_cells, features_table),
    "stopping": (stopping_cells, stopping_table),
    "budget": (budget_cells, budget_table),
    "hyperband": (hyperband_cells, hyperband_table),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with baker2017/ and naap440/")
    parser.add_argument("--fast", action="store_true", help="a quarter of the curve only, 3 repeats, one stopping rule")
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=list(PARTS), help="parts to run")
    parser.add_argument("--sets", choices=SETS, nargs="+", default=list(SETS), help="curves")
    parser.add_argument("--models", nargs="+", help="models of the parts 'r2' and 'stopping', rules of 'budget'")
    parser.add_argument("--fractions", type=float, nargs="+", help="shares of the curve of the part 'r2'")
    parser.add_argument("--draws", type=int, default=100, help="settings that a random search tries; the paper: 1,000")
    parser.add_argument(
        "--repeats",
        type=int,
        help="splits or orderings; other shares than a quarter take 3, slow models 3 and 1 (default: 10)",
    )
    parser.add_argument("--searches", type=int, default=40, help="consecutive searches of the part 'hyperband'")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no repeat after; 0: tables alone")
    parser.add_argument("--cells", type=Path, default=Path("out/learning_curves"), help="folder of finished repeats")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of tables")
    parser.add_argument("--plots", type=Path, default=RESULTS.parents[1] / "docs", help="folder of plots")
    args = parser.parse_args()
    args.repeats = args.repeats or (3 if args.fast else 10)
    print(machine())
    sets = {name: load(args.data, name) for name in args.sets}
    plan = {part: list(PARTS[part][0](args, sets)) for part in args.only}
    failures = compute([cell for cells in plan.values() for cell in cells], args.cells, args.workers, args.minutes)
    for part, cells in plan.items():
        print(f"\n{part}")
        filled = [(cell, rows) for cell in cells if (rows := read(file_of(cell, args.cells)))]
        PARTS[part][1](args, filled)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
