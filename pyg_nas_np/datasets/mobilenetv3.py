r"""Measured sub-networks of Once-for-All on MobileNetV3: ImageNet accuracies of DyNAS-T, GPU latencies of HELP."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.datasets.base import Check
from pyg_nas_np.datasets.processed import MANIFEST, ProcessedDataset, SourceInfo
from pyg_nas_np.metrics.functional import spearman_rho
from pyg_nas_np.spaces import MobileNetV3Arch, MobileNetV3Space
from pyg_nas_np.spaces.dense import collate
from pyg_nas_np.spaces.registry import shared_space
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    MissingLabelsError,
    VerificationError,
    foreign_file,
)
from pyg_nas_np.utils.table_files import read_csv, read_header

logger = logging.getLogger(__name__)

DEVICES = tuple(f"{gpu}_{batch}" for gpu in ("2080ti", "titan_rtx", "titan_xp", "v100") for batch in (1, 32, 64))
"""Settings of the latencies: GPU and batch size."""

METRICS = ("top1", *DEVICES)
"""Metrics for ``y``: ``"top1"`` in percent, latencies in milliseconds."""


class SubNetworks(NamedTuple):
    r"""Distinct sub-networks with their measurements.

    Args:
        archs: ``n`` architectures, in the order of the table.
        values: ``[n, M]`` float64: means over all measurements, one column per metric.
        lowest: ``[n, M]``: smallest measurements.
        highest: ``[n, M]``: largest measurements.
        n_meas: ``[n]`` int64: numbers of measurements.
    """

    archs: tuple[MobileNetV3Arch, ...]
    values: Tensor
    lowest: Tensor
    highest: Tensor
    n_meas: Tensor


def read_accuracies(path: str | Path) -> SubNetworks:
    r"""Reads a DyNAS-T table of ImageNet top-1 accuracies.

    Columns ``arch_json`` (``d``, ``ks``, ``e``, ``r``), ``params``, ``macs``, ``top1_mean``, ``n_meas``, ``top1_min``
    and ``top1_max``; others are ignored. Entries beyond the depth of a stage are ignored too: rows that differ only in
    these are the same sub-network and are merged (means weighted by ``n_meas``, which is summed).

    Args:
        path: The table, ``.csv`` or ``.csv.gz``.

    Raises:
        DataFileError: If the file is damaged, a column is missing, a value is no number or not an architecture, or
            ``params`` and ``macs`` are not those of the architecture. The message names the line.
    """
    columns = ("arch_json", "params", "macs", "top1_mean", "n_meas", "top1_min", "top1_max")
    archs, numbers = _read(Path(path), "arch_json", columns[1:])
    params, macs, mean, count, lowest, highest = numbers.unbind(dim=1)
    space = shared_space(MobileNetV3Space)
    for name, stored, exact in (
        ("params", params, space.batch_num_parameters(archs)),
        ("macs", macs, space.batch_flops(archs)),
    ):
        wrong = (stored != exact).nonzero().flatten()
        if wrong.numel():
            row = int(wrong[0])
            raise DataFileError(
                f"{path}, line {row + 2}: {name} is {stored[row]:.0f}, the network of width 1.0 has {int(exact[row])}"
            )
    if bool((count < 1).any()) or bool((lowest > mean + 1e-3).any()) or bool((highest < mean - 1e-3).any()):
        raise DataFileError(f"{path}: n_meas must be positive, and top1_min <= top1_mean <= top1_max")
    return _merged(archs, mean[:, None], lowest[:, None], highest[:, None], count.long())


def read_latencies(path: str | Path) -> SubNetworks:
    r"""Reads a HELP table of latencies: ``arch`` (JSON, as :func:`read_accuracies`) and one column for each of
    :data:`DEVICES`, in milliseconds; several rows of one sub-network are averaged.

    Args:
        path: The table, ``.csv`` or ``.csv.gz``.

    Raises:
        DataFileError: As :func:`read_accuracies`.
    """
    archs, numbers = _read(Path(path), "arch", DEVICES)
    return _merged(archs, numbers, numbers, numbers, torch.ones(len(archs), dtype=torch.long, device="cpu"))


class OFAMobileNetV3(ProcessedDataset):
    r"""Measured sub-networks of the `Once-for-All <https://arxiv.org/abs/1908.09791>`_ MobileNetV3 of width 1.0.

    The space cannot be enumerated, so the data set contains only the architectures with the chosen metric, in the order
    of their table. Put your own copies of the tables into ``root/raw``, under any name that ends in ``.csv`` or
    ``.csv.gz``; they are recognised by their columns.

    .. list-table:: **STATS:**
        :header-rows: 1

        * - table
          - sub-networks
          - metrics
          - range
        * - DyNAS-T, ImageNet top-1 at 224 pixels
          - 2,162 (2,223 rows)
          - ``top1`` (percent)
          - 70.998 to 77.466
        * - HELP, 25 resolutions
          - 5,000
          - twelve latencies (milliseconds), :data:`DEVICES`
          - 3.9 to 108 (batches of 1 to 64)

    The accuracies are traces of searches, biased towards good networks. MACs alone rank them with a Spearman of .951
    (.950 once equal sub-networks are merged); report the gain of a predictor over that.

    Each graph has ``x`` ``[V, 72]`` and ``edge_index`` ``[2, V - 1]`` (the chain of
    :class:`~pyg_nas_np.spaces.MobileNetV3Space`), ``y`` ``[1]``, ``num_parameters`` ``[1]``, ``flops`` ``[1]`` and
    ``n_meas`` ``[1]``, the number of measurements behind ``y``.

    Args:
        root: Folder of the data set.
        metric: One of :data:`METRICS`.
        transform: Applied at every access.
        pre_transform: Applied once before saving.
        pre_filter: Keeps a graph if it returns true.
        force_reload: Whether to process again; changed raw files are always processed again.

    Raises:
        ValueError: If :obj:`metric` is unknown.
        MissingLabelsError: If no table in ``root/raw`` has it.
        DataFileError: If a table is damaged.
    """

    label_help: ClassVar[str] = (
        "Put the DyNAS-T table (columns arch_json, params, macs, top1_mean, ...) or the HELP table (columns arch, "
        "2080ti_1, ...) into the raw folder of the data set."
    )

    def __init__(
        self,
        root: str,
        metric: str = "top1",
        *,
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        self.metric = metric
        self.space = shared_space(MobileNetV3Space)
        self.root = str(Path(root).expanduser())
        self.pre_transform, self.pre_filter = pre_transform, pre_filter
        stale = self._is_stale()
        super().__init__(self.root, transform, pre_transform, pre_filter, log=False, force_reload=force_reload or stale)
        try:
            self._load_processed()
        except DataFileError as error:
            logger.warning("%s; it is made again.", error)
            self.process()
            self._load_processed()

    def _is_stale(self) -> bool:
        manifest, source = self._manifest(), self._find()
        if manifest is None:
            return False
        known = [info for info, _ in manifest.sources]
        return manifest.made_with != self._made_with() or (source is not None and known != [source])

    def _load_processed(self) -> None:
        manifest = self._manifest()
        if manifest is None or len(manifest.sources) != 1:
            raise DataFileError(f"{self.processed_paths[1]} is missing or damaged")
        state = self._read_processed("subnets.pt", manifest, {"data": dict, "slices": dict, "archs": list})
        with foreign_file(self.processed_paths[0], "a file of graphs", "pass force_reload=True"):
            self.data, self.slices = Data.from_dict(state["data"]), state["slices"]
        self.source, self._archs = manifest.sources[0][0], state["archs"]

    def describe_space(self) -> str:
        r"""Describes the space and the metric."""
        return f"{type(self).__qualname__}, {self.space!r}, {self.metric}"

    @property
    def processed_dir(self) -> str:
        r"""Separate folders for accuracies and for each latency."""
        return str(Path(self.root) / "processed" / self.metric)

    @property
    def processed_file_names(self) -> list[str]:
        r"""Graphs, and the description of their source."""
        return ["subnets.pt", MANIFEST]

    def _find(self) -> SourceInfo | None:
        wanted, name = ("top1_mean", "dynast") if self.metric == "top1" else (self.metric, "help")
        folder = Path(self.raw_dir)
        for path in sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")]):
            if wanted in read_header(path, [wanted]):
                return SourceInfo.from_path(name, path)
        return None

    def process(self) -> None:
        r"""Reads the table, builds the chains, and writes both atomically."""
        source = self._find()
        if source is None:
            raise MissingLabelsError(f"no table in {self.raw_dir} has '{self.metric}'. {self.label_help}")
        table = read_accuracies(source.location) if self.metric == "top1" else read_latencies(source.location)
        column = 0 if self.metric == "top1" else DEVICES.index(self.metric)
        data, slices = collate(self.space.dense(table.archs), len(self.space.op_names))
        data.y = table.values[:, column].float()
        data.num_parameters = self.space.batch_num_parameters(table.archs)
        data.flops = self.space.batch_flops(table.archs)
        data.n_meas = table.n_meas
        data.row = torch.arange(len(table.archs), device="cpu")
        per_graph = torch.arange(len(table.archs) + 1, device="cpu")
        slices |= dict.fromkeys(("y", "num_parameters", "flops", "n_meas", "row"), per_graph)
        if self.pre_filter is not None or self.pre_transform is not None:
            data, slices = self._transform_each(data, slices)
        state = {"data": data.to_dict(), "slices": slices, "archs": [str(arch) for arch in table.archs]}
        self._write_processed({"subnets.pt": state}, [(source, [self.metric])])

    @property
    def y(self) -> Tensor:
        r"""Measurements of the selected sub-networks, ``[len(self)]``."""
        return self._data.y[self._selected()]  # type: ignore[no-any-return]

    def arch(self, position: int) -> MobileNetV3Arch:
        r"""Returns the architecture of ``self[position]``."""
        return self.space.from_str(self._archs[int(self._data.row[self._selected()[position]])])

    def published(self) -> list[Check]:
        r"""Returns published statistics of the table with this data set's values."""
        rows = float(self._data.y.numel())
        if self.metric != "top1":
            return [Check("sub-networks", 5000, rows, 0)]
        rho = float(spearman_rho(self._data.flops.double(), self._data.y.double()))
        return [
            Check("sub-networks", 2162, rows, 0),
            Check("lowest top-1", 70.998, float(self._data.y.min()), 5e-4),
            Check("highest top-1", 77.466, float(self._data.y.max()), 5e-4),
            # Published for the rows before merging.
            Check("Spearman of MACs and top-1", 0.951, rho, 0.002),
        ]

    def verify(self) -> list[Check]:
        r"""Compares the data set with the published statistics, and returns the checks, all of which passed.

        Raises:
            VerificationError: If any fails; the message lists the failed ones with both values.
        """
        checks = self.published()
        if failed := [c for c in checks if not c.ok]:
            lines = "; ".join(f"{c.name}: expected {c.expected:g}, found {c.actual:g}" for c in failed)
            raise VerificationError(f"{self.source.location} fails {len(failed)} checks: {lines}")
        return checks

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, metric='{self.metric}')"


