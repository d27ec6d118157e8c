r"""MobileNetV3: predicted accuracies of sub-networks, and what is generated within a budget: a part of ``metad2a.py``.

    python benchmarks/_metad2a_mobilenetv3.py --mobilenetv3-data FOLDER

``FOLDER`` holds ``ofa_mbv3/dynast_ofa_mbv3_w1.0_imagenet_top1.csv`` (measured ImageNet top-1) and ``images/*.npz``.

- ``predictor``: rank correlation on held-out sub-networks, compared with costs and other regressors: a random fifth;
  all that only the two searches of one algorithm (LINAS) visited; the most accurate fifth.
- ``generated``: a generator trained on one half of the table, judged by a Gaussian process on the other half, which
  never saw what the generator saw. Beside random sub-networks within the same limit of multiply-accumulates (depths
  uniform, for uniform ones are nearly all deep), and beside the measured sub-networks of the generator's half. Columns:
  mean multiply-accumulates; judged accuracy of all (``mean``), of the best, of the ten predicted best (``top``).
- ``samples``, ``influence``, ``seconds``: the shipped weights, which saw all of the table.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import RESULTS, machine, seconds
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from torch import Tensor

from pyg_nas_np.datasets.mobilenetv3 import SubNetworks, read_accuracies
from pyg_nas_np.metad2a import MetaD2A
from pyg_nas_np.metad2a.backbone import class_vectors
from pyg_nas_np.metad2a.database import FeatureSets
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.metad2a.generator_weights import read_generator, shipped_generator, write_generator
from pyg_nas_np.metad2a.image_features import ImageFeatures
from pyg_nas_np.metad2a.mobilenetv3.features import mobilenetv3_features
from pyg_nas_np.metad2a.mobilenetv3.generator_training import train_sub_network_generator
from pyg_nas_np.metad2a.mobilenetv3.predictor_training import fit_sub_networks, select_sub_networks
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.kernels import additive_kernels
from pyg_nas_np.spaces import MobileNetV3Arch, MobileNetV3Space, space_by_name

Row = dict[str, Any]
Guess = Callable[[SubNetworks, SubNetworks], Tensor]
TABLE = Path("ofa_mbv3") / "dynast_ofa_mbv3_w1.0_imagenet_top1.csv"
IMAGES = {"cifar10": "cifar10_300_100.npz", "mnist": "mnist_300_100.npz"}
BUDGETS = {"200 M MACs": 2e8, "300 M MACs": 3e8, "400 M MACs": 4e8, "none": float("inf")}
SAMPLES, CANDIDATES, TOP = 1000, 500, 10
SPACE: MobileNetV3Space = space_by_name("mobilenetv3")  # type: ignore[assignment]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mobilenetv3: sub-networks of Once-for-All")
    group.add_argument("--mobilenetv3-data", type=Path, default=Path("../shared/data"), help="folder of tables")
    group.add_argument("--mobilenetv3-steps", type=int, default=1500, help="steps of the generator of one half")
    group.add_argument("--mobilenetv3-half", type=Path, help="weights of that generator: read, or written if absent")


def run(args: argparse.Namespace) -> list[Row]:
    path = args.mobilenetv3_data / TABLE
    table = read_accuracies(path)
    sets = {name: ImageFeatures()(args.mobilenetv3_data / "images" / file) for name, file in IMAGES.items()}
    rows: list[Row] = []
    for name, (past, new) in _splits(table, path).items():
        rows += _predicted(name, select_sub_networks(table, past), select_sub_networks(table, new))
    rows += _generated(table, sets["cifar10"], args)
    model = shipped_generator(SPACE)
    rows += _samples(model, table, sets["cifar10"])
    rows += _influence(model, sets)
    rows += _times(sets["cifar10"])
    return rows


def _row(question: str, data: str, method: str, **values: float) -> Row:
    row: Row = {"question": question, "data": data, "method": method}
    row |= {name: round(float(value), 4) for name, value in values.items()}
    print(f"{question:<10} {data:<24} {method:<34}", "  ".join(f"{k} {v:g}" for k, v in list(row.items())[3:]))
    return row


# -- the predictor ----------------------------------------------------------------------------------------------------


def _splits(table: SubNetworks, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    count = len(table.archs)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    visited: dict[MobileNetV3Arch, set[str]] = {}
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            visited.setdefault(SPACE.from_str(line["arch_json"]), set()).update(line["sources"].split(";"))
    linas = torch.tensor([all("linas" in source for source in visited[arch]) for arch in table.archs])
    best = table.values[:, 0].argsort(descending=True)
    fifth = count // 5
    return {
        "random fifth": (order[fifth:], order[:fifth]),
        "searches left out": ((~linas).nonzero().flatten(), linas.nonzero().flatten()),
        "best fifth": (best[fifth:], best[:fifth]),
    }


def _x(table: SubNetworks) -> Tensor:
    return mobilenetv3_features(SPACE).table(table.archs)


def _layers(table: SubNetworks) -> np.ndarray[Any, Any]:
    return _x(table)[:, mobilenetv3_features(SPACE).groups["layers"]].numpy()


def ours(past: SubNetworks, new: SubNetworks) -> Tensor:
    model = fit_sub_networks(past, SPACE)
    return model.mean + model.scale * (_x(new) @ model.weights)


def process(past: SubNetworks, new: SubNetworks) -> Tensor:
    return judge(past, new.archs)


def judge(past: SubNetworks, archs: Sequence[MobileNetV3Arch]) -> Tensor:
    """An exact process with radial kernels on the same features; it would have to keep all measurements."""
    features = mobilenetv3_features(SPACE)
    y, columns = past.values[:, 0], {name: features.groups[name] for name in ("stages", "layers")}
    gp = GaussianProcess(additive_kernels(columns)).fit(features.table(past.archs), (y - y.mean()) / y.std())
    return y.mean() + y.std() * gp.predict(features.table(archs), False)[0]


def boosting(past: SubNetworks, new: SubNetworks) -> Tensor:
    model = HistGradientBoostingRegressor(random_state=0).fit(_x(past).numpy(), past.values[:, 0].numpy())
    return torch.from_numpy(model.predict(_x(new).numpy()))


def ridge(past: SubNetworks, new: SubNetworks) -> Tensor:
    model = RidgeCV(np.logspace(-3, 3, 13)).fit(_layers(past), past.values[:, 0].numpy())
    return torch.from_numpy(model.predict(_layers(new)))


def by_cost(cost: Callable[[Any], Tensor]) -> Guess:
    """Linear in the logarithm of a cost."""

    def guess(past: SubNetworks, new: SubNetworks) -> Tensor:
        x, y = cost(past.archs).double().log(), past.values[:, 0]
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        return y.mean() + slope * (cost(new.archs).double().log() - x.mean())

    return guess


REGRESSORS: dict[str, Guess] = {
    "parameters": by_cost(SPACE.batch_num_parameters),
    "multiply-accumulates": by_cost(SPACE.batch_flops),
    "ridge on one-hot layers": ridge,
    "gradient boosting": boosting,
    "Gaussian process, radial": process,
    "shipped form": ours,
}


def _predicted(name: str, past: SubNetworks, new: SubNetworks) -> list[Row]:
    rows, y = [], new.values[:, 0]
    for method, guess in REGRESSORS.items():
        start = time.perf_counter()
        found = guess(past, new)
        rows.append(
            _row(
                "predictor",
                f"{name} ({len(past.archs)}/{len(new.archs)})",
                method,
                pearson=pearsonr(found, y)[0],
                spearman=spearmanr(found, y)[0],
                tau=kendalltau(found, y)[0],
                rmse=(found - y).square().mean().sqrt(),
                seconds=time.perf_counter() - start,
            )
        )
    return rows


# -- the generator ----------------------------------------------------------------------------------------------------


def _generated(table: SubNetworks, sets: FeatureSets, args: argparse.Namespace) -> list[Row]:
    """Judged accuracies: mean and best, and mean of the ten that the predictor of the generator's half prefers."""
    halves = torch.randperm(len(table.archs), generator=torch.Generator().manual_seed(0)).tensor_split(2)
    first, second = (select_sub_networks(table, half) for half in halves)
    model, predictor = _half_generator(first, args), fit_sub_networks(first, SPACE)
    ways: dict[str, Callable[[float], list[MobileNetV3Arch]]] = {
        "generated": lambda limit: model.generate(
            sets.prototypes(),
            CANDIDATES,
            limits={} if limit == float("inf") else {"flops": limit},
            generator=torch.Generator().manual_seed(0),
        ),
        "random": lambda limit: _random(model, limit),
        "measured, generator's half": lambda limit: _within(list(first.archs), limit),
    }
    rows = []
    for name, limit in BUDGETS.items():
        for method, way in ways.items():
            drawn = way(limit)
            judged = judge(second, drawn)
            top = (predictor.table(drawn) @ predictor.weights).argsort(descending=True)[:TOP]
            values = {"mean": judged.mean(), "best": judged.max(), "top": judged[top].mean()}
            spent = float(SPACE.batch_flops(drawn).double().mean()) / 1e6
            rows.append(_row("generated", name, method, count=len(drawn), million_macs=spent, **values))
    return rows


