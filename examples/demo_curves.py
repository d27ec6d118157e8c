r"""Searches small networks on scikit-learn's digits: full trainings against a search within the same budget.

    python examples/demo_curves.py --output out/demo-curves

Both spend the price of so many full trainings. One trains random networks in full; the other trains many for a few
epochs, and goes on with those that a predictor expects to be good. Networks, data and labels are real; the report shows
every curve and every decision.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pyg_nas_np.cli.budget_report import write_budget_report
from pyg_nas_np.cli.search_budget_journal import Journal
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import Configuration, ParameterSpace
from pyg_nas_np.spaces.parameters import Float, Integer
from pyg_nas_np.utils import seeded

SPACE = ParameterSpace(
    {
        "width": Integer(2, 24, log=True),
        "depth": Integer(1, 3),
        "size": [1, 3],
        "pool": ["none", "max", "average"],
        "dropout": Float(0.0, 0.6),
        "learning_rate": Float(1e-4, 3e-2, log=True),
    }
)


class Digits(NamedTuple):
    r"""Images ``[n, 1, 8, 8]`` and labels ``[n]`` of both parts."""

    x_train: Tensor
    y_train: Tensor
    x_valid: Tensor
    y_valid: Tensor


def digits(seed: int) -> Digits:
    r"""Divides the 1,797 images: a third is trained on, so that networks differ."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(x), generator=seeded(seed))
    train, valid = order[:600], order[600:]
    return Digits(x[train], y[train], x[valid], y[valid])


def network(arch: Configuration) -> nn.Module:
    r"""One of many small networks: convolutions of some width and depth, pooling, dropout."""
    layers: list[nn.Module] = []
    channels = 1
    for _ in range(arch["depth"]):
        layers += [nn.Conv2d(channels, arch["width"], arch["size"], padding="same"), nn.ReLU()]
        channels = arch["width"]
    side = 8
    if arch["pool"] != "none":
        layers.append(nn.MaxPool2d(2) if arch["pool"] == "max" else nn.AvgPool2d(2))
        side = 4
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(arch["dropout"]), nn.Linear(channels * side * side, 10))


class Run:
    r"""A training that can go on.

    Args:
        arch: What to train.
        data: What to train on.
        seed: Seed of weights and batches.
    """

    def __init__(self, arch: Configuration, data: Digits, seed: int) -> None:
        self.data, self.epoch, self.seed = data, 0, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = network(arch)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=arch["learning_rate"])

    def to(self, epoch: int) -> float:
        r"""Trains to an epoch and returns the validation accuracy."""
        data = self.data
        with torch.random.fork_rng(devices=[]):
            # Dropout and batches are those of one training, wherever it pauses.
            while self.epoch < epoch:
                self.epoch += 1
                torch.manual_seed(1000 * self.seed + self.epoch)
                self.model.train()
                for batch in torch.randperm(len(data.x_train)).split(64):
                    loss = nn.functional.cross_entropy(self.model(data.x_train[batch]), data.y_train[batch])
                    self.optimizer.zero_grad()
                    loss.backward()
                    self.optimizer.step()
        self.model.eval()
        with torch.no_grad():
            return float((self.model(data.x_valid).argmax(1) == data.y_valid).float().mean())


def full_trainings(data: Digits, budget: int, epochs: int, seed: int) -> float:
    r"""Trains random networks in full, and returns the best accuracy."""
    best = 0.0
    for i, arch in enumerate(SPACE.sample(budget, seeded(seed)), start=1):
        accuracy = Run(arch, data, seed).to(epochs)
        best = max(best, accuracy)
        print(f"full trainings: {i:2d} of {budget}, accuracy {accuracy:.4f}, best {best:.4f}", flush=True)
    return best


def budgeted(data: Digits, budget: float, levels: tuple[int, ...], seed: int, state: Path) -> Journal:
    r"""Spends the same on trainings of several lengths."""
    fidelity = Fidelity("epochs", levels, continued=True)
    search = BudgetedSearch(SPACE, fidelity, budget, initial=16, proposals=512, seed=seed)
    journal, runs = Journal(search, state), {}
    while asked := journal.ask(1):
        training = asked[0]
        arch = SPACE.from_str(training.arch)
        run = runs.setdefault(arch, Run(arch, data, seed))
        accuracy = run.to(int(training.level))
        journal.tell(arch, training.level, accuracy)
        journal.save()
        if training.level == levels[-1] or training.number % 8 == 0:
            print(
                f"within a budget: {search.spent:5.2f} of {budget:g} spent, training {training.number} of epochs "
                f"{training.start or 0:g} to {training.level:g}, accuracy {accuracy:.4f}",
                flush=True,
            )
    return journal


def main(arguments: list[str] | None = None) -> tuple[float, Journal]:
    r"""Runs both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=int, default=12, help="in full trainings")
    parser.add_argument("--levels", type=int, nargs="+", default=[2, 6, 24], help="epochs, the last of a full training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("demo-curves"), help="folder of state and report")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    state, report = options.output / "state.pt", options.output / "report.html"
    state.unlink(missing_ok=True)
    data = digits(options.seed)
    start = time.perf_counter()
    full = full_trainings(data, options.budget, options.levels[-1], options.seed)
    middle = time.perf_counter()
    journal = budgeted(data, options.budget, tuple(options.levels), options.seed, state)
    end = time.perf_counter()
    arch, accuracy = journal.search.best
    tried = len({training.arch for training in journal.trainings})
    print(f"full trainings:  {options.budget:3d} networks, best accuracy {full:.4f}, {middle - start:.0f} s")
    print(
        f"within a budget: {tried:3d} networks, best accuracy {accuracy:.4f}, {end - middle:.0f} s, predictor included"
    )
    print(f"best: {SPACE.to_str(arch)}")
    write_budget_report(report, journal, "accuracy")
    print(f"wrote {report}")
    return full, journal


if __name__ == "__main__":
    main()
