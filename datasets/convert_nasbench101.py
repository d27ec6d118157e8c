r"""Converts published NAS-Bench-101 tables into the compact table that ``NASBench101`` reads from its ``raw`` folder.

    python datasets/convert_nasbench101.py nb101_20001.csv.gz data/NASBench101/raw/nasbench101.csv.gz

Every input is a CSV (optionally gzipped) with the columns ``module_hash``, ``n_vertices``, ``adj_upper_rowmajor`` and
``interior_ops``, and is recognised by its other columns:

* ``val_acc_4`` … ``val_acc_108``: one repeat at 4, 12 and 36 epochs, the **best of three** at 108;
* ``epochs``, ``mean_val_acc`` …: means of the three original repeats;
* ``epochs``, ``repeat``, ``val_acc`` …: independent retrainings, kept apart under ``retrained_*``;
* ``zen``: a zero-cost score.

Two inputs must not give the same metric: a mean over unlike runs would hide where its numbers come from.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from pyg_nas_np.datasets.compact import write_compact
from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.nasbench101 import units
from pyg_nas_np.spaces.nasbench101 import NASBench101Arch, NASBench101Space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError

logger = logging.getLogger("convert_nasbench101")

# column -> (metric, seed, epoch); {epochs} and {repeat} are taken from the row
Columns = dict[str, tuple[str, str, str]]
SINGLE: Columns = {
    "val_acc_4": ("valid_accuracy@4", "one of 3", "4"),
    "val_acc_12": ("valid_accuracy@12", "one of 3", "12"),
    "val_acc_36": ("valid_accuracy@36", "one of 3", "36"),
    "val_acc_108": ("valid_accuracy_best_of_3@108", "best of 3", "108"),
    "training_time_108_s": ("training_time@108", "unspecified", "108"),
}
MEANS: Columns = {
    f"mean_{short}_acc": (f"{name}_accuracy@{{epochs}}", "mean of 3", "{epochs}")
    for short, name in (("train", "train"), ("val", "valid"), ("test", "test"))
}
RETRAINED: Columns = {
    column: (f"retrained_{name}@{{epochs}}", "{repeat}", "{epochs}")
    for column, name in (
        ("train_acc", "train_accuracy"),
        ("val_acc", "valid_accuracy"),
        ("test_acc", "test_accuracy"),
        ("training_time_s", "training_time"),
        ("energy_kWh", "energy"),
    )
}
ZEN: Columns = {"zen": ("zen_score", "naslib", "0")}


def convert(path: Path, space: NASBench101Space) -> dict[str, Metric]:
    r"""Reads one table.

    Raises:
        DataFileError: If it is none of the known ones, a row is malformed, or a row's cell has not the row's hash or
            number of parameters; the message names the line.
    """
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else open(path, newline="") as file:
        reader = csv.DictReader(file)
        header = set(reader.fieldnames or ())
        rows = list(reader)
    columns = next((c for c in (SINGLE, MEANS, RETRAINED, ZEN) if header >= set(c)), None)
    if columns is None or not header >= {"module_hash", "adj_upper_rowmajor", "interior_ops"}:
        raise DataFileError(f"{path} is none of the known tables; its columns are {', '.join(sorted(header))}")
    index = _check_cells(path, rows, space)
    cells: dict[str, dict[tuple[str, int], list[tuple[int, float]]]] = {}
    for line, (position, row) in enumerate(zip(index, rows, strict=True), start=2):
        for column, (name, seed, epoch) in columns.items():
            try:
                key = seed.format(**row), int(epoch.format(**row))
                cells.setdefault(name.format(**row), {}).setdefault(key, []).append((position, float(row[column])))
            except ValueError as error:
                raise DataFileError(f"{path}, line {line}, column {column}: {error}") from error
    return dict(_metrics(path, cells, len(space)))


def _check_cells(path: Path, rows: Sequence[dict[str, str]], space: NASBench101Space) -> list[int]:
    archs = [NASBench101Arch(row["adj_upper_rowmajor"], row["interior_ops"]) for row in rows]
    distinct = list(dict.fromkeys(archs))
    try:
        hashes = dict(zip(distinct, space.batch_canonical(distinct), strict=True))
    except InvalidArchitectureError as error:
        raise DataFileError(f"{path}: {error}") from error
    parameters = dict(zip(distinct, space.batch_num_parameters(distinct).tolist(), strict=True))
    for line, (arch, row) in enumerate(zip(archs, rows, strict=True), start=2):
        if row["module_hash"] != hashes[arch]:
            raise DataFileError(f"{path}, line {line}: the cell {arch} has the hash {hashes[arch]}")
        if int(row.get("trainable_parameters", parameters[arch])) != parameters[arch]:
            raise DataFileError(f"{path}, line {line}: the cell {arch} has {parameters[arch]} parameters")
    return space.index_hashes([row["module_hash"] for row in rows]).tolist()


def _metrics(
    path: Path, cells: dict[str, dict[tuple[str, int], list[tuple[int, float]]]], size: int
) -> Iterator[tuple[str, Metric]]:
    for name, runs in cells.items():
        seeds = tuple(dict.fromkeys(seed for seed, _ in runs))
        epochs = tuple(sorted({epoch for _, epoch in runs}))
        values = torch.full((size, len(seeds), len(epochs)), float("nan"))
        for (seed, epoch), pairs in runs.items():
            position = [i for i, _ in pairs]
            if len(set(position)) != len(position):
                raise DataFileError(f"{path}: a cell has two values of {name} for {seed} at {epoch} epochs")
            values[position, seeds.index(seed), epochs.index(epoch)] = torch.tensor([value for _, value in pairs])
        yield name, Metric.from_values(values, seeds, epochs, *units(name))


def main(inputs: Sequence[Path], output: Path) -> None:
    r"""Converts the tables into one."""
    space = NASBench101Space()
    metrics: dict[str, Metric] = {}
    for path in inputs:
        new = convert(path, space)
        if both := sorted(metrics.keys() & new.keys()):
            raise DataFileError(f"{path} gives {', '.join(both)} like an input before it; convert them separately")
        metrics |= new
        logger.info("%s: %s", path, ", ".join(f"{name} {metric!r}" for name, metric in new.items()))
    write_compact(output, space.batch_canonical(), metrics)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", type=Path, help="published tables")
    parser.add_argument("output", type=Path, help="compact table, ending in .csv, .csv.gz or .parquet")
    arguments = parser.parse_args()
    main(arguments.inputs, arguments.output)
