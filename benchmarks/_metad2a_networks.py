r"""The part of ``benchmarks/metad2a.py`` on real networks: zero-cost scores, and a training check of generated cells.

**Zero-cost scores.** Random cells of NAS-Bench-201 (the start of one permutation), 16 training images of CIFAR-10 at
32 x 32, one fixed batch; Spearman with the 200-epoch test accuracy (mean over seeds) and, for the same scores, with the
validation accuracy on the other data sets; 95 % intervals by 1,000 bootstrap draws of cells. Settings:

- ``paper``: 3 channels, one cell a stage, weights from N(0, 1), mean of 32 draws (papers on SWAP);
- ``64 images``: the same networks, 64 images, one draw (the independent re-evaluation's batch);
- ``full``: the benchmark's own network (16 channels, 5 cells a stage), 16 images, one draw;
- ``full, 64 images``: as before with 64 images;
- ``nb101``: cells of NAS-Bench-101, 8 channels, one cell a stack, mean of 8 draws; Spearman with the best validation
  accuracy of three.

**Training check.** Trains given cells in a reduced skeleton on subsets of real image sets that no predictor has seen,
and compares predicted with reached accuracies. The cells come from a CSV (columns ``dataset``, ``arch``, ``kind``:
generated or random, ``predicted``, which may be empty).

Both write every scored or trained network at once, skip what is there, and stop at their time limit.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from pyg_nas_np.datasets import NASBench201
from pyg_nas_np.networks.trainer import as_images, train_network
from pyg_nas_np.networks.zero_cost import SCORES, score_archs
from pyg_nas_np.spaces import CellSpace, NASBench101Space, NASBench201Space
from pyg_nas_np.utils import atomic_path, cache_dir

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""Mean and standard deviation of the training images."""


class Setting(NamedTuple):
    r"""How networks are scored; ``share`` of the cells."""

    space: str
    images: int
    repeats: int
    share: float
    skeleton: dict[str, int]
    scores: tuple[str, ...] = SCORES


