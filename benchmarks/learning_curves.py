r"""Learning-curve prediction and early stopping on published curves, beside the numbers of Baker et al. (2017).

    python benchmarks/learning_curves.py --data FOLDER            # everything, hours
    python benchmarks/learning_curves.py --data FOLDER --fast     # few repeats, minutes
    python benchmarks/learning_curves.py --data FOLDER --only stopping

``FOLDER`` holds ``baker2017/*.csv`` (https://github.com/MITAutoML/accelerating_nas) and ``naap440/naap440.csv``
(https://github.com/talcs/NAAP-440). Every cell of a table is a CSV of its own under ``--cells``: a run that was
interrupted goes on where it stopped. Tables and plots go to ``--output``.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from _timing import RESULTS, machine
from scipy.stats import kendalltau

from pyg_nas_np.datasets.curve_files import read_baker, read_naap440
from pyg_nas_np.datasets.curves import LearningCurves
from pyg_nas_np.predictors.curves import (
    BayesianCurveNet,
    CurveConvNP,
    CurvePredictor,
    LastSeenValue,
    ParametricExtrapolation,
    SequentialRegression,
)
from pyg_nas_np.search import EarlyStopping, FastHyperband, Hyperband, RecordedRun, replay
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
Cell = Callable[[], Iterable[Row]]


def load(folder: Path, name: str) -> LearningCurves:
    if name == "naap440":
        return read_naap440(folder / "naap440" / "naap440.csv")
    trained = name in ("deep_resnets_cifar10", "lstm_ptb")
    return read_baker(folder / "baker2017" / f"{name}.csv", first_epoch=1 if trained else None)


def models(fast: bool, draws: int) -> dict[str, Callable[[int], CurvePredictor]]:
    kinds = ("ols", "svr-rbf", "svr-linear", "gp", "ensemble", *(() if fast else ("forest", "boosting")))
    made: dict[str, Callable[[int], CurvePredictor]] = {
        kind: lambda seed, kind=kind: SequentialRegression(  # type: ignore[misc]
            kind,
            draws=min(draws, 200) if kind in ("gp", "ensemble", "boosting", "forest") else draws,
            random_state=seed,
        )
        for kind in kinds
    }
    return made | {
        "convnp": lambda seed: CurveConvNP(steps=200 if fast else 600, random_state=seed),
        "last-value": lambda seed: LastSeenValue(),
        "parametric": lambda seed: ParametricExtrapolation(),
        "bayesian-net": lambda seed: BayesianCurveNet(random_state=seed),
    }


def r2_rows(
    curves: LearningCurves, make: Callable[[int], CurvePredictor], fraction: float, repeats: int, most: int
) -> Iterable[Row]:
    tau = curves.prefix(fraction)
    for repeat in range(repeats):
        order = np.random.default_rng(FIRST_SEED + repeat).permutation(len(curves))
        train, test = curves[order[:TRAINING]], curves[order[TRAINING : TRAINING + most]]
        start = time.perf_counter()
        model = make(repeat).fit(train)
        model.predict(train[:1], tau)  # What is fitted when first asked for belongs to the training.
        fitted = time.perf_counter()
        mean, std = model.predict(test, tau, return_std=True)
        done = time.perf_counter()
        error = mean - test.final
        yield {
            "repeat": repeat,
            "tau": tau,
            "r2": 1.0 - np.square(error).sum() / np.square(test.final - test.final.mean()).sum(),
            "kendall_tau": kendalltau(mean, test.final).statistic,
            "coverage_90": np.mean(np.abs(error) <= 1.645 * std),
            "fit_seconds": fitted - start,
            "predict_seconds": (done - fitted) / len(test),
            "tested": len(test),
        }


DELTAS = (0.8, 0.9, 0.95, 0.99)


def stopping_rows(curves: LearningCurves, burn_in: int, regressor: str, orderings: int, draws: int) -> Iterable[Row]:
    for ordering in range(orderings):
        order = np.random.default_rng(FIRST_SEED + ordering).permutation(len(curves))
        first: EarlyStopping | None = None
        for delta in DELTAS:
            model = SequentialRegression(regressor, draws=draws)
            rule = EarlyStopping(curves.epochs, curves.direction, model, delta=delta, burn_in=burn_in)
            if first is not None:
                rule.adopt(first)  # The burn-in is the same, and so is what is fitted to it.
            result = replay(curves, order, rule, checks=20)
            first = rule
            yield {"ordering": ordering, "delta": delta, "speedup": result.speedup, "regret": result.regret}


def pruner_rows(curves: LearningCurves, name: str, orderings: int) -> Iterable[Row]:
    r"""Optuna's pruners on the same orderings; successive halving is asynchronous (the ASHA rule)."""
    optuna = require("optuna", "search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    total = len(curves.epochs)
    made = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=10),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=total),
        "patient-median": lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(n_startup_trials=10), 2),
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    }
    direction = "maximize" if curves.direction == "up" else "minimize"
    for ordering in range(orderings):
        order = np.random.default_rng(FIRST_SEED + ordering).permutation(len(curves))
        study = optuna.create_study(direction=direction, pruner=made[name](), study_name=f"{name}-{ordering}")
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
        yield {"ordering": ordering, "speedup": total * len(order) / spent, "regret": regret}


