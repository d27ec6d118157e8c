r"""NAS-Bench-Graph: 26,206 graph neural networks trained on nine node-classification data sets."""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from pyg_nas_np.datasets.base import ArchitectureDataset, Check, Source
from pyg_nas_np.datasets.compact import find_compact, read_compact
from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.processed import SourceInfo
from pyg_nas_np.metrics.functional import spearman_rho
from pyg_nas_np.spaces.nasbenchgraph import DATASETS, Dataset, NASBenchGraphSpace
from pyg_nas_np.spaces.registry import shared_space
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    check_sha256,
    foreign_file,
    load_pickle,
    numpy_scalar_globals,
    open_regular,
)


class _Column(NamedTuple):
    field: str  # name in the benchmark's files
    unit: str
    split: str


_COLUMNS: dict[str, _Column] = {
    "valid_accuracy": _Column("valid_perf", "fraction", "val"),
    "test_accuracy": _Column("perf", "fraction", "test"),
    "latency": _Column("latency", "seconds", ""),
    "parameters": _Column("para", "megaparameters", ""),
}


class _Release(NamedTuple):
    """Statistics of the released table, and the length of the trainings."""

    epochs: int
    labelled: int
    best_test_key: int
    best_test: float
    spearman: float  # of validation and test


_RELEASES: dict[str, _Release] = {
    "cora": _Release(400, 26206, 77016, 0.831333, 0.732),
    "citeseer": _Release(400, 26206, 47206, 0.715667, 0.928),
    "pubmed": _Release(500, 26206, 21512, 0.786000, 0.539),
    "cs": _Release(400, 26206, 21506, 0.912624, 0.962),
    "physics": _Release(200, 26206, 45155, 0.930049, 0.868),
    "photo": _Release(500, 26206, 30747, 0.927896, 0.914),
    "computers": _Release(500, 26206, 20407, 0.855834, 0.723),
    "arxiv": _Release(500, 26206, 81344, 0.723865, 0.974),
    "proteins": _Release(500, 2021, 85414, 0.792634, 0.498),
}

_SHA256 = {
    "cora": "5e69b2f9bb08d8927d9ffd4921f8494a3cea349c9c3a461334cb9dc9e11701a8",
    "citeseer": "99c7f79b73372636305bf73fb32a58b63c57bd1871a152dd62ec72d984c8c50f",
    "pubmed": "10b4dcf6cfd3a24f6059f7d541a4a872960b4adac0b3dba26abed1bb9a3d904d",
    "cs": "71ae8469930517160b024f52db6000a4897f1aff5d765beb27bb60952ed5bd31",
    "physics": "1e309bafee0b832c8b84fa3c039c36992bc0a910238b128f26b7e9190d7f2aea",
    "photo": "5511b4dc3f63fa988792177227db7901290fb9b27fc6c02e3036b29e134ed6df",
    "computers": "fdb3dc0cf405d62322f0ab9614b2083c2a5e6576c2f43e4f2214be64bc62b1b3",
    "arxiv": "7ee21a7653297a806c0ed1be3efe6ecc06acc84e48e942da0bfde0e5d287debe",
    "proteins": "b9e7fb0902bda44fec32c948e5fde822fb22d38d674c52e43ace5197378f2d21",
}
"""Checksums of the tables of nas-bench-graph 1.4.0."""

_CORA_ROWS: dict[int, dict[str, float]] = {
    0: {"valid_accuracy": 0.773333, "test_accuracy": 0.797, "parameters": 1.736711},
    81111: {"valid_accuracy": 0.786667, "test_accuracy": 0.759667, "parameters": 0.634119},
}

_PACKAGE = "nas_bench_graph"