SETTINGS = {
    "paper": Setting("nasbench201", 16, 32, 1.0, {"channels": 3, "num_cells": 1}),
    "64 images": Setting("nasbench201", 64, 1, 1.0, {"channels": 3, "num_cells": 1}, ("swap",)),
    "full": Setting("nasbench201", 16, 1, 1 / 3, {"channels": 16, "num_cells": 5}),
    "full, 64 images": Setting("nasbench201", 64, 1, 1 / 6, {"channels": 16, "num_cells": 5}, ("swap",)),
    "nb101": Setting("nasbench101", 16, 8, 1 / 3, {"channels": 8, "num_modules": 1}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    r"""Adds the options of this part."""
    group = parser.add_argument_group("networks: zero-cost scores and the training check")
    group.add_argument("--networks-data", type=Path, default=Path("../shared/data"), help="folder of measured tables")
    group.add_argument("--networks-out", type=Path, default=None, help="folder of results so far [default: a cache]")
    group.add_argument("--networks-cells", type=int, default=300, help="cells to score")
    group.add_argument("--networks-settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    group.add_argument("--networks-minutes", type=float, default=8.0, help="time limit of the scores")
    group.add_argument("--networks-archs", type=Path, default=None, help="CSV of cells to train; none: no check")
    group.add_argument("--networks-epochs", type=int, default=8, help="epochs of the training check")
    group.add_argument("--networks-train-minutes", type=float, default=15.0, help="time limit of the training check")


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    r"""Runs both checks as far as their time limits allow, prints their tables and returns the rows."""
    out = cache_dir() / "benchmarks" / "metad2a" if args.networks_out is None else args.networks_out
    return [*zero_cost(args, out), *([] if args.networks_archs is None else training_check(args, out))]


# -- zero-cost scores -------------------------------------------------------------------------------------------------


def zero_cost(args: argparse.Namespace, out: Path) -> list[dict[str, object]]:
    deadline = time.monotonic() + 60 * args.networks_minutes
    targets = {"nasbench201": nb201_targets(args.networks_data), "nasbench101": nb101_targets(args.networks_data)}
    images = cifar10(args.networks_data)
    rows: list[dict[str, object]] = []
    for name in args.networks_settings:
        setting = SETTINGS[name]
        space: CellSpace[Any] = NASBench201Space() if setting.space == "nasbench201" else NASBench101Space()
        keys = list(targets[setting.space][next(iter(targets[setting.space]))])
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0)).tolist()
        wanted = [keys[i] for i in order[: math.ceil(setting.share * args.networks_cells)]]
        path = out / f"scores-{name.replace(', ', '-').replace(' ', '-')}.csv"
        table = scored(space, wanted, images[: setting.images], setting, path, deadline)
        if not table:
            continue
        for target, values in targets[setting.space].items():
            known = [key for key in table if key in values]
            reached = [values[key] for key in known]
            for score in setting.scores:
                found = [float(table[key][score]) for key in known]
                rho, low, high = spearman(found, reached)
                rows.append(
                    {
                        "part": "zero-cost",
                        "setting": name,
                        "target": target,
                        "score": score,
                        "cells": len(known),
                        "spearman": f"{rho:.3f}",
                        "low": f"{low:.3f}",
                        "high": f"{high:.3f}",
                        "seconds_per_cell": f"{np.mean([float(r['seconds']) for r in table.values()]):.3f}",
                    }
                )
    _print_scores(rows)
    return rows


def scored(
    space: CellSpace[Any], keys: Sequence[str], images: Tensor, setting: Setting, path: Path, deadline: float
) -> dict[str, dict[str, str]]:
    r"""Scores the architectures that the file does not have yet, ten at a time."""
    table = {row["arch"]: row for row in read(path)}
    missing = [key for key in keys if key not in table]
    for start in range(0, len(missing), 10):
        if time.monotonic() > deadline:
            print(f"{path.stem}: stopped by the time limit; run again to go on", flush=True)
            break
        chunk = missing[start : start + 10]
        began = time.perf_counter()
        archs = [space.from_str(key) for key in chunk]
        found = score_archs(space, archs, images, scores=setting.scores, repeats=setting.repeats, **setting.skeleton)
        taken = (time.perf_counter() - began) / len(chunk)
        for key, values in zip(chunk, found.values.tolist(), strict=True):
            scores = {name: repr(value) for name, value in zip(found.names, values, strict=True)}
            table[key] = {"arch": key, **scores, "seconds": f"{taken:.4f}"}
        write(path, table.values())
    return {key: table[key] for key in keys if key in table}


def spearman(scores: Sequence[float], reached: Sequence[float]) -> tuple[float, float, float]:
    r"""The rank correlation and its 95 % interval over draws of cells."""
    if len(scores) < 3:
        return math.nan, math.nan, math.nan
    x, y, random = np.array(scores), np.array(reached), np.random.default_rng(0)
    draws = []
    for _ in range(1000):
        rows = random.integers(len(x), size=len(x))
        if len(set(x[rows])) > 1 and len(set(y[rows])) > 1:
            draws.append(spearmanr(x[rows], y[rows]).statistic)
    rho = spearmanr(x, y).statistic if len(set(x)) > 1 and len(set(y)) > 1 else math.nan
    low, high = np.quantile(draws, (0.025, 0.975)) if draws else (math.nan, math.nan)
    return float(rho), float(low), float(high)


def nb201_targets(data: Path) -> dict[str, dict[str, float]]:
    r"""Accuracies by cell: the test table, and the packaged validation accuracies where they are installed."""
    path = data / "nasbench201" / "nb201_200ep_cifar10_test.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; name the folder of measured tables by --networks-data")
    found = {"CIFAR-10 test": {row["arch_str"]: float(row["cifar10_test_200"]) for row in read(path)}}
    root = str(cache_dir() / "benchmarks" / "nasbench201")
    names = {"cifar10": "CIFAR-10 valid", "cifar100": "CIFAR-100 valid", "ImageNet16-120": "ImageNet16-120 valid"}
    for dataset, title in names.items():
        table = NASBench201(root, dataset)  # type: ignore[arg-type]
        if bool(table.label_mask.all()):
            found[title] = dict(zip(map(str, table.space.enumerate()), table.y.tolist(), strict=True))
    return found


def nb101_targets(data: Path) -> dict[str, dict[str, float]]:
    r"""Best validation accuracy of three by cell."""
    path = data / "nasbench101" / "nb101_20001.csv.gz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; name the folder of measured tables by --networks-data")
    import gzip

    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    name = "{n_vertices}:{adj_upper_rowmajor}:{interior_ops}"
    return {"CIFAR-10 valid, best of 3": {name.format(**row): float(row["val_acc_108"]) for row in rows}}


def cifar10(data: Path) -> Tensor:
    r"""64 training images, drawn once, normalised, ``[64, 3, 32, 32]``."""
    path = data / "images" / "cifar10_300_100.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; name the folder of measured tables by --networks-data")
    with np.load(path, allow_pickle=False) as file:
        rows = np.random.default_rng(0).permutation(len(file["x_train"]))[:64]
        images = torch.from_numpy(file["x_train"][rows]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in CIFAR10)
    return (images - mean) / std


def _print_scores(rows: list[dict[str, object]]) -> None:
    print("\nSpearman of zero-cost scores with accuracies after full training")
    pairs = list(dict.fromkeys((row["setting"], row["target"], row["cells"], row["seconds_per_cell"]) for row in rows))
    print("| setting | target | cells | s / cell | " + " | ".join(SCORES) + " |\n" + "|---" * (4 + len(SCORES)) + "|")
    for pair in pairs:
        mine = {r["score"]: r for r in rows if (r["setting"], r["target"]) == pair[:2]}
        cells = [f"{mine[s]['spearman']} ({mine[s]['low']}–{mine[s]['high']})" if s in mine else "" for s in SCORES]
        print("| " + " | ".join([*map(str, pair), *cells]) + " |")


# -- training check ---------------------------------------------------------------------------------------------------

