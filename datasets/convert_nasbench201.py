r"""Converts third-party tables over NAS-Bench-201 cells into compact label tables.

Usage: python datasets/convert_nasbench201.py SOURCE.csv raw/nasbench201-cifar10.csv.gz

Recognised by their header:

- ``index, arch_str, cifar10_test_200``: seed mean of the CIFAR-10 test accuracy after 200 epochs;
- ``index, arch_str, {cifar10,cifar100,imagenet}_{test,val}_12``: six 12-epoch accuracies. The part of the target's name
  after ``nasbench201-`` says which image data set is taken.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from pyg_nas_np.datasets import Metric
from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.datasets.nats import units
from pyg_nas_np.spaces import NASBench201Space

DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "ImageNet16-120": "imagenet"}


def columns_of(dataset: str) -> dict[str, tuple[str, str, int]]:
    """Maps a source column to the metric, the name of its seed, and its epochs."""
    short = DATASETS[dataset]
    # Only the CIFAR-10 validation column is a mean over two seeds.
    valid_seed = "mean of 111 and 777" if dataset == "cifar10" else "111"
    columns = {
        f"{short}_val_12": ("valid_accuracy@12", valid_seed, 12),
        f"{short}_test_12": ("test_accuracy@12", "111", 12),
    }
    if dataset == "cifar10":
        columns["cifar10_test_200"] = ("test_accuracy@200", "mean of all", 200)
    return columns


def main() -> None:
    """Converts one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="raw/nasbench201-DATASET.{csv,csv.gz,parquet}")
    args = parser.parse_args()
    dataset = args.target.name.split(".")[0].removeprefix("nasbench201-")
    if dataset not in DATASETS:
        parser.error(f"{args.target.name} must be nasbench201-DATASET.* with DATASET one of {', '.join(DATASETS)}")
    space = NASBench201Space()
    with open(args.source, newline="") as file:
        rows = list(csv.DictReader(file))
    present = {name: spec for name, spec in columns_of(dataset).items() if rows and name in rows[0]}
    if not present:
        parser.error(f"{args.source} has none of the columns {', '.join(columns_of(dataset))}")
    index = torch.tensor([space.index(space.from_str(row["arch_str"])) for row in rows])
    metrics = {}
    for column, (name, seed, epochs) in present.items():
        values = torch.full((len(space), 1, 1), float("nan"))
        values[index, 0, 0] = torch.tensor([float(row[column]) for row in rows])
        metrics[name] = Metric.from_values(values, (seed,), (epochs,), *units(name))
    write_compact(args.target, [str(arch) for arch in space.enumerate()], metrics)
    print(f"{args.target}: {', '.join(metrics)} of {len(rows)} cells")


if __name__ == "__main__":
    main()
