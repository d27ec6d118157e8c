r"""The compact label table: one row per architecture, one column per measurement.

Format, version 1. A CSV (optionally gzipped) or Parquet file. The first column, ``arch``, identifies the architecture
(NAS-Bench-201: official string; NAS-Bench-101: official hash; NAS-Bench-Graph: decimal key). Every other column is
``metric/seed/epoch``, for example ``valid_accuracy@200/777/200``: the metric with the training budget after ``@``, the
name of the seed, and the number of completed epochs. An empty cell is a missing measurement.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.utils import DataFileError, atomic_path, foreign_file, require
from pyg_nas_np.utils.files import check_size
from pyg_nas_np.utils.table_files import read_csv, read_parquet

Units = Callable[[str], tuple[str, str]]
"""Maps a metric's name to its unit and the benchmark's name of its image split."""

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def find_compact(folder: Path, stem: str) -> Path | None:
    r"""Returns the compact table ``folder/stem.{csv,csv.gz,parquet}`` that exists, if any."""
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.exists():
            return path
    return None


def read_compact(
    path: Path, index: Callable[[Sequence[str]], Sequence[int]], size: int, units: Units
) -> dict[str, Metric]:
    r"""Reads a compact table.

    Args:
        path: The table.
        index: Maps the ``arch`` column to official indices; raises for an architecture outside the space.
        size: Number of architectures of the space.
        units: Gives unit and split of each metric.

    Raises:
        DataFileError: If the table is malformed; the message names the line or column.
        InvalidArchitectureError: If a row is for an architecture outside the space.
    """
    header, names, columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    rows = torch.as_tensor(index(names), dtype=torch.long, device="cpu")
    if len(set(rows.tolist())) != len(names):
        seen: set[str] = set()
        double = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataFileError(f"{path}: architecture {double} has more than one row")
    grouped: dict[str, dict[tuple[str, int], list[float]]] = {}
    for label, values in zip(header, columns, strict=True):
        metric, seed, epoch = _parse_column(path, label)
        if (seed, epoch) in grouped.get(metric, {}):
            raise DataFileError(f"{path}: column '{label}' occurs twice, once in another spelling; leave one out")
        grouped.setdefault(metric, {})[seed, epoch] = values
    metrics = {}
    for metric, cells in grouped.items():
        seeds = list(dict.fromkeys(seed for seed, _ in cells))
        epochs = sorted({epoch for _, epoch in cells})
        check_size(path, 4 * size * len(seeds) * len(epochs))
        table = torch.full((size, len(seeds), len(epochs)), math.nan, dtype=torch.float32, device="cpu")
        for (seed, epoch), values in cells.items():
            table[rows, seeds.index(seed), epochs.index(epoch)] = torch.tensor(
                values, dtype=torch.float32, device="cpu"
            )
        unit, split = units(metric)
        metrics[metric] = Metric.from_values(table, tuple(seeds), tuple(epochs), unit, split)
    return metrics


def write_compact(path: Path, archs: Sequence[str], metrics: dict[str, Metric]) -> None:
    r"""Writes a compact table atomically, without rows that have no measurement.

    Args:
        path: Target, ending in ``.csv``, ``.csv.gz`` or ``.parquet``.
        archs: Names of all architectures of the space, in official order.
        metrics: The measurements.

    Raises:
        ValueError: If the suffix is none of the three.
    """
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path.name} must end in one of {', '.join(SUFFIXES)}")
    labels: list[str] = []
    columns: list[list[float | None]] = []
    keep = torch.zeros(len(archs), dtype=torch.bool, device="cpu")
    for metric in metrics.values():
        keep |= metric.mask.flatten(1).any(dim=1)
    rows = keep.nonzero().flatten()
    for name, metric in metrics.items():
        for s, seed in enumerate(metric.seeds):
            for e, epoch in enumerate(metric.epochs):
                labels.append(f"{name}/{seed}/{epoch}")
                values = metric.values[rows, s, e].tolist()
                columns.append([None if math.isnan(v) else _shortest(v) for v in values])
    names = [archs[i] for i in rows.tolist()]
    with atomic_path(path) as tmp:
        if path.suffix == ".parquet":
            arrow, parquet = require("pyarrow", "data"), require("pyarrow.parquet", "data")
            table = arrow.table({"arch": names, **dict(zip(labels, columns, strict=True))})
            parquet.write_table(table, tmp)
            return
        with io.StringIO(newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["arch", *labels])
            writer.writerows(zip(names, *columns, strict=True))
            content = text.getvalue().encode()
        # A fixed time stamp makes files of equal tables identical.
        tmp.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _shortest(value: float) -> float:
    # float32 values print as the shortest decimal that reads back to the same float32.
    return float(f"{value:.9g}") if float(f"{value:.7g}") != value else float(f"{value:.7g}")


def _parse_column(path: Path, label: str) -> tuple[str, str, int]:
    parts = label.split("/")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 10) or not all(parts):
        raise DataFileError(f"{path}: column '{label}' is not of the form metric/seed/epoch")
    return parts[0], parts[1], int(parts[2])


def _read_csv(path: Path) -> tuple[list[str], list[str], list[list[float]]]:
    table = read_csv(path, ["arch"])
    if table.header[0] != "arch" or len(table.header) < 2:
        raise DataFileError(f"{path}: the first line must be 'arch,metric/seed/epoch,...', found {table.header[:3]}")
    rows = range(len(table.rows))
    columns = [
        [table.number(row, place) if table.rows[row][place] else math.nan for row in rows]
        for place in range(1, len(table.header))
    ]
    return table.header[1:], table.column("arch"), columns


def _read_parquet(path: Path) -> tuple[list[str], list[str], list[list[float]]]:
    table = read_parquet(path)
    if table.column_names[:1] != ["arch"] or table.num_columns < 2:
        raise DataFileError(f"{path}: the first column must be 'arch', found {table.column_names[:3]}")
    with foreign_file(path, "a table of numbers"):
        columns = [
            [math.nan if v is None else float(v) for v in table[name].to_pylist()] for name in table.column_names[1:]
        ]
        return table.column_names[1:], [str(v) for v in table["arch"].to_pylist()], columns