IMAGE_SETS = {
    "cifar10": ("cifar10_300_100", True),
    "cifar100": ("cifar100_60_20", True),
    "fashion-mnist": ("fashion_mnist_300_100", True),
    "mnist": ("mnist_300_100", False),
    "usps": ("usps", False),
}
"""File of each image set, and whether its images may be mirrored."""

TRAIN_IMAGES, TEST_IMAGES = 3000, 2000
CHECK_SKELETON = {"channels": 8, "num_cells": 1}


def training_check(args: argparse.Namespace, out: Path) -> list[dict[str, object]]:
    r"""Trains the given cells, data set by data set in turns, and compares predictions with what they reach."""
    deadline = time.monotonic() + 60 * args.networks_train_minutes
    wanted = read(args.networks_archs)
    if not wanted or not {"dataset", "arch", "kind", "predicted"} <= wanted[0].keys():
        raise ValueError(f"{args.networks_archs} must have the columns dataset, arch, kind and predicted, and a row")
    if unknown := {row["dataset"] for row in wanted} - IMAGE_SETS.keys():
        raise ValueError(f"{sorted(unknown)[0]!r} is none of {', '.join(IMAGE_SETS)}")
    path = out / f"trained-{args.networks_epochs}-epochs.csv"
    done = {(row["dataset"], row["arch"]): row for row in read(path)}
    space = NASBench201Space()
    # In turns, so that every data set has as many networks as any other when the time is up.
    queues = {name: [row for row in wanted if row["dataset"] == name] for name in IMAGE_SETS}
    turns = [queue[i] for i in range(max(map(len, queues.values()))) for queue in queues.values() if i < len(queue)]
    for row in turns:
        key = (row["dataset"], row["arch"])
        if key in done:
            continue
        if time.monotonic() > deadline:
            print("training check: stopped by the time limit; run again to go on", flush=True)
            break
        train, test, flip = image_set(args.networks_data, row["dataset"])
        arch = space.from_str(row["arch"])
        result = train_network(
            space, arch, train, test, epochs=args.networks_epochs, flip=flip, accelerator="cpu", **CHECK_SKELETON
        )
        swap = score_archs(space, [arch], scores=("swap",), repeats=8).values.item()
        done[key] = {
            "dataset": row["dataset"],
            "arch": row["arch"],
            "accuracy": f"{100 * result.accuracy[-1]:.2f}",
            "params": str(space.num_parameters(arch)),
            "swap": f"{swap:.1f}",
            "seconds": f"{result.seconds:.1f}",
        }
        write(path, done.values())
        print(f"{row['dataset']} {row['kind']} {row['arch']}: {done[key]['accuracy']} %", flush=True)
    return _compare(wanted, done, args.networks_epochs)


def image_set(data: Path, name: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], bool]:
    r"""Training and test images, the first of one permutation where there are more than are needed."""
    stem, flip = IMAGE_SETS[name]
    path = data / "images" / f"{stem}.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; name the folder of measured tables by --networks-data")
    with np.load(path, allow_pickle=False) as file:
        parts = []
        for part, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
            x, y = as_images(file[f"x_{part}"]), torch.from_numpy(file[f"y_{part}"]).long()
            rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]
            parts.append((x[rows], y[rows]))
    return parts[0], parts[1], flip


def _compare(wanted: list[dict[str, str]], done: dict[Any, dict[str, str]], epochs: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    print(f"\nTraining check, {epochs} epochs on at most {TRAIN_IMAGES} images, skeleton {CHECK_SKELETON}, one seed")
    print("| data set | cells | generated, mean % | random, mean % | Spearman: predicted | params | SWAP |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["dataset"] for row in wanted):
        mine = [
            (row, done[name, row["arch"]])
            for row in wanted
            if (row["dataset"], row["arch"]) in done and row["dataset"] == name
        ]
        if not mine:
            continue
        result: dict[str, object] = {"part": "training", "dataset": name, "epochs": epochs, "cells": len(mine)}
        for kind in ("generated", "random"):
            reached = [float(got["accuracy"]) for row, got in mine if row["kind"] == kind]
            result[kind] = f"{np.mean(reached):.2f}" if reached else ""
        told = [(float(row["predicted"]), float(got["accuracy"])) for row, got in mine if row["predicted"]]
        result["spearman_predicted"] = _rho(*zip(*told, strict=True)) if told else ""
        for score in ("params", "swap"):
            result[f"spearman_{score}"] = _rho(
                [float(got[score]) for _, got in mine], [float(got["accuracy"]) for _, got in mine]
            )
        rows.append(result)
        shown = ("cells", "generated", "random", "spearman_predicted", "spearman_params", "spearman_swap")
        print("| " + " | ".join([name, *(str(result[key]) for key in shown)]) + " |")
    return rows


def _rho(scores: Sequence[float], reached: Sequence[float]) -> str:
    if len(scores) < 3 or len(set(scores)) < 2 or len(set(reached)) < 2:
        return ""
    return f"{spearmanr(scores, reached).statistic:.2f}"


# -- files ------------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
