r"""The base class of benchmark data sets: a whole search space as graphs, with labels from the first source
available."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.processed import MANIFEST, Manifest, ProcessedDataset, SourceInfo
from pyg_nas_np.datasets.splits import Split, budget_splits, class_split
from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.dense import collate
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    MissingLabelsError,
    VerificationError,
    foreign_file,
)
from pyg_nas_np.utils.files import read_bytes
from pyg_nas_np.utils.state_files import load_torch

logger = logging.getLogger(__name__)

Unit = Literal["index", "class"]


class Origin(NamedTuple):
    r"""What a single graph knows of the data set that it is from.

    Args:
        space: The search space.
        maximize: Whether larger labels are better.
    """

    space: CellSpace[Any]
    maximize: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        # A space is immutable and may be large.
        return self


class ArchData(Data):  # type: ignore[misc]
    r"""A :class:`~torch_geometric.data.Data` whose ``arch_index`` is a label, not a node index.

    PyG adds node offsets to every attribute whose name contains ``index`` when it forms a batch; an architecture's
    position in its space must survive batching unchanged.

    A graph of a data set knows its :attr:`origin`, so that lists of graphs, which scikit-learn makes, can be fitted
    like the data set. The origin is neither pickled nor collated.
    """

    @property
    def origin(self) -> Origin | None:
        r"""Space and direction of the data set that the graph is from; :obj:`None` for any other graph."""
        return self.__dict__.get("_origin")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_origin"}

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0 if key == "arch_index" else super().__inc__(key, value, *args, **kwargs)


class Source(NamedTuple):
    r"""An available label source: its description and the function that reads it."""

    info: SourceInfo
    read: Callable[[], dict[str, Metric]]


class Check(NamedTuple):
    r"""One published statistic and its value in the data set."""

    name: str
    expected: float
    actual: float
    tolerance: float

    @property
    def ok(self) -> bool:
        r"""Whether the two agree."""
        return abs(self.actual - self.expected) <= self.tolerance


GRAPHS_ONLY = "graphs-only"


class ArchitectureDataset(ProcessedDataset):
    r"""All architectures of a space in official order, as graphs with labels if a source has them.

    ``dataset[i]`` is architecture ``i``, whether or not it is labelled; unlabelled ones have NaN in ``y`` and False in
    :attr:`label_mask`.

    Each graph has ``x`` ``[V, num_ops]`` (one-hot operation), ``edge_index`` ``[2, E]``, ``y`` ``[1]`` (the seed mean
    of the chosen metric at its last epoch), ``arch_index`` ``[1]``, ``num_parameters`` ``[1]`` and ``flops`` ``[1]``.

    Args:
        root: Folder of the data set; official files dropped in ``root/raw`` are found there.
        metric: The metric in ``y``, a key of :attr:`metrics`. (default: the first of :attr:`default_metrics` that the
            sources provide)
        source: Use this source only, by name. (default: all available ones; the first of those that provide a metric)
        download: Whether the official file may be downloaded if no other source is available.
        transform: Applied at every access.
        pre_transform: Applied once before saving; :class:`~pyg_nas_np.features.MetaFeatures` runs vectorised.
        pre_filter: Keeps a graph if it returns true. Positions then no longer equal official indices.
        force_reload: Whether to process again.

    Raises:
        MissingLabelsError: If :obj:`metric` or :obj:`source` was named and is not available.
    """

    default_metrics: ClassVar[tuple[str, ...]]
    """Validation targets, best first; a later one is used, with a message, if no source provides an earlier one."""

    default_split_unit: ClassVar[Unit] = "index"
    _origin: Origin | None = None

    label_help: ClassVar[str]
    """How to get labels; shown if there are none."""

    def __init__(
        self,
        root: str,
        metric: str | None = None,
        *,
        source: str | None = None,
        download: bool = False,
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
    ) -> None:
        self._download_allowed = download
        self._source_name = source
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
        self._set_labels(metric)

    def _load_processed(self) -> None:
        manifest = self._manifest()
        if manifest is None:
            raise DataFileError(f"{self.processed_paths[2]} is missing or damaged")
        state = self._read_processed("graphs.pt", manifest, {"data": dict, "slices": dict})
        metrics = self._read_metrics(manifest)
        with foreign_file(self.processed_paths[0], "a file of graphs", "pass force_reload=True"):
            self.data, self.slices = ArchData.from_dict(state["data"]), state["slices"]
            self.space.check_indices(self._data.arch_index)
        self.metrics, self._sources = metrics, manifest.sources

    def _read_metrics(self, manifest: Manifest) -> dict[str, Metric]:
        labels = self._read_processed("metrics.pt", manifest, {})
        with foreign_file(self.processed_paths[1], "a file of metrics", "pass force_reload=True"):
            return {str(name): Metric.from_dict(metric) for name, metric in labels.items()}

    def _kept_labels(self) -> tuple[dict[str, Metric], list[tuple[SourceInfo, list[str]]]]:
        """Labels of the processed files, if these still exist without the raw ones."""
        manifest = self._manifest()
        if manifest is None or not manifest.sources or self._source_name == GRAPHS_ONLY:
            return {}, []
        try:
            return self._read_metrics(manifest), manifest.sources
        except DataFileError:
            return {}, []

    def _had_labels(self) -> bool:
        """Whether there are processed files with labels, as far as damaged files show it."""
        manifest, path = self._manifest(), Path(self.processed_paths[1])
        if manifest is not None or not path.exists():
            return manifest is not None and bool(manifest.sources)
        try:
            with foreign_file(path, "a file of metrics"):
                return bool(load_torch(read_bytes(path)) != {})
        except DataFileError:
            return True

    # -- for subclasses ---------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def space(self) -> CellSpace[Any]:
        r"""The search space whose official order the data set follows."""

    @abstractmethod
    def sources(self) -> list[Source]:
        r"""Returns the available label sources, best first, without reading them."""

    def fetch(self) -> Source | None:
        r"""Downloads the official file into ``raw_dir`` and returns it as a source, if the benchmark has one."""
        return None

    @abstractmethod
    def published(self) -> list[Check]:
        r"""Returns published statistics with this data set's values, for the available parts."""

    def dense_graphs(self) -> tuple[Data, dict[str, Tensor]]:
        r"""Returns the collated graphs of the whole space, without labels."""
        return collate(self.space.dense(), len(self.space.op_names))

    # -- PyG --------------------------------------------------------------------------------------------------------

    def get(self, idx: int) -> Data:
        r"""Returns a graph that owns its memory and knows its :attr:`~ArchData.origin`."""
        graph = super().get(idx)
        if isinstance(graph, ArchData):
            graph.__dict__["_origin"] = self._origin
        return graph

    @property
    def processed_file_names(self) -> list[str]:
        r"""Graphs, labels, and the description of the label sources."""
        return ["graphs.pt", "metrics.pt", MANIFEST]

    def process(self) -> None:
        r"""Builds the graphs, reads the labels, and writes both atomically.

        Labels that were read are kept if their raw files are deleted. If both are missing, nothing is overwritten.

        Raises:
            DataFileError: If a raw file is damaged, or both a raw file and the labels read from it are missing.
        """
        used: list[tuple[SourceInfo, list[str]]] = []
        metrics: dict[str, Metric] = {}
        present = self._present_sources()
        if not present:
            metrics, used = self._kept_labels()
        if not used and not present and self._source_name != GRAPHS_ONLY:
            if self._had_labels():
                raise DataFileError(
                    f"{self.processed_dir} is damaged, and the label files that it was made from are gone. "
                    f"{self.label_help} To go on without labels, delete {self.processed_dir}"
                )
            logger.warning("%s holds graphs only, without labels. %s", type(self).__name__, self.label_help)
        for source in present:
            fresh = {name: metric for name, metric in source.read().items() if name not in metrics}
            for name, metric in fresh.items():
                if metric.values.size(0) != len(self.space):
                    raise DataFileError(
                        f"{source.info.name}: {name} has {metric.values.size(0)} of {len(self.space)} rows"
                    )
            metrics.update(fresh)
            used.append((source.info, list(fresh)))

        data, slices = self.dense_graphs()
        count = len(self.space)
        arch = ArchData.from_dict(data.to_dict())
        per_graph = torch.arange(count + 1, device="cpu")
        arch.arch_index = torch.arange(count, device="cpu")
        arch.num_parameters = self.space.batch_num_parameters()
        arch.flops = self.space.batch_flops()
        slices.update(dict.fromkeys(("arch_index", "num_parameters", "flops"), per_graph))
        if isinstance(self.pre_transform, MetaFeatures):
            arch.meta = self.pre_transform.table()
            slices["meta"] = per_graph
        if self.pre_filter is not None or not isinstance(self.pre_transform, MetaFeatures | None):
            arch, slices = self._transform_each(arch, slices)
            if getattr(arch, "arch_index", None) is None or arch.arch_index.numel() != slices["arch_index"].numel() - 1:
                raise ValueError("pre_transform must keep the attribute 'arch_index' of every graph")
        states = {
            "graphs.pt": {"data": arch.to_dict(), "slices": slices},
            "metrics.pt": {name: metric.to_dict() for name, metric in metrics.items()},
        }
        self._write_processed(states, used)

    def _transform_each(self, data: Data, slices: dict[str, Tensor]) -> tuple[Data, dict[str, Tensor]]:
        if not isinstance(self.pre_transform, MetaFeatures):
            return super()._transform_each(data, slices)
        # Its features are in the table already.
        features, self.pre_transform = self.pre_transform, None
        try:
            return super()._transform_each(data, slices)
        finally:
            self.pre_transform = features

    def describe_space(self) -> str:
        r"""Describes the space that the graphs are of."""
        return f"{type(self).__qualname__}, {self.space.name}, {self.space!r}"

    # -- labels -----------------------------------------------------------------------------------------------------

    def _present_sources(self) -> list[Source]:
        if self._source_name == GRAPHS_ONLY:
            return []
        present = self.sources()
        if self._source_name is not None:
            wanted = [source for source in present if source.info.name == self._source_name]
            if not wanted:
                names = ", ".join(source.info.name for source in present) or "none"
                raise MissingLabelsError(
                    f"label source '{self._source_name}' is not present (present: {names}). {self.label_help}"
                )
            return wanted
        if not present and self._download_allowed and (fetched := self.fetch()) is not None:
            return [fetched]
        return present

    def _is_stale(self) -> bool:
        if not Path(self.processed_paths[2]).exists():
            return False
        manifest = self._manifest()
        if manifest is None:
            # Loading decides whether the files may be processed again.
            return False
        processed = [info for info, _ in manifest.sources]
        if manifest.made_with != self._made_with():
            return True
        if self._source_name == GRAPHS_ONLY:
            return bool(processed)
        if self._source_name is not None and [info.name for info in processed] != [self._source_name]:
            return True
        present = [s.info for s in self.sources() if self._source_name in (None, s.info.name)]
        if not present:
            # Raw files may be deleted after processing, so missing ones do not cause processing unless there are no
            # labels yet.
            return not processed and self._download_allowed
        return {info.fingerprint for info in present} != {info.fingerprint for info in processed}

    def _set_labels(self, metric: str | None) -> None:
        wanted = self.default_metrics if metric is None else (metric,)
        found = next((name for name in wanted if name in self.metrics), None)
        if found is None and (metric is not None or self.metrics):
            have = ", ".join(sorted(self.metrics)) or "none"
            raise MissingLabelsError(
                f"none of the present label sources provides {' or '.join(wanted)} (available: {have}). "
                f"Name another with metric=..., or add a source. {self.label_help}"
            )
        self.metric = wanted[0] if found is None else found
        self._origin = Origin(self.space, self.maximize)
        if found not in (None, wanted[0]):
            logger.warning("No source provides %s; y holds %s.", wanted[0], found)
        missing = torch.full((len(self.space),), float("nan"), dtype=torch.float32, device="cpu")
        y = missing if found is None else self.metrics[found].mean()
        self._data.y = y[self._data.arch_index]
        self.slices["y"] = torch.arange(self._data.arch_index.numel() + 1, device="cpu")

    @property
    def source(self) -> SourceInfo:
        r"""Source of the labels in ``y``."""
        return self.source_of(self.metric)

    def source_of(self, metric: str) -> SourceInfo:
        r"""Returns the source of a metric; ``"graphs-only"`` if no source provides it."""
        for info, names in self._sources:
            if metric in names:
                return info
        return SourceInfo(GRAPHS_ONLY, "", GRAPHS_ONLY)

    @property
    def y(self) -> Tensor:
        r"""Labels of the selected architectures: seed mean of :attr:`metric` at its last epoch, ``[len(self)]``."""
        return self._data.y[self._selected()]  # type: ignore[no-any-return]

    @property
    def maximize(self) -> bool:
        r"""Whether larger labels are better: not for losses, errors, times and other costs."""
        return self.metric not in self.metrics or self.metrics[self.metric].maximize

    @property
    def arch_index(self) -> Tensor:
        r"""Official indices of the selected architectures, int64 ``[len(self)]``."""
        return self._data.arch_index[self._selected()]  # type: ignore[no-any-return]

    @property
    def label_mask(self) -> Tensor:
        r"""Which selected architectures are labelled, bool ``[len(self)]``."""
        return ~self.y.isnan()

    def positions_of(self, index: Tensor | Sequence[int]) -> Tensor:
        r"""Returns the positions of architectures in this data set, which may be filtered, shuffled or a subset.

        Args:
            index: Official indices, ``[n]``.

        Returns:
            Positions int64 ``[n]``, so that ``dataset[dataset.positions_of(index)]`` are these architectures; the first
            position of an architecture that occurs more than once.

        Raises:
            InvalidArchitectureError: If one is not in this data set.
            IndexError: If one is outside the space.

        Example:
            >>> dataset = ...  # doctest: +SKIP
            >>> dataset[100:].positions_of([100, 102])  # doctest: +SKIP
            tensor([0, 2])
        """
        wanted = self.space.check_indices(torch.as_tensor(index, device="cpu"))
        own = self.arch_index
        where = torch.full((len(self.space),), -1, dtype=torch.long, device="cpu")
        # Written in reverse order, because the last write wins and the first position is wanted.
        where[own.flip(0)] = torch.arange(own.numel() - 1, -1, -1, device="cpu")
        positions = where[wanted]
        if bool((positions < 0).any()):
            absent = int(wanted[positions < 0][0])
            raise InvalidArchitectureError(
                f"architecture {absent} ({self.space.to_str(self.space[absent])}) is not among the {len(self)} of this "
                f"data set; it was left out by pre_filter or by indexing"
            )
        return positions

    def arch_names(self) -> list[str]:
        r"""Returns the names of all architectures of the space in compact tables."""
        return [self.space.to_str(arch) for arch in self.space.enumerate()]

    def arch(self, position: int) -> Any:
        r"""Returns the architecture of ``self[position]``."""
        self._check_position(position)
        return self.space[int(self._data.arch_index[self.indices()[position]])]

    # -- splits and verification ------------------------------------------------------------------------------------

    @cached_property
    def equivalence_class(self) -> Tensor:
        r"""Equivalence class of every architecture of the space, int64 ``[len(space)]``, numbered by first member."""
        first: dict[str, int] = {}
        classes = [first.setdefault(key, len(first)) for key in self.space.batch_canonical()]
        return torch.tensor(classes, dtype=torch.long, device="cpu")

    def split(self, n_train: int, n_valid: int = 0, *, by: Unit | None = None, seed: int = 0) -> Split:
        r"""Splits the labelled architectures into training, validation and test positions.

        The draw depends on the set of labelled architectures, not on their order in the data set. An architecture that
        occurs more than once is in one part only.

        Args:
            n_train: Number of training labels.
            n_valid: Number of validation labels.
            by: ``"index"`` draws architectures; ``"class"`` also excludes equivalents of the training and validation
                architectures from the test part. (default: that of the benchmark)
            seed: Seed of the draw; splits of one seed are nested.

        Returns: Positions in this data set, for ``dataset[split.train]``; they equal official indices if it is the
            whole space.
        """
        return class_split(*self._candidates(by), n_train, n_valid, seed=seed)

    def split_by_budget(self, budgets: Sequence[int], *, by: Unit | None = None, seed: int = 0) -> Mapping[int, Split]:
        r"""Splits for growing label budgets: nested training sets and one common test set, as positions."""
        candidates, units = self._candidates(by)
        return budget_splits(candidates, budgets, units, seed=seed)

    def _candidates(self, by: Unit | None) -> tuple[Tensor, Tensor]:
        """Positions of the labelled architectures in official order, and the unit that each position belongs to."""
        index = self.arch_index
        order = index.argsort(stable=True)
        units = index if self._unit(by) == "index" else self.equivalence_class[index]
        return order[self.label_mask[order]], units

    def _unit(self, by: Unit | None) -> Unit:
        unit = self.default_split_unit if by is None else by
        if unit not in ("index", "class"):
            raise ValueError(f"by must be 'index' or 'class', got {by!r}")
        return unit

    def verify(self) -> list[Check]:
        r"""Compares the data set with its published statistics.

        Returns:
            The checks, all of which passed.

        Raises:
            VerificationError: If any fails; the message lists the failed ones with both values.
        """
        checks = self.published()
        failed = [c for c in checks if not c.ok]
        if failed:
            lines = "; ".join(f"{c.name}: expected {c.expected:g}, found {c.actual:g}" for c in failed)
            raise VerificationError(
                f"{type(self).__name__} from {self.source.name} fails {len(failed)} checks: {lines}"
            )
        return checks
