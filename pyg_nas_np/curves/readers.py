r"""Readers of learning curves: published tables, long tables, Lightning's CSV logs, benchmark metrics."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import yaml

from pyg_nas_np.curves.data import Direction, LearningCurves
from pyg_nas_np.datasets.base import ArchitectureDataset
from pyg_nas_np.utils import DataFileError, InvalidCurvesError, MissingLabelsError, foreign_file
from pyg_nas_np.utils.files import max_bytes, read_bytes
from pyg_nas_np.utils.table_files import Table, read_csv, read_parquet

logger = logging.getLogger(__name__)

PathLike: TypeAlias = "str | os.PathLike[str]"

_LARGEST = 1e300
_BAKER_ARCHITECTURE = ("num_params", "depth", "num_blocks", "num_filters", "filter_size", "n_layer", "n_inputs",
                       "num_weights")  # fmt: skip
_BAKER_TEXT = ("net", "base_model", "training_dataset")
_NAAP_FEATURES = (
    "NumParams", "NumMACs", "NumLayers", "NumStages", "FirstLayerWidth", "LastLayerWidth",
    "NumSkipConnections", "NumPartialRFLayers",
)  # fmt: skip
_PROXIES = ("grad_norm", "snip", "grasp", "fisher", "jacob_cov", "plain", "synflow_bn", "synflow")


def read_baker(path: PathLike, *, first_epoch: int | None = None) -> LearningCurves:
    r"""Reads a CSV of Baker et al. (2017), `Accelerating Neural Architecture Search using Performance Prediction`.

    The curve columns are ``acc_n``, or ``ep_n`` in the language models' file, which contains perplexities: direction
    ``"down"``. Duplicate rows are dropped (33 in the TinyImageNet file). Numeric columns that do not describe the
    network are hyperparameters. For ResNets the product ``num_weights`` = blocks × filters² × size² is added, which is
    proportional to the number of weights.

    Args:
        path: The file.
        first_epoch: Number of completed epochs at the first curve column. Column 0 is the untrained network in the
            TinyImageNet and ImageNet files, but a trained one in ``deep_resnets_cifar10`` and ``lstm_ptb``: pass 1.
            (default: the number in the column's name)

    Raises:
        DataFileError: If a cell is not a number, curve columns are absent, repeated or not consecutive.
    """
    text = read_csv(path)
    header, rows = text.header, text.rows
    found = [(column, match) for column, name in enumerate(header) if (match := re.fullmatch(r"(acc|ep)_(\d+)", name))]
    if not found:
        raise DataFileError(f"{os.fspath(path)} has no columns acc_1, acc_2, … or ep_0, ep_1, …")
    kinds = {match[1] for _, match in found}
    epochs = [int(match[2]) for _, match in found]
    if len(kinds) > 1 or epochs != list(range(epochs[0], epochs[0] + len(epochs))):
        names = ", ".join(match[0] for _, match in found[:4])
        raise DataFileError(f"{os.fspath(path)}: curve columns must be consecutive and of one kind, found {names}, …")
    if first_epoch is not None:
        epochs = list(range(first_epoch, first_epoch + len(found)))
    curves = {column for column, _ in found}
    numbers = [
        column for column, name in enumerate(header) if column not in curves and name not in _BAKER_TEXT and name
    ]
    table = {header[column]: _numbers(text, [column])[:, 0] for column in numbers}
    if {"num_blocks", "num_filters", "filter_size"} <= table.keys():
        # The paper's AP features are the weights and layers; the former are proportional to a product of these columns.
        table["num_weights"] = table["num_blocks"] * table["num_filters"] ** 2 * table["filter_size"] ** 2
    net = header.index("net") if "net" in header else None
    result = LearningCurves(
        _numbers(text, sorted(curves)),
        "down" if kinds == {"ep"} else "up",
        tuple(epochs),
        {name: column for name, column in table.items() if name in _BAKER_ARCHITECTURE},
        {name: column for name, column in table.items() if name not in _BAKER_ARCHITECTURE},
        () if net is None else tuple(row[net] for row in rows),
    )
    unique = result.unique()
    if len(unique) < len(result):
        logger.info("%s: left out %d repeated rows", os.fspath(path), len(result) - len(unique))
    return unique


def read_naap440(path: PathLike, part: Literal["all", "train", "test"] = "all") -> LearningCurves:
    r"""Reads ``naap440.csv`` of the NAAP-440 data set: test accuracy over 90 epochs of 440 small networks.

    The learning rate is cyclic with period 3, so every third epoch, the last one included, ends a cycle.

    Args:
        path: The file.
        part: ``"test"`` for the 40 rows marked as such, ``"train"`` for the others.

    Raises:
        DataFileError: If a column is absent or a cell is not a number.
    """
    table = read_csv(path, (*_NAAP_FEATURES, "ModelId", "IsTest"))
    header, rows = table.header, table.rows
    epochs = sorted(int(match[1]) for name in header if (match := re.fullmatch(r"e(\d+)Accuracy", name)))
    missing = {"ModelId", "IsTest"} - set(header)
    if missing or not epochs:
        raise DataFileError(f"{os.fspath(path)} lacks the columns {sorted(missing) or 'e1Accuracy, e2Accuracy, …'}")
    if part not in ("all", "train", "test"):
        raise ValueError(f"part must be 'all', 'train' or 'test' but is {part!r}")
    names = [name for name in _NAAP_FEATURES if name in header]
    features = _numbers(table, [header.index(name) for name in names])
    result = LearningCurves(
        _numbers(table, [header.index(f"e{epoch}Accuracy") for epoch in epochs]),
        "up",
        tuple(epochs),
        dict(zip(names, features.T, strict=True)),
        configs=tuple(row[header.index("ModelId")] for row in rows),
    )
    test = _numbers(table, [header.index("IsTest")])[:, 0] > 0
    return result if part == "all" else result[test if part == "test" else ~test]


def read_nasbench201_curves(path: PathLike, split: Literal["train", "val"] = "val") -> LearningCurves:
    r"""Reads ``curves_200.csv``: 200 cells of NAS-Bench-201, accuracy in percent over 200 epochs, zero-cost proxies.

    Proxies that are missing for some cell, such as ``jacob_cov``, are dropped. For the official files see
    :func:`curves_of`.

    Args:
        path: The file, with columns ``arch_i``, ``arch_str``, proxies, ``train_accs`` and ``val_accs``.
        split: Which of the two curves.

    Raises:
        DataFileError: If a column is absent or a curve is not a list of numbers.
    """
    column = f"{split}_accs"
    table = read_csv(path, (*_PROXIES, "arch_str", column))
    header, rows = table.header, table.rows
    if column not in header or "arch_str" not in header:
        raise DataFileError(f"{os.fspath(path)} lacks the columns 'arch_str' and '{column}'")
    place = header.index(column)
    values = []
    for line, row in enumerate(rows):
        try:
            values.append([float(v) for v in json.loads(row[place])])
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise DataFileError(f"{table.where(line)}: '{column}' is not a list of numbers") from error
        if len(values[-1]) != len(values[0]):
            raise DataFileError(
                f"{table.where(line)}: {len(values[-1])} epochs, line {table.lines[0]} has {len(values[0])}"
            )
    proxies = [name for name in _PROXIES if name in header and all(row[header.index(name)] for row in rows)]
    features = _numbers(table, [header.index(name) for name in proxies])
    names = tuple(row[header.index("arch_str")] for row in rows)
    return LearningCurves(np.array(values), "up", (), dict(zip(proxies, features.T, strict=True)), configs=names)


def curves_of(dataset: ArchitectureDataset, metric: str | None = None, direction: Direction = "up") -> LearningCurves:
    r"""Returns the curves of a benchmark's metric (seed means) with parameters and FLOPs, for its labelled cells.

    Args:
        dataset: A data set whose source has every epoch, such as the official NAS-Bench-201 files.
        metric: Key of its ``metrics``. (default: that in ``y``)
        direction: ``"down"`` for losses.

    Raises:
        MissingLabelsError: If the metric is not available, or was recorded at only one epoch.
    """
    name = dataset.metric if metric is None else metric
    if name not in dataset.metrics:
        raise MissingLabelsError(f"{name} is not available (available: {', '.join(dataset.metrics) or 'none'})")
    measured = dataset.metrics[name]
    if len(measured.epochs) < 2:
        raise MissingLabelsError(
            f"{name} from {dataset.source.name} was recorded at epoch {measured.epochs[0]} only; curves need the "
            f"official files in {dataset.raw_dir}"
        )
    rows = measured.mask[:, :, -1].any(1).nonzero()[:, 0]
    archs = [dataset.space[int(i)] for i in rows]
    costs = {
        "num_parameters": dataset.space.batch_num_parameters(archs).double().numpy(),
        "flops": dataset.space.batch_flops(archs).double().numpy(),
    }
    names = tuple(dataset.space.to_str(arch) for arch in archs)
    return LearningCurves(measured.curve()[rows].double().numpy(), direction, measured.epochs, costs, configs=names)


def read_long(
    path: PathLike,
    direction: Direction,
    *,
    config: str = "config",
    epoch: str = "epoch",
    value: str = "value",
    architecture: Sequence[str] = (),
    hyperparameters: Sequence[str] = (),
) -> LearningCurves:
    r"""Reads a long table, CSV or Parquet: one row per configuration and epoch, epochs of a configuration in order.

    An empty cell (or null) was not measured; ``nan`` and ``inf`` mean that the training diverged.

    Args:
        path: The file; ``.parquet`` needs the extra ``data``.
        direction: Whether more (``"up"``) or less (``"down"``) is better.
        config: Column of the configurations' names.
        epoch: Column of the epochs, whole numbers.
        value: Column of the values.
        architecture: Numeric columns that describe the architecture; constant within a configuration.
        hyperparameters: Numeric columns that describe the training; likewise.

    Raises:
        DataFileError: If a column is absent or a cell is not a number; the message names line and column.
        InvalidCurvesError: If the epochs of a configuration do not increase, or a feature changes within one.
    """
    names = (*architecture, *hyperparameters)
    table = _read_table(path, (config, epoch, value, *names))
    header, rows = table.header, table.rows
    table.require((config, epoch, value, *names))
    features = _numbers(table, [header.index(name) for name in names])
    steps = _numbers(table, [header.index(epoch)])[:, 0]
    values = _numbers(table, [header.index(value)], keep_empty=True)[:, 0]
    runs: dict[str, dict[int, float]] = {}
    known: dict[str, int] = {}
    for i, row in enumerate(rows):
        if not abs(steps[i]) < 1e15 or steps[i] != int(steps[i]):
            raise DataFileError(f"{table.where(i)}: epoch {steps[i]} is not a whole number")
        run = runs.setdefault(row[header.index(config)], {})
        first = known.setdefault(row[header.index(config)], i)
        if run and int(steps[i]) <= next(reversed(run)):
            raise InvalidCurvesError(
                f"{table.where(i)}: epoch {int(steps[i])} of configuration "
                f"'{row[header.index(config)]}' follows epoch {next(reversed(run))}; sort the rows by epoch"
            )
        if not np.array_equal(features[i], features[first], equal_nan=True):
            raise InvalidCurvesError(
                f"{table.where(i)}: a feature of configuration '{row[header.index(config)]}' differs "
                f"from that in line {table.lines[first]}"
            )
        run[int(steps[i])] = float(values[i])
    first_rows = features[list(known.values())]
    described = dict(zip(names, first_rows.T, strict=True))
    return from_runs(
        runs,
        direction,
        {name: described[name] for name in architecture},
        {name: described[name] for name in hyperparameters},
    )


def from_runs(
    runs: Mapping[str, Mapping[int, float]],
    direction: Direction,
    architecture: Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> LearningCurves:
    r"""Builds curves from one ``{epoch: value}`` per configuration; their epochs are the union.

    Example:
        >>> from_runs({"a": {1: 0.3, 2: 0.5}, "b": {1: 0.2}}, "up").lengths
        array([2, 1])
    """
    epochs = sorted({epoch for run in runs.values() for epoch in run})
    if not epochs:
        raise InvalidCurvesError("no configuration has a value")
    if len(runs) * len(epochs) * 8 > max_bytes():
        raise InvalidCurvesError(
            f"{len(runs)} configurations over {len(epochs)} different epochs take more than {max_bytes()} bytes; thin "
            f"out the epochs, or raise the environment variable PYG_NAS_NP_MAX_BYTES"
        )
    column = {epoch: i for i, epoch in enumerate(epochs)}
    values = np.full((len(runs), len(epochs)), np.nan)
    for row, run in enumerate(runs.values()):
        values[row, [column[epoch] for epoch in run]] = list(run.values())
    return LearningCurves(values, direction, tuple(epochs), architecture or {}, hyperparameters or {}, tuple(runs))


def read_lightning_logs(folders: Iterable[PathLike], metric: str, direction: Direction) -> LearningCurves:
    r"""Reads the ``metrics.csv`` of Lightning's ``CSVLogger``, one folder (``version_0``, …) per training.

    The last value logged in an epoch is used. Numbers and booleans that occur in every ``hparams.yaml`` are
    hyperparameters.

    Args:
        folders: The folders.
        metric: Name of the logged metric, ``"val_acc"``.
        direction: Whether more or less is better.

    Raises:
        DataFileError: If a file is absent or malformed, or a log lacks the metric.
    """
    runs: dict[str, dict[int, float]] = {}
    settings = []
    for folder in map(Path, folders):
        path = folder / "metrics.csv"
        table = read_csv(path)
        table.require(("epoch", metric))
        place = table.place(metric)
        logged = [i for i, row in enumerate(table.rows) if row[place]]
        table = Table(path, table.header, [table.rows[i] for i in logged], [table.lines[i] for i in logged])
        epochs = _numbers(table, [table.place("epoch")])[:, 0]
        values = _numbers(table, [place])[:, 0]
        if not (np.abs(epochs) < 1e15).all():
            raise DataFileError(f"{path}: an epoch is not a whole number")
        if (np.diff(epochs) < 0).any():
            raise InvalidCurvesError(f"{path}: epochs go backwards; the file mixes two trainings")
        name = os.fspath(folder)
        if name in runs:
            raise InvalidCurvesError(f"{name} is given twice")
        runs[name] = dict(zip(epochs.astype(int).tolist(), values.tolist(), strict=True))
        settings.append(_hparams(folder / "hparams.yaml"))
    shared = [name for name in (settings[0] if settings else {}) if all(name in other for other in settings)]
    return from_runs(runs, direction, hyperparameters={name: [s[name] for s in settings] for name in shared})


def _hparams(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    content = read_bytes(path)
    with foreign_file(path, "plain YAML"):
        loaded = yaml.safe_load(content)
    items = loaded.items() if isinstance(loaded, dict) else ()
    return {str(k): float(v) for k, v in items if isinstance(v, (bool, int, float)) and abs(v) < _LARGEST}


def _read_table(path: PathLike, names: Sequence[str]) -> Table:
    if Path(path).suffix != ".parquet":
        return read_csv(path, names)
    table = read_parquet(path)
    columns = [["" if v is None else repr(v) if isinstance(v, float) else str(v) for v in c.to_pylist()] for c in table]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(path, list(table.column_names), rows, range(1, len(rows) + 1))


def _numbers(table: Table, columns: Sequence[int], keep_empty: bool = False) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The cells of some columns; empty ones become NaN if allowed, and other non-finite ones infinite."""
    numbers = np.empty((len(table.rows), len(columns)))
    for i, row in enumerate(table.rows):
        for j, column in enumerate(columns):
            if not row[column] and (keep_empty or re.fullmatch(r"(acc|ep)_\d+|e\d+Accuracy", table.header[column])):
                numbers[i, j] = math.nan
                continue
            number = table.number(i, column)
            numbers[i, j] = math.inf if math.isnan(number) else number
    return numbers