class NASBenchGraph(ArchitectureDataset):
    r"""The 26,206 networks of `NAS-Bench-Graph <https://arxiv.org/abs/2206.09166>`_, by key, on one of nine data sets.

    .. list-table:: **STATS:**
        :header-rows: 1

        * - data set
          - labelled networks
          - best test value
          - Spearman of validation and test
        * - ``cora``
          - 26,206
          - .8313
          - .732
        * - ``citeseer``
          - 26,206
          - .7157
          - .928
        * - ``pubmed``
          - 26,206
          - .7860
          - .539
        * - ``cs``
          - 26,206
          - .9126
          - .962
        * - ``physics``
          - 26,206
          - .9300
          - .868
        * - ``photo``
          - 26,206
          - .9279
          - .914
        * - ``computers``
          - 26,206
          - .8558
          - .723
        * - ``arxiv``
          - 26,206
          - .7239
          - .974
        * - ``proteins``
          - 2,021
          - .7926
          - .498

    Metrics, each a mean over three runs: ``valid_accuracy`` and ``test_accuracy`` (fractions; ROC-AUC on ``proteins``;
    predictors should use validation), ``latency`` (seconds) and ``parameters`` (millions, as stored; ``num_parameters``
    of each graph is computed and exact).

    Label sources, in this order:

    - ``"bench"``: the benchmark's file ``<dataset>.bench`` in ``root/raw``,
    - ``"compact-table"``: a table ``nasbenchgraph-<dataset>.{csv,csv.gz,parquet}`` in ``root/raw``
      (:mod:`pyg_nas_np.datasets.compact`; the ``arch`` column holds the decimal key),
    - ``"nas-bench-graph"``: the installed package of this name (extra ``data``, version 1.4.0), which is read but never
      imported.

    Args:
        root: Folder of the data set; all nine can share one.
        dataset: The node-classification data set.
        metric: The metric in ``y``. (default: ``"valid_accuracy"``)
        **kwargs: Arguments of :class:`~pyg_nas_np.datasets.ArchitectureDataset`.

    Raises:
        ValueError: If :obj:`dataset` is unknown.
        MissingLabelsError: If a metric or source was named and is not available.
        DataFileError: If a label file is truncated, corrupt or of another format.
        ChecksumError: If the package's table is not that of version 1.4.0.
        ForbiddenPickleError: If a ``.bench`` file contains anything but numbers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     dataset = NASBenchGraph(root, "cora", source="graphs-only")
        ...     len(dataset), dataset[13881].num_parameters.item(), str(dataset.arch(13881))
        (26206, 765191, '0112|gcn|gin|cheb|fc')
    """

    default_metrics: ClassVar[tuple[str, ...]] = ("valid_accuracy",)
    label_help: ClassVar[str] = (
        "Install the labels with: pip install 'pyg-nas-np[data]' (package nas-bench-graph), or put the benchmark's "
        "file <task>.bench or a table nasbenchgraph-<task>.csv into the raw folder of the data set."
    )

    def __init__(self, root: str, dataset: Dataset = "cora", metric: str | None = None, **kwargs: Any) -> None:
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
        self.dataset = dataset
        self._space = shared_space(NASBenchGraphSpace, dataset=dataset)
        super().__init__(root, metric, **kwargs)

    @property
    def space(self) -> NASBenchGraphSpace:
        r"""The search space, with the costs of this data set."""
        return self._space

    @property
    def processed_dir(self) -> str:
        r"""Separate folders for the nine data sets, so that they can share a root."""
        return str(Path(self.root) / "processed" / self.dataset)

    def sources(self) -> list[Source]:
        r"""Returns the available label sources, best first."""
        found = []
        raw = Path(self.raw_dir)
        dropped = raw / f"{self.dataset}.bench"
        if dropped.exists():
            found.append(Source(SourceInfo.from_path("bench", dropped), lambda: self._read_bench(dropped)))
        compact = find_compact(raw, f"nasbenchgraph-{self.dataset}")
        if compact is not None:
            found.append(Source(SourceInfo.from_path("compact-table", compact), lambda: self._read_compact(compact)))
        packaged = _packaged_file(self.dataset)
        if packaged is not None:
            info = SourceInfo.from_path("nas-bench-graph", packaged)
            found.append(Source(info, lambda: self._read_package(packaged)))
        return found

    def arch_names(self) -> list[str]:
        r"""Returns the decimal keys, which identify the networks in compact tables."""
        return self.space.batch_canonical()

    def published(self) -> list[Check]:
        r"""Returns the statistics of release 1.4.0 with this data set's, for the available metrics."""
        release = _RELEASES[self.dataset]
        have = {name: metric.mean() for name, metric in self.metrics.items() if name in _COLUMNS}
        checks = [Check("architectures", 26206, len(self.space), 0)]
        checks += [
            Check(f"labelled architectures, {name}", release.labelled, int((~values.isnan()).sum()), 0)
            for name, values in have.items()
        ]
        keys = [int(key) for key in self.arch_names()]
        if "test_accuracy" in have:
            best = int(have["test_accuracy"].nan_to_num(nan=-1.0).argmax())
            checks.append(Check("key of the best test accuracy", release.best_test_key, keys[best], 0))
            checks.append(Check("best test accuracy", release.best_test, float(have["test_accuracy"][best]), 1e-6))
        if {"valid_accuracy", "test_accuracy"} <= have.keys():
            both = ~(have["valid_accuracy"].isnan() | have["test_accuracy"].isnan())
            if int(both.sum()) > 1:
                valid, test = have["valid_accuracy"][both], have["test_accuracy"][both]
                rho = float(spearman_rho(valid, test, undefined=math.nan))
                checks.append(Check("Spearman of validation and test", release.spearman, rho, 6e-4))
        if self.dataset == "cora":
            checks += [
                Check(f"{name} of key {key}", expected, float(have[name][keys.index(key)]), 1e-6)
                for key, row in _CORA_ROWS.items()
                for name, expected in row.items()
                if name in have
            ]
        return checks

    def _read_package(self, path: Path) -> dict[str, Metric]:
        check_sha256(path, _SHA256[self.dataset])
        return self._read_bench(path)

    def _read_bench(self, path: Path) -> dict[str, Metric]:
        with open_regular(path) as file:
            table = load_pickle(file, allowed=numpy_scalar_globals(), label=str(path))
        if not isinstance(table, dict) or not table:
            raise DataFileError(f"{path} must hold a non-empty dict of architectures, found {type(table).__name__}")
        fields = [column.field for column in _COLUMNS.values()]
        with foreign_file(path, f"a map of integer keys to dicts with {', '.join(fields)}"):
            keys = [operator.index(key) for key in table]
            rows = torch.tensor(
                [[float(row[field]) for field in fields] for row in table.values()], dtype=torch.float32, device="cpu"
            )
        bad = ~rows.isfinite()
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise DataFileError(f"{path}: {fields[column]} of architecture {keys[row]} is {rows[row, column]}")
        values = torch.full((len(self.space), len(fields)), torch.nan, dtype=torch.float32, device="cpu")
        try:
            values[self.space.index_of_keys(keys)] = rows
        except InvalidArchitectureError as error:
            raise DataFileError(f"{path}: {error}") from error
        epochs = (_RELEASES[self.dataset].epochs,)
        return {
            name: Metric.from_values(values[:, i].reshape(-1, 1, 1), ("mean of 3",), epochs, column.unit, column.split)
            for i, (name, column) in enumerate(_COLUMNS.items())
        }

    def _read_compact(self, path: Path) -> dict[str, Metric]:
        def units(metric: str) -> tuple[str, str]:
            if metric not in _COLUMNS:
                raise DataFileError(f"{path}: unknown metric '{metric}'; metrics: {', '.join(_COLUMNS)}")
            return _COLUMNS[metric].unit, _COLUMNS[metric].split

        return read_compact(path, self._index_of_names, len(self.space), units)

    def _index_of_names(self, names: Sequence[str]) -> Sequence[int]:
        for name in names:
            if not (name.isascii() and name.isdigit()):
                raise InvalidArchitectureError(f"{name!r} in the arch column is not a decimal key")
        indices: list[int] = self.space.index_of_keys([int(name) for name in names]).tolist()
        return indices

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, dataset={self.dataset!r})"


def _packaged_file(dataset: str) -> Path | None:
    """Locates the table inside the installed package without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / "light" / f"{dataset}.bench"
        if path.exists():
            return path
    return None