def ray_rows(curves: LearningCurves, orderings: int) -> Iterable[Row]:
    r"""Ray Tune's asynchronous successive halving (ASHA), its scheduler alone, fed one training after the other."""
    schedulers = require("ray.tune.schedulers", "ray")
    total = len(curves.epochs)
    mode = "max" if curves.direction == "up" else "min"
    for ordering in range(orderings):
        order = np.random.default_rng(FIRST_SEED + ordering).permutation(len(curves))
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
        yield {"ordering": ordering, "speedup": total * len(order) / spent, "regret": regret}


def hyperband_rows(curves: LearningCurves, kappa: float | None, searches: int) -> Iterable[Row]:
    rng = np.random.default_rng(FIRST_SEED)
    epochs = len(curves.epochs)
    plain = Hyperband(epochs, curves.direction)
    # The Gaussian process, because every rung and length seen has a fit of its own.
    predictor = SequentialRegression("gp", features=("TS",), draws=20)
    fast = FastHyperband(epochs, curves.direction, kappa=kappa, predictor=predictor)
    for number in range(searches):
        order = rng.integers(len(curves), size=plain.num_configs)
        results = [s.search(lambda n, o=order: RecordedRun(curves, int(o[n]))) for s in (plain, fast)]
        yield {
            "search": number,
            "plain_epochs": results[0].epochs,
            "fast_epochs": results[1].epochs,
            "plain_value": results[0].value,
            "fast_value": results[1].value,
            "all_epochs": epochs * plain.num_configs,
        }


