r"""Trains forty small networks on scikit-learn's digits through Optuna, with and without the curve pruner.

    python examples/demo_curves.py --output demo_curves.png

Both studies try the same forty networks in the same order. Printed are time, epochs and the best validation accuracy;
the figure shows every curve and where it was stopped.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pyg_nas_np.cli.curve_plots import plot_stops
from pyg_nas_np.curves.data import LearningCurves
from pyg_nas_np.integrations.optuna import CurvePruner


class Digits(NamedTuple):
    r"""Images ``[n, 1, 8, 8]`` and labels ``[n]`` of both parts."""

    x_train: Tensor
    y_train: Tensor
    x_valid: Tensor
    y_valid: Tensor


def digits(seed: int) -> Digits:
    r"""Divides the 1,797 images two to one."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, valid = order[:1200], order[1200:]
    return Digits(x[train], y[train], x[valid], y[valid])


def network(trial: optuna.Trial) -> nn.Module:
    r"""One of many small networks: convolutions of some width and depth, pooling, dropout."""
    width = trial.suggest_int("width", 2, 24, log=True)
    layers: list[nn.Module] = []
    channels = 1
    for _ in range(trial.suggest_int("depth", 1, 3)):
        layers += [nn.Conv2d(channels, width, trial.suggest_categorical("size", [1, 3]), padding="same"), nn.ReLU()]
        channels = width
    pool = trial.suggest_categorical("pool", ["none", "max", "average"])
    if pool != "none":
        layers.append(nn.MaxPool2d(2) if pool == "max" else nn.AvgPool2d(2))
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.LazyLinear(10))


def train(trial: optuna.Trial, data: Digits, epochs: int) -> float:
    r"""Trains one network and reports its validation accuracy after every epoch."""
    # Each network has a seed of its own, so that both studies train the same forty.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.number)
        model = network(trial)
        model(data.x_train[:1])
        rate = trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        accuracy = 0.0
        for epoch in range(epochs):
            model.train()
            for batch in torch.randperm(len(data.x_train)).split(128):
                loss = nn.functional.cross_entropy(model(data.x_train[batch]), data.y_train[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                accuracy = float((model(data.x_valid).argmax(1) == data.y_valid).float().mean())
            trial.report(accuracy, epoch + 1)
            if trial.should_prune():
                raise optuna.TrialPruned
    return accuracy


class Outcome(NamedTuple):
    r"""What a study took and found."""

    study: optuna.Study
    seconds: float
    epochs: int
    best: float


def run(pruner: optuna.pruners.BasePruner, trials: int, epochs: int, seed: int) -> Outcome:
    r"""Runs one study; networks are drawn at random, so that pruning does not change which ones."""
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    data = digits(seed)
    start = time.perf_counter()
    study.optimize(lambda trial: train(trial, data, epochs), n_trials=trials)
    spent = sum(len(trial.intermediate_values) for trial in study.trials)
    return Outcome(study, time.perf_counter() - start, spent, study.best_value)


def main(arguments: list[str] | None = None) -> tuple[Outcome, Outcome]:
    r"""Runs both studies and compares them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--burn-in", type=int, default=12)
    parser.add_argument("--delta", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="demo_curves.png", help="where the figure goes")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain = run(optuna.pruners.NopPruner(), options.trials, options.epochs, options.seed)
    pruner = CurvePruner(burn_in=options.burn_in, delta=options.delta, refit_every=8)
    pruned = run(pruner, options.trials, options.epochs, options.seed)
    for name, outcome in (("without pruner", plain), ("with CurvePruner", pruned)):
        print(
            f"{name:<17} {outcome.seconds:6.1f} s {outcome.epochs:5d} epochs, best accuracy {outcome.best:.4f}",
            flush=True,
        )
    print(
        f"saved: {1 - pruned.epochs / plain.epochs:.0%} of the epochs, {1 - pruned.seconds / plain.seconds:.0%} of the "
        f"time, the fitting of predictors included"
    )
    values = np.full((options.trials, options.epochs), np.nan)
    for row, trial in enumerate(pruned.study.trials):
        for epoch, value in trial.intermediate_values.items():
            values[row, epoch - 1] = value
    curves = LearningCurves(values)
    title = f"{options.trials} networks on digits: stopped in red"
    plot_stops(options.output, curves, curves.lengths, title)
    print(f"wrote {options.output}")
    return plain, pruned


if __name__ == "__main__":
    main()
