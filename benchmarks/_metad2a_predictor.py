r"""How well accuracies on new data sets are predicted, on MetaD2A's public database: the part of ``metad2a.py``.

    python benchmarks/_metad2a_predictor.py --metad2a FOLDER
    python benchmarks/_metad2a_predictor.py --metad2a FOLDER --train-predictor FILE   # makes the shipped weights

``FOLDER`` holds ``predictor_db.csv``, ``tasks.csv`` and ``imagenet_class_ids.csv``. Two protocols: the official split
(4,230 tuples for training, 400 for validation, most of whose data sets and cells occur in training, though never
together), and five folds by data set within the training part (no class list of the test occurs in training). Nothing
was chosen on the official validation part.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from _timing import RESULTS, machine
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from torch import Tensor

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import MetaD2ADatabase, read_database
from pyg_nas_np.metad2a.predictor_training import Estimator, PerformanceModel, train_performance_model
from pyg_nas_np.metad2a.predictor_weights import write_performance_model
from pyg_nas_np.spaces.registry import space_by_name

Row = dict[str, Any]
Predict = Callable[[MetaD2ADatabase, MetaD2ADatabase], dict[str, Tensor]]

_AXES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metad2a", type=Path, help="folder of MetaD2A's predictor database")
    parser.add_argument("--predictor-folds", type=int, default=5, help="folds by data set that are run, at most 5")
    parser.add_argument("--train-predictor", type=Path, metavar="FILE", help="train, and write the weights here")


def run(args: argparse.Namespace) -> list[Row]:
    database = read_database(args.metad2a, space_by_name("nasbench201"))
    train, valid, _ = database.official_split()
    rows = []
    learned: list[PerformanceModel] = []

    def meta(past: MetaD2ADatabase, new: MetaD2ADatabase) -> dict[str, Tensor]:
        learned[:] = [train_performance_model(past)]
        return by_model(learned[0], new)

    methods = (architecture_only, task_only, boosting, meta)
    for fold in range(args.predictor_folds):
        inner = database[train]
        split = inner.split_by_dataset(5, fold)
        rows += _scores(methods, inner[split.train], inner[split.test], f"leave data sets out, fold {fold}")
    start = time.perf_counter()
    rows += _scores(methods, database[train], database[valid], "official validation")
    if args.train_predictor is not None:
        kept = {row["predictor"]: row["spearman"] for row in rows if row["split"] == "official validation"}
        card = {
            "data": "MetaD2A predictor database, 4,230 training tuples; classifier rows of EfficientNet-Lite0",
            "command": "python benchmarks/_metad2a_predictor.py --metad2a FOLDER --train-predictor FILE",
            "seed": 0,
            "seconds": round(time.perf_counter() - start),
            "machine": machine(),
            "official validation, Spearman": {name: kept[name] for name in get_args(Estimator)},
        }
        write_performance_model(args.train_predictor, learned[0], database.space, card)
    _print(rows)
    return rows


def by_model(model: PerformanceModel, new: MetaD2ADatabase) -> dict[str, Tensor]:
    datasets, of = new.dataset.unique(return_inverse=True)
    sets, cells = new.sets(datasets), shared_descriptors(new.space).table(new.arch)
    return {name: model.predict(name, sets, of, cells, False)[0] for name in get_args(Estimator)}


def architecture_only(past: MetaD2ADatabase, new: MetaD2ADatabase) -> dict[str, Tensor]:
    cells = shared_descriptors(past.space).features
    model = HistGradientBoostingRegressor(random_state=0).fit(cells.table(past.arch), past.accuracy)
    return {"architecture only": torch.from_numpy(model.predict(cells.table(new.arch)))}


def task_only(past: MetaD2ADatabase, new: MetaD2ADatabase) -> dict[str, Tensor]:
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(_mean_classes(past), past.accuracy)
    return {"data set only": torch.from_numpy(model.predict(_mean_classes(new)))}


def boosting(past: MetaD2ADatabase, new: MetaD2ADatabase) -> dict[str, Tensor]:
    """Gradient boosting on meta-features, and mean and deviation of the leading coordinates of the classes."""
    cells = shared_descriptors(past.space).features
    axes = torch.linalg.svd(past.classes.features, full_matrices=False).Vh[:_AXES].t()

    def table(database: MetaD2ADatabase) -> np.ndarray[Any, Any]:
        members, ptr = database.members(database.dataset)
        rows = (database.classes.features @ axes)[members].view(ptr.numel() - 1, -1, _AXES)
        return torch.cat([cells.table(database.arch), rows.mean(dim=1), rows.std(dim=1)], dim=1).numpy()

    model = HistGradientBoostingRegressor(random_state=0).fit(table(past), past.accuracy)
    return {"gradient boosting": torch.from_numpy(model.predict(table(new)))}


def _mean_classes(database: MetaD2ADatabase) -> np.ndarray[Any, Any]:
    members, ptr = database.members(database.dataset)
    return database.classes.features[members].view(ptr.numel() - 1, -1, database.classes.num_features).mean(1).numpy()


def _scores(methods: tuple[Predict, ...], past: MetaD2ADatabase, new: MetaD2ADatabase, name: str) -> list[Row]:
    rows = []
    for method in methods:
        start = time.perf_counter()
        for predictor, guess in method(past, new).items():
            rows.append(
                {
                    "part": "predictor",
                    "split": name,
                    "predictor": predictor,
                    "train": len(past),
                    "test": len(new),
                    "pearson": round(float(pearsonr(guess, new.accuracy)[0]), 4),
                    "spearman": round(float(spearmanr(guess, new.accuracy)[0]), 4),
                    "tau": round(float(kendalltau(guess, new.accuracy)[0]), 4),
                    "rmse": round(float((guess - new.accuracy).square().mean().sqrt()), 3),
                    "seconds": round(time.perf_counter() - start, 1),
                }
            )
            logging.info("%s", rows[-1])
    return rows


def _print(rows: list[Row]) -> None:
    """Means over the folds, and the official split."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["split"].partition(",")[0], row["predictor"]), []).append(row)
    print(f"\n{machine()}\n\n| split | predictor | Pearson | Spearman | tau | RMSE |\n|---|---|--:|--:|--:|--:|")
    for (split, predictor), members in groups.items():
        means = [np.mean([row[name] for row in members]) for name in ("pearson", "spearman", "tau", "rmse")]
        print(f"| {split} | {predictor} | " + " | ".join(f"{value:.3f}" for value in means) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--output", type=Path, default=RESULTS / "metad2a_predictor.csv")
    args = parser.parse_args()
    if args.metad2a is None:
        parser.error("--metad2a FOLDER is needed")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = run(args)
    with open(args.output, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
