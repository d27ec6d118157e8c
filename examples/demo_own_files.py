r"""Trains fifty small networks on scikit-learn's digits, and writes what was measured and what might be trained next.

    python examples/demo_own_files.py --output out/demo-own
    pyg-nas-np rank --labels out/demo-own/measured.csv --candidates out/demo-own/candidates.csv \
        --target accuracy --cost parameters --output out/demo-own
    python examples/demo_own_files.py --output out/demo-own --check

The first call writes ``measured.csv`` and a thousand candidates, ``candidates.csv``. The last one trains the five
candidates that were ranked first in ``ranking.csv``, and five at random.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

TRAINED_ON = 300
"""Images of the 1,797 that networks are trained on; all others tell their accuracy."""

EPOCHS = 12

Config = dict[str, Any]


def draw(rng: random.Random) -> Config:
    r"""Draws a configuration; momentum is a parameter of SGD only."""
    config: Config = {
        "depth": rng.randint(1, 4),
        "width": rng.choice([4, 8, 16, 32, 64, 128]),
        "activation": rng.choice(["relu", "tanh", "gelu"]),
        "norm": rng.choice([True, False]),
        "dropout": round(rng.uniform(0.0, 0.5), 2),
        "optimizer": rng.choice(["sgd", "adam"]),
        "lr": float(f"{10 ** rng.uniform(-4.0, -0.5):.2g}"),
    }
    if config["optimizer"] == "sgd":
        config["momentum"] = round(rng.uniform(0.0, 0.95), 2)
    return config


def network(config: Config) -> nn.Sequential:
    r"""A multilayer perceptron on 64 pixels."""
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[config["activation"]]
    layers: list[nn.Module] = []
    size = 64
    for _ in range(config["depth"]):
        layers.append(nn.Linear(size, config["width"]))
        size = config["width"]
        layers += [nn.BatchNorm1d(size)] if config["norm"] else []
        layers += [activation(), nn.Dropout(config["dropout"])]
    return nn.Sequential(*layers, nn.Linear(size, 10))


def parameters(config: Config) -> int:
    r"""Number of parameters, without allocating one."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network(config).parameters())


def accuracy(config: Config, x: Tensor, y: Tensor) -> float:
    r"""Trains a network; returns its accuracy on the other images, in percent."""
    torch.manual_seed(0)
    net = network(config)
    if config["optimizer"] == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), config["lr"])
    else:
        optimizer = torch.optim.SGD(net.parameters(), config["lr"], config["momentum"])
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINED_ON).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        hits = net(x[TRAINED_ON:]).argmax(dim=1) == y[TRAINED_ON:]
    return round(100.0 * float(hits.float().mean()), 2)


def digits() -> tuple[Tensor, Tensor]:
    r"""Images ``[n, 64]`` and labels ``[n]``, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images / 16.0, dtype=torch.float32)[order], torch.tensor(labels, dtype=torch.long)[order]


def write(path: Path, rows: Sequence[Config]) -> None:
    r"""Writes a table; what a configuration has not is an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[Config]:
    r"""Configurations of a table, in its order."""
    kinds = {"depth": int, "width": int, "dropout": float, "lr": float, "momentum": float}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    configs = []
    for row in rows:
        config: Config = {name: kind(row[name]) for name, kind in kinds.items() if row[name]}
        configs.append(config | {name: row[name] for name in ("activation", "optimizer")})
        configs[-1]["norm"] = row["norm"] == "True"
    return configs


def main(args: Sequence[str] | None = None) -> None:
    r"""Writes the tables, or trains what was ranked first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/demo-own"), help="folder of the tables")
    parser.add_argument("--trained", type=int, default=50, help="networks to train")
    parser.add_argument("--candidates", type=int, default=1000, help="candidates to write")
    parser.add_argument("--check", action="store_true", help="train the five candidates that were ranked first")
    given = parser.parse_args(args)
    x, y = digits()
    rng = random.Random(0)
    if given.check:
        best = [accuracy(config, x, y) for config in read(given.output / "ranking.csv")[:5]]
        others = [accuracy(config, x, y) for config in rng.sample(read(given.output / "candidates.csv"), 5)]
        print(f"trained, accuracy of the five ranked first: {best}, mean {statistics.mean(best):.1f}")
        print(f"of five random candidates: {others}, mean {statistics.mean(others):.1f}")
        return
    drawn: dict[str, Config] = {}
    while len(drawn) < given.trained + given.candidates:
        config = draw(rng)
        drawn[repr(config)] = config | {"parameters": parameters(config)}
    configs = list(drawn.values())
    given.output.mkdir(parents=True, exist_ok=True)
    measured = [{**config, "accuracy": accuracy(config, x, y)} for config in configs[: given.trained]]
    write(given.output / "measured.csv", measured)
    write(given.output / "candidates.csv", configs[given.trained :])
    best_accuracy = max(config["accuracy"] for config in measured)
    print(f"trained {given.trained} networks, best accuracy {best_accuracy}; wrote {given.candidates} candidates")


if __name__ == "__main__":
    # Products as small as these are slower on two threads.
    torch.set_num_threads(1)
    main()