def _half_generator(half: SubNetworks, args: argparse.Namespace) -> MetaD2AGenerator:
    path = args.mobilenetv3_half
    if path is not None and path.exists():
        return read_generator(path, SPACE)
    model, card = train_sub_network_generator(half, class_vectors(), steps=args.mobilenetv3_steps)
    print(f"Trained the generator of one half: {card}")
    if path is not None:
        write_generator(path, model, card)
    return model


def _random(model: MetaD2AGenerator, limit: float) -> list[MobileNetV3Arch]:
    draw, found = torch.Generator().manual_seed(0), []
    while len(found) < CANDIDATES:
        types = torch.empty(4 * CANDIDATES, 0, dtype=torch.long)
        for _ in range(model.codec.num_vertices):
            types = torch.cat([types, torch.multinomial(model.codec.allowed(types).double(), 1, generator=draw)], dim=1)
        found += _within(model.codec.archs(types), limit)
    return found[:CANDIDATES]


def _within(archs: list[MobileNetV3Arch], limit: float) -> list[MobileNetV3Arch]:
    costs = SPACE.batch_flops(archs).tolist()
    return [arch for arch, cost in zip(archs, costs, strict=True) if cost <= limit]


def _samples(model: MetaD2AGenerator, table: SubNetworks, sets: FeatureSets) -> list[Row]:
    """Validity, uniqueness of the valid, novelty of the unique, in percent."""
    rows, one = [], sets.prototypes()
    for name, limit in BUDGETS.items():
        limits = {} if limit == float("inf") else {"flops": limit}
        draw = torch.Generator().manual_seed(0)
        drawn = {
            "without replacement (default)": model.generate(one, SAMPLES, limits=limits, generator=draw),
            "independent": _independent(model, one, limits, draw),
        }
        for method, archs in drawn.items():
            valid = [arch for arch in archs if SPACE.is_valid(arch)]
            within, distinct = _within(valid, limit), set(valid)
            rows.append(
                _row(
                    "samples",
                    name,
                    method,
                    valid=100 * len(valid) / len(archs),
                    unique=100 * len(distinct) / len(valid),
                    novel=100 * len(distinct - set(table.archs)) / len(distinct),
                    within=100 * len(within) / len(valid),
                )
            )
    return rows