def cell(path: Path, make: Cell) -> list[Row]:
    r"""Returns the rows of a cell, from its file where it has been computed before."""
    if not path.exists():
        start = time.perf_counter()
        rows = list(make())
        with atomic_path(path) as tmp, open(tmp, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"  {path.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def mean_and_error(rows: Sequence[Row], name: str) -> tuple[float, float]:
    values = np.array([row[name] for row in rows])
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as tmp, open(tmp, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def run_r2(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> None:
    r"""R² by set, model and share of the curve that is seen."""
    fractions = args.fractions or ((0.25,) if args.fast else (0.05, 0.1, 0.25, 0.5, 0.75))
    repeats = args.repeats or (3 if args.fast else 10)
    draws = args.draws or (100 if args.fast else 1000)
    table: list[Row] = []
    print(
        f"{'set':<27}{'model':<14}{'seen':>5}{'R²':>8}{'± se':>7}{'paper':>8}{'tau':>7}{'cover':>7}"
        f"{'fit s':>8}{'µs each':>9}"
    )
    for name, curves in sets.items():
        for model, make in models(args.fast, draws).items():
            if args.models and model not in args.models:
                continue
            # The slow comparators are tested on fewer curves: each is fitted alone.
            most = (60 if args.fast else 200) if model == "parametric" else len(curves)
            few = min(repeats, 3) if model in ("parametric", "bayesian-net") else repeats
            for fraction in fractions:
                path = args.cells / f"r2-{name}-{model}-{fraction}-{few}-{draws}.csv"
                rows = cell(path, lambda c=curves, m=make, f=fraction, r=few, n=most: r2_rows(c, m, f, r, n))
                mean, error = mean_and_error(rows, "r2")
                paper = PAPER.get((name, model), ("", ""))[0] if fraction == 0.25 else ""
                row = {
                    "set": name,
                    "model": model,
                    "fraction": fraction,
                    "r2": round(mean, 4),
                    "r2_se": round(error, 4),
                }
                row |= {"paper": paper, "repeats": len(rows)}
                for key in ("kendall_tau", "coverage_90", "fit_seconds", "predict_seconds"):
                    row[key] = float(f"{mean_and_error(rows, key)[0]:.4g}")
                table.append(row)
                print(
                    f"{name:<27}{model:<14}{fraction:>5.0%}{mean:>8.3f}{error:>7.3f}{paper!s:>8}"
                    f"{row['kendall_tau']:>7.3f}{row['coverage_90']:>7.2f}{row['fit_seconds']:>8.2f}"
                    f"{1e6 * row['predict_seconds']:>9.1f}",
                    flush=True,
                )
    write(args.output / "learning_curves_r2.csv", table)
    for name, curves in sets.items():
        cost = {row["model"]: row for row in table if row["set"] == name and row["fraction"] == 0.25}
        if not {"svr-rbf", "parametric"} <= cost.keys():
            continue
        count = len(curves) - TRAINING
        ours = cost["svr-rbf"]["fit_seconds"] + count * cost["svr-rbf"]["predict_seconds"]
        theirs = count * cost["parametric"]["predict_seconds"]
        print(f"{name}: training and {count} predictions of svr-rbf are {theirs / ours:.0f}x faster than LCE")
    if not args.fast:
        plot_r2(args.plots / "curves_r2.png", table)


def run_features(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> None:
    r"""Table 2 of the paper: which features carry the prediction."""
    groups = (("TS",), ("AP",), ("HP",), ("TS", "AP"), ("AP", "HP"), ("TS", "AP", "HP"))
    repeats = args.repeats or (3 if args.fast else 10)
    draws = args.draws or (60 if args.fast else 1000)
    table: list[Row] = []
    for name, curves in sets.items():
        for features in groups:
            if ("HP" in features and not curves.hyperparameters) or ("AP" in features and not curves.architecture):
                continue

            def make(seed: int, features: tuple[str, ...] = features) -> CurvePredictor:
                return SequentialRegression("svr-rbf", features=features, draws=draws, random_state=seed)

            label = "+".join(features)
            path = args.cells / f"features-{name}-{label}-{repeats}-{draws}.csv"
            rows = cell(path, lambda c=curves, m=make: r2_rows(c, m, 0.25, repeats, len(c)))
            mean, error = mean_and_error(rows, "r2")
            table.append({"set": name, "features": label, "r2": round(mean, 4), "r2_se": round(error, 4)})
            print(f"{name:<27}{label:<12}{mean:>8.3f} ± {error:.3f}", flush=True)
    write(args.output / "learning_curves_features.csv", table)


def run_stopping(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> None:
    r"""Speed-up and regret of simulated searches."""
    orderings = args.repeats or (3 if args.fast else 10)
    table: list[Row] = []
    print(f"{'set':<27}{'rule':<34}{'speed-up':>9}{'(median)':>9}{'regret':>8}{'(median)':>9}{'none lost':>10}")

    def add(name: str, rule: str, delta: float | str, rows: list[Row]) -> None:
        speed, regret = np.array([r["speedup"] for r in rows]), np.array([r["regret"] for r in rows])
        row: Row = {"set": name, "rule": rule, "delta": delta, "speedup": round(float(speed.mean()), 3)}
        row |= {"speedup_median": round(float(np.median(speed)), 3), "regret": round(float(regret.mean()), 5)}
        row |= {"regret_median": round(float(np.median(regret)), 5), "kept_best": int((regret == 0).sum())}
        table.append(row | {"orderings": len(rows)})
        print(
            f"{name:<27}{f'{rule} {delta}':<34}{row['speedup']:>9.2f}{row['speedup_median']:>9.2f}{row['regret']:>8.4f}"
            f"{row['regret_median']:>9.4f}{row['kept_best']:>7}/{len(rows)}",
            flush=True,
        )

    for name, curves in sets.items():
        if name not in ("metaqnn_cifar10", "deep_resnets_tinyimagenet", "deep_resnets_cifar10"):
            continue
        for regressor in ("svr-rbf",) if args.fast else ("svr-rbf", "svr-linear", "gp", "ensemble"):
            if args.models and regressor not in args.models:
                continue
            draws = args.draws or 100
            for burn_in in (100, 40):
                path = args.cells / f"stopping-{name}-{regressor}-{burn_in}-{orderings}-{draws}.csv"
                rows = cell(
                    path, lambda c=curves, b=burn_in, g=regressor, d=draws: stopping_rows(c, b, g, orderings, d)
                )
                for delta in DELTAS:
                    chosen = [row for row in rows if row["delta"] == delta]
                    add(name, f"{regressor}, burn-in {burn_in}", delta, chosen)
        few = min(orderings, 3)  # Optuna looks at all trials at every report.
        for pruner in ("median", "hyperband", "patient-median", "asha"):
            path = args.cells / f"stopping-{name}-optuna-{pruner}-{few}.csv"
            add(name, f"Optuna {pruner}", "", cell(path, lambda c=curves, p=pruner, n=few: pruner_rows(c, p, n)))
        try:
            add(name, "Ray ASHA", "", cell(args.cells / f"stopping-{name}-ray-{orderings}.csv",
                                           lambda c=curves: ray_rows(c, orderings)))  # fmt: skip
        except MissingExtraError as error:
            print(f"{name:<27}Ray ASHA is left out: {error}")
    write(args.output / "learning_curves_stopping.csv", table)
    if not args.fast:
        plot_stopping(args.plots / "curves_stopping.png", table)


def run_hyperband(args: argparse.Namespace, sets: dict[str, LearningCurves]) -> None:
    r"""Consecutive runs of Hyperband and of its fast form on the same configurations."""
    searches = args.repeats or (10 if args.fast else 40)
    table: list[Row] = []
    print(f"{'set':<27}{'kappa':>6}{'speed-up':>9}{'last 10':>9}{'plain':>8}{'fast':>8}{'± se':>8}")
    for name, curves in sets.items():
        if name not in ("metaqnn_cifar10", "deep_resnets_tinyimagenet", "deep_resnets_cifar10"):
            continue
        for kappa in (None, 0.1, 0.05):
            path = args.cells / f"hyperband-{name}-{kappa}-{searches}.csv"
            rows = cell(path, lambda c=curves, k=kappa: hyperband_rows(c, k, searches))
            plain, fast = (sum(r[f"{kind}_epochs"] for r in rows) for kind in ("plain", "fast"))
            late = sum(r["plain_epochs"] for r in rows[-10:]) / sum(r["fast_epochs"] for r in rows[-10:])
            gaps = [{"gap": r["fast_value"] - r["plain_value"]} for r in rows]
            row: Row = {"set": name, "kappa": "1/eta" if kappa is None else kappa, "speedup": round(plain / fast, 3)}
            row |= {"speedup_last_10": round(late, 3), "plain_value": round(mean_and_error(rows, "plain_value")[0], 4)}
            row |= {"fast_value": round(mean_and_error(rows, "fast_value")[0], 4)}
            row |= {"gap_se": round(mean_and_error(gaps, "gap")[1], 4), "searches": len(rows)}
            table.append(row)
            print(
                f"{name:<27}{row['kappa']!s:>6}{row['speedup']:>9.2f}{late:>9.2f}{row['plain_value']:>8.4f}"
                f"{row['fast_value']:>8.4f}{row['gap_se']:>8.4f}",
                flush=True,
            )
    write(args.output / "learning_curves_hyperband.csv", table)


def plot_r2(path: Path, table: Sequence[Row]) -> None:
    figure_module = require("matplotlib.figure", "viz")
    names = list(dict.fromkeys(row["set"] for row in table))
    figure = figure_module.Figure(figsize=(3.6 * len(names), 3.6), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        for model in dict.fromkeys(row["model"] for row in table):
            rows = [row for row in table if row["set"] == name and row["model"] == model]
            axes.plot([row["fraction"] for row in rows], [row["r2"] for row in rows], marker="o", ms=3, label=model)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 1)
        axes.set_xlabel("share of the curve seen")
    figure.axes[0].set_ylabel("R² of the final value")
    figure.axes[-1].legend(fontsize=7, frameon=False, loc="lower right")
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


PARTS = {"r2": run_r2, "features": run_features, "stopping": run_stopping, "hyperband": run_hyperband}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with baker2017/ and naap440/")
    parser.add_argument("--fast", action="store_true", help="few repeats, draws and models")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="part to run; repeat for several")
    parser.add_argument("--sets", choices=SETS, nargs="+", default=list(SETS), help="curves")
    parser.add_argument("--models", nargs="+", help="models of the part 'r2'")
    parser.add_argument("--fractions", type=float, nargs="+", help="shares of the curve of the part 'r2'")
    parser.add_argument("--draws", type=int, help="settings that each random search of R² tries; the paper takes 1,000")
    parser.add_argument("--repeats", type=int, help="repeats, orderings or searches of every cell")
    parser.add_argument("--cells", type=Path, default=Path("out/learning_curves"), help="folder of finished cells")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of tables")
    parser.add_argument("--plots", type=Path, default=RESULTS.parents[1] / "docs", help="folder of plots")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    print(machine())
    given = {name: load(arguments.data, name) for name in arguments.sets}
    for part in arguments.only or list(PARTS):
        print(f"\n{part}")
        PARTS[part](arguments, given)