def _read(path: Path, arch: str, names: tuple[str, ...]) -> tuple[list[MobileNetV3Arch], Tensor]:
    """Architectures, and numbers ``[rows, len(names)]`` float64."""
    table = read_csv(path, (arch, *names))
    table.require((arch, *names))
    space, columns = shared_space(MobileNetV3Space), [table.place(name) for name in names]
    archs, numbers = [], []
    for row, text in enumerate(table.column(arch)):
        try:
            archs.append(space.from_str(text))
        except InvalidArchitectureError as error:
            raise DataFileError(f"{table.where(row)}: {error}") from error
        numbers.append([table.number(row, column) for column in columns])
        if not all(map(math.isfinite, numbers[-1])):
            raise DataFileError(f"{table.where(row)}: a value is NaN or infinite")
    return archs, torch.tensor(numbers, dtype=torch.float64, device="cpu")


def _merged(archs: list[MobileNetV3Arch], mean: Tensor, lowest: Tensor, highest: Tensor, count: Tensor) -> SubNetworks:
    """Merges all rows of an architecture."""
    first: dict[MobileNetV3Arch, int] = {}
    owner = torch.tensor([first.setdefault(arch, len(first)) for arch in archs], device="cpu")
    total = torch.zeros(len(first), dtype=torch.long, device="cpu").index_add(0, owner, count)
    values = mean.new_zeros(len(first), mean.size(1)).index_add(0, owner, mean * count.unsqueeze(1))
    wide = owner.unsqueeze(1).expand_as(mean)
    empty = mean.new_zeros(len(first), mean.size(1))
    return SubNetworks(
        tuple(first),
        values / total.unsqueeze(1),
        empty.scatter_reduce(0, wide, lowest, "amin", include_self=False),
        empty.scatter_reduce(0, wide, highest, "amax", include_self=False),
        total,
    )