@torch.no_grad()
def _independent(
    model: MetaD2AGenerator, sets: FeatureSets, limits: dict[str, float], draw: torch.Generator
) -> list[MobileNetV3Arch]:
    """With replacement, and nothing filtered: what the decoder makes of the limit by itself."""
    z = torch.cat([model.encode(sets)[0], model.positions(limits)], dim=1).expand(SAMPLES, -1)
    archs: list[MobileNetV3Arch] = model.codec.archs(model.decoder.sample(z, generator=draw))
    return archs


@torch.no_grad()
def _influence(model: MetaD2AGenerator, sets: dict[str, FeatureSets]) -> list[Row]:
    """How much the images change what is written: mean change of the log probability of samples, in nats."""
    first, *others = sets
    archs = model.generate(sets[first].prototypes(), SAMPLES, generator=torch.Generator().manual_seed(0))
    types = model.codec.types(archs)
    chances = {}
    for name, one in sets.items():
        code = torch.cat([model.encode(one.prototypes())[0], model.positions({})], dim=1)
        chances[name] = model.decoder.log_prob(code.expand(types.size(0), -1), types)
    return [
        _row("influence", f"{first}/{name}", "log probability", nats=(chances[first] - chances[name]).abs().mean())
        for name in others
    ]


def _times(sets: FeatureSets) -> list[Row]:
    model, method = shipped_generator(SPACE), MetaD2A()
    write = min(seconds(lambda: model.generate(sets.prototypes(), CANDIDATES)))
    bounded = min(seconds(lambda: model.generate(sets.prototypes(), CANDIDATES, limits={"flops": 3e8})))
    rank = min(seconds(lambda: method.search(sets, SPACE, CANDIDATES, TOP)))
    return [
        _row("seconds", "none", "generation of 500 candidates", seconds=write),
        _row("seconds", "300 M MACs", "generation of 500 candidates", seconds=bounded),
        _row("seconds", "none", "features to list", seconds=rank),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=RESULTS / "metad2a_mobilenetv3.csv")
    args = parser.parse_args()
    rows = run(args)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({"question": "machine", "data": machine()})


if __name__ == "__main__":
    main()
