r"""NAS-Bench-101 as a PyG data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pyg_nas_np.datasets._nasbench101_records import BUDGETS, QUANTITIES, REPEATS, ForeignCellError, read_measurements
from pyg_nas_np.datasets.base import ArchitectureDataset, Check, Source
from pyg_nas_np.datasets.compact import find_compact, read_compact
from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.processed import SourceInfo
from pyg_nas_np.spaces.nasbench101 import NASBench101Space
from pyg_nas_np.spaces.registry import shared_space
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    check_sha256,
    foreign_file,
    load_pickle,
    open_regular,
)
from pyg_nas_np.utils.download import download
from pyg_nas_np.utils.pickles import Ignored

Table = np.ndarray[Any, np.dtype[np.float32]]

_UNITS = {
    "time": "seconds",
    "latency": "seconds",
    "accuracy": "fraction",
    "error": "fraction of errors",
    "loss": "nats",
    "energy": "kilowatt-hours",
    "score": "score",
}


class NASBench101(ArchitectureDataset):
    r"""The 423,624 cells of `"NAS-Bench-101: Towards Reproducible Neural Architecture Search"
    <https://arxiv.org/abs/1902.09635>`_, each trained three times on CIFAR-10 at up to four budgets.

    ``dataset[i]`` is the cell with the ``i``-th smallest official hash. Graphs, parameters and FLOPs are exact and need
    no file. Labels come from the first of these sources that provides the metric:

    1. ``nasbench_full.tfrecord`` or ``nasbench_only108.tfrecord``, the official files (SHA-256 verified);
    2. ``nasbench_only108.pkl`` of NASLib, or any other ``*.pkl`` of that structure;
    3. ``nasbench101.csv``, ``.csv.gz`` or ``.parquet``, a compact table (:mod:`pyg_nas_np.datasets.compact`) whose
       ``arch`` column holds the official hash;
    4. with ``download=True``, the official ``nasbench_only108.tfrecord`` (499 MB).

    The official files give :attr:`metrics` ``[423624, 3 repeats, 2]`` (halfway and final) named
    ``{train,valid,test}_accuracy@B`` and ``training_time@B`` for the budgets ``B`` = 4, 12, 36, 108 epochs. The budgets
    are separate trainings, each with its own learning-rate schedule: together they are **not** a learning curve.
    Repeats are numbered by their order in the file; failed runs (accuracy near 0.1) are kept.

    The best of three repeats is named ``valid_accuracy_best_of_3@108``. If the default metric is missing, it is used,
    with a message.

    Args:
        root: Folder of the data set.
        metric: The metric in ``y``. (default: ``"valid_accuracy@108"``)
        source: Use this source only: ``"tfrecord-full"``, ``"tfrecord-only108"``, ``"naslib-pickle"``,
            ``"compact-table"`` or ``"graphs-only"``.
        **kwargs: As for :class:`~pyg_nas_np.datasets.ArchitectureDataset`.

    **STATS:**

    .. list-table::
        :header-rows: 1

        * - #graphs
          - #nodes
          - #edges
          - #features
        * - 423,624
          - ~6.84
          - ~8.73
          - 5

    Example:
        >>> dataset = NASBench101("data/NASBench101")  # doctest: +SKIP
        >>> dataset[16569].num_parameters  # doctest: +SKIP
        tensor([2793866])
    """

    default_metrics: ClassVar[tuple[str, ...]] = ("valid_accuracy@108", "valid_accuracy_best_of_3@108")
    label_help: ClassVar[str] = (
        "Put nasbench_only108.tfrecord or nasbench_full.tfrecord (https://github.com/google-research/nasbench) or a "
        "compact table nasbench101.csv into the folder 'raw' of the data set, or pass download=True."
    )

    url: ClassVar[str] = "https://storage.googleapis.com/nasbench"
    checksums: ClassVar[Mapping[str, str]] = {
        "nasbench_full.tfrecord": "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c",
        "nasbench_only108.tfrecord": "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1",
    }
    """SHA-256 of the official files; files without an entry are not verified."""

    @cached_property
    def space(self) -> NASBench101Space:
        r"""The search space."""
        return shared_space(NASBench101Space)

    def sources(self) -> list[Source]:
        r"""Returns the label sources in ``raw_dir``."""
        raw = Path(self.raw_dir)
        official = [raw / f"nasbench_{name}.tfrecord" for name in ("full", "only108")]
        found = [self._official(path) for path in official if path.exists()]
        pickles = sorted(raw.glob("*.pkl"), key=lambda path: (path.name != "nasbench_only108.pkl", path.name))
        if pickles:
            path = pickles[0]
            found.append(Source(SourceInfo.from_path("naslib-pickle", path), partial(_read_naslib, path, self.space)))
        if (table := find_compact(raw, "nasbench101")) is not None:
            found.append(Source(SourceInfo.from_path("compact-table", table), partial(_read_table, table, self.space)))
        return found

    def arch_names(self) -> list[str]:
        r"""Returns the official hashes, which name the cells in compact tables."""
        return self.space.batch_canonical()

    def fetch(self) -> Source:
        r"""Downloads ``nasbench_only108.tfrecord``."""
        name = "nasbench_only108.tfrecord"
        return self._official(download(f"{self.url}/{name}", Path(self.raw_dir) / name, self.checksums[name]))

    def _official(self, path: Path) -> Source:
        kind = path.stem.removeprefix("nasbench_")
        return Source(SourceInfo.from_path(f"tfrecord-{kind}", path), partial(self._read_official, path))

    def _read_official(self, path: Path) -> dict[str, Metric]:
        if (expected := self.checksums.get(path.name)) is not None:
            check_sha256(path, expected)
        return _to_metrics(read_measurements(path, self.space))

    def published(self) -> list[Check]:
        r"""Returns the published statistics of the space and, if available, of the official labels."""
        parameters = self.space.batch_num_parameters()
        checks = [
            Check("architectures", 423_624, len(self.space), 0),
            Check("mean number of parameters", 8_459_761.888, float(parameters.double().mean()), 1e-3),
            Check("median number of parameters", 5_356_682, int(parameters.median()), 0),
            Check("distinct numbers of parameters", 3_336, len(set(parameters.tolist())), 0),
            Check("cells with the fewest parameters", 32, int((parameters == 227_274).sum()), 0),
            Check("cells with the most parameters", 42, int((parameters == 49_979_274).sum()), 0),
        ]
        if self.pre_filter is None:
            edges = self.slices["edge_index"].diff()
            for count, expected in enumerate((1, 3, 12, 60, 339, 2_134, 13_984, 78_822, 328_269), start=1):
                checks.append(Check(f"cells with {count} edges", expected, int((edges == count).sum()), 0))
            differing = int((self._data.num_parameters != parameters[self._data.arch_index]).sum())
            checks.append(Check("graphs with other parameters than their cell", 0, differing, 0))
        if self.source.name.startswith("tfrecord"):
            checks += [
                Check(f"runs of {name}", 3 * 423_624, int(metric.mask[:, :, -1].sum()), 0)
                for name, metric in self.metrics.items()
            ]
        return checks


def _to_metrics(tables: Mapping[int, Table]) -> dict[str, Metric]:
    repeats = tuple(str(k + 1) for k in range(REPEATS))
    metrics = {}
    for budget, table in tables.items():
        for k, quantity in enumerate(QUANTITIES):
            name = f"{quantity}@{budget}"
            values = torch.from_numpy(np.ascontiguousarray(table[..., k]))
            metrics[name] = Metric.from_values(values, repeats, (budget // 2, budget), *units(name))
    return metrics


def units(name: str) -> tuple[str, str]:
    r"""Returns unit and image split of a metric by its name.

    Example:
        >>> units("valid_accuracy_best_of_3@108")
        ('fraction', 'valid')
    """
    unit = next((unit for word, unit in _UNITS.items() if word in name), "")
    split = re.search("train(?=_accuracy)|valid|test", name)
    return unit, "" if split is None else split[0]


def _read_table(path: Path, space: NASBench101Space) -> dict[str, Metric]:
    return read_compact(path, lambda names: space.index_hashes(names).tolist(), len(space), units)


def _read_naslib(path: Path, space: NASBench101Space) -> dict[str, Metric]:
    r"""Reads a pickle of the form ``{hash: (fixed, {108: [three dicts]})}``."""
    with open_regular(path) as file:
        content = load_pickle(file, allowed=_numpy_array_globals(), label=str(path))
    if not isinstance(content, dict) or not content:
        raise DataFileError(f"{path} must hold a dict of cells by hash, found {type(content).__name__}")
    try:
        index = space.index_hashes([str(digest) for digest in content])
    except InvalidArchitectureError as error:
        raise ForeignCellError(f"{path}: {error}") from error
    keys = [
        [f"{when}_{quantity.replace('valid', 'validation')}" for quantity in QUANTITIES]
        for when in ("halfway", "final")
    ]
    tables: dict[int, Table] = {}
    for row, (digest, entry) in zip(index.tolist(), content.items(), strict=True):
        with foreign_file(path, f"a table of the format of NASLib: cell {str(digest)[:32]}"):
            for budget, runs in entry[1].items():
                if budget not in BUDGETS or len(runs) > REPEATS:
                    raise DataFileError(f"{path}: cell {digest} has {len(runs)} runs at {budget} epochs")
                if budget not in tables:
                    shape = (len(space), REPEATS, 2, len(QUANTITIES))
                    tables[budget] = np.full(shape, np.nan, dtype=np.float32)
                for repeat, run in enumerate(runs):
                    tables[budget][row, repeat] = [[run[key] for key in half] for half in keys]
    return _to_metrics(tables)


def _numpy_array_globals() -> dict[tuple[str, str], Any]:
    # Adjacency matrices are not needed, because the hash identifies the cell.
    names = [("numpy", "dtype"), ("numpy", "ndarray")]
    names += [(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")]
    return dict.fromkeys(names, Ignored)
