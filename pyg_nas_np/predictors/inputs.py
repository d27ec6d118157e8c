r"""Conversion of all accepted representations of architectures to :class:`Architectures`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias, overload

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch_geometric.data import Batch, Data

from pyg_nas_np.datasets import ArchitectureDataset, TableDataset
from pyg_nas_np.datasets.base import ArchData, Origin
from pyg_nas_np.features.dag import INPUT, OUTPUT, live_part, topological
from pyg_nas_np.spaces import Configuration, ParameterSpace, RecordView, SearchSpace, TableView
from pyg_nas_np.spaces.base import Archs, CellSpace, require_cells, require_index
from pyg_nas_np.spaces.columns import ConfigurationTable, table_columns
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch
from pyg_nas_np.spaces.graphs import SampledGraphSpace, operation_graph
from pyg_nas_np.spaces.inference import records_of
from pyg_nas_np.spaces.modules import traced
from pyg_nas_np.spaces.operation_graph import OperationGraph
from pyg_nas_np.spaces.operations import OperationView
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError


class Architectures:
    r"""Architectures of one space, by value or by official index; the other representation is computed on demand.

    Args:
        space: The search space.
        archs: Architectures, official indices int64 ``[n]``, or :obj:`None` for the whole space. They are not checked;
            :func:`as_architectures` does that.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> archs = Architectures(NASBench201Space(), torch.arange(3))
        >>> len(archs), archs[1] == archs.space[1], archs[torch.tensor([2, 0])].index.tolist()
        (3, True, [2, 0])
    """

    def __init__(self, space: SearchSpace[Any], archs: Archs = None) -> None:
        self.space = space
        self.given: Sequence[Any] | Tensor = torch.arange(len(require_index(space))) if archs is None else archs
        """The given representation: the argument of vectorised methods of spaces and features."""

    @cached_property
    def index(self) -> Tensor:
        r"""Official indices, int64 ``[n]``."""
        if isinstance(self.given, Tensor):
            return self.given
        return torch.tensor(require_index(self.space).indices(self.given), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.given)

    @overload
    def __getitem__(self, rows: int) -> Any: ...
    @overload
    def __getitem__(self, rows: slice | Tensor) -> Architectures: ...
    def __getitem__(self, rows: int | slice | Tensor) -> Any:
        r"""Returns one architecture, or some of them by a slice, a mask or positions."""
        if isinstance(rows, int):
            arch = self.given[rows]
            return require_index(self.space)[int(arch)] if isinstance(self.given, Tensor) else arch
        if isinstance(self.given, Tensor) or isinstance(rows, slice):
            part: Any = self.given
            return Architectures(self.space, part[rows])
        positions = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        return Architectures(self.space, [self.given[i] for i in positions.tolist()])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.space.resolve(self.given))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, {len(self)})"


ArchitecturesLike: TypeAlias = (
    "Architectures | ArchitectureDataset | TableDataset | ConfigurationTable | Batch | Data | Sequence[Any] | Tensor "
    "| np.ndarray[Any, Any] | Mapping[str, Any]"
)
"""Many architectures: a (possibly indexed) data set, official indices ``[n]``, a PyG batch or list of graphs, a list of
architectures or of their strings; records, as a list of dictionaries, a dictionary of columns, a
:class:`pandas.DataFrame` or a :class:`pyarrow.Table`; graphs of operations as networkx or PyG have them; modules that
have an ``example_input_array``; or a single graph."""


def as_architectures(x: ArchitecturesLike, space: SearchSpace[Any] | None = None) -> Architectures:
    r"""Converts any accepted representation of architectures.

    Args:
        x: ``n`` architectures. A graph that equals the space's graph of its ``arch_index`` is looked up, any other is
            decoded.
        space: Their search space. (default: that of a data set, of its graphs, or of :class:`Architectures`; of records
            the one that :meth:`ParameterSpace.from_records <pyg_nas_np.spaces.ParameterSpace.from_records>` infers,
            which takes numbers outside the ranges seen and unknown categories later; of graphs of operations and of
            modules :meth:`SampledGraphSpace.around <pyg_nas_np.spaces.SampledGraphSpace.around>` them)

    Raises:
        IndexError: If an official index is outside the space.
        InvalidArchitectureError: If the space is unknown or not that of :obj:`x`, or an entry is not an architecture of
            it.
        InvalidSpaceError: If no space can be inferred from records.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> cell = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
        >>> as_architectures([cell], space).index.tolist() == [space.index(space.from_str(cell))]
        True
    """
    if (graphs := _own_graphs(x, space)) is not None:
        return _from_own_graphs(graphs, space)
    if isinstance(space, TableView) and (columns := table_columns(x)) is not None:
        return Architectures(space, space.check_table(columns))
    if not isinstance(x, ConfigurationTable) and (records := _records(x)) is not None:
        return _from_records(records, space)
    space = _space_of(x, space)
    if isinstance(x, Architectures):
        return x
    if isinstance(x, ConfigurationTable):
        return Architectures(space, x)
    if isinstance(x, ArchitectureDataset):
        return Architectures(space, x.arch_index)
    if isinstance(x, TableDataset):
        return Architectures(space, x.archs)
    if isinstance(x, Batch):
        return _from_graphs(x, require_cells(space))
    if isinstance(x, Data):
        return _from_graphs([x], require_cells(space))
    if isinstance(x, np.ndarray) and x.dtype.kind in "iufb":
        # A copy, because PyTorch does not support other byte orders and negative strides.
        x = torch.from_numpy(np.array(x, dtype=np.int64 if x.dtype.kind in "iu" else None))
    if isinstance(x, Tensor) and x.numel() == 0:
        return Architectures(space, [])
    if isinstance(x, Tensor):
        return Architectures(space, require_index(space).check_indices(x).to("cpu", torch.long))
    if not isinstance(x, Iterable):
        raise InvalidArchitectureError(f"architectures come as indices, graphs or values, got {type(x).__name__}")
    members = list(x)
    if members and all(isinstance(member, Data) for member in members):
        return _from_graphs(members, require_cells(space))
    return Architectures(space, [_parsed(member, space) for member in members])


def _own_graphs(x: Any, space: SearchSpace[Any] | None) -> list[Any] | None:
    """Graphs of operations and modules that came as such, not as architectures of a space; None for everything else."""
    members = [x] if isinstance(x, Data) else x
    if not isinstance(members, list | tuple) or not members:
        return None
    first = members[0]
    if isinstance(first, Data) and not isinstance(first, Batch):
        of_benchmark = isinstance(space, CellSpace) or (space is None and ("op" not in first or "space" in first))
        return None if of_benchmark else list(members)
    return list(members) if isinstance(first, nn.Module | nx.Graph | OperationGraph) else None


def _from_own_graphs(members: list[Any], space: SearchSpace[Any] | None) -> Architectures:
    operations = space.operations if isinstance(space, OperationView) else ()
    graphs = []
    for row, member in enumerate(members):
        try:
            graphs.append(_traced(member) if isinstance(member, nn.Module) else operation_graph(member, operations))
        except InvalidArchitectureError as error:
            raise InvalidArchitectureError(f"architecture {row}: {error}") from None
    if space is None:
        space = SampledGraphSpace.around(graphs)
    return Architectures(space, [space.check(graph) for graph in graphs])


def _traced(module: nn.Module) -> OperationGraph:
    inputs = getattr(module, "example_input_array", None)
    if inputs is None:
        raise InvalidArchitectureError(
            f"{type(module).__name__} does not tell what it is called with; set its example_input_array, or give "
            f"ModuleSpace(modules, example_inputs)"
        )
    return traced(module, inputs).graph


def _records(x: ArchitecturesLike) -> list[dict[str, Any]] | None:
    """Records that came as such, not as architectures of a space; None for everything else."""
    if isinstance(x, Sequence) and (len(x) == 0 or isinstance(x[0], Configuration)):
        return None
    return records_of(x)


def _from_records(records: list[dict[str, Any]], space: SearchSpace[Any] | None) -> Architectures:
    if space is None:
        space = ParameterSpace.from_records(records)
    if not isinstance(space, RecordView):
        raise InvalidArchitectureError(f"{space.name} has no records of parameters; give its architectures or strings")
    archs = []
    for row, record in enumerate(records):
        try:
            archs.append(space.check(record))
        except InvalidArchitectureError as error:
            raise InvalidArchitectureError(f"row {row}: {error}") from None
    return Architectures(space, archs)


def _space_of(x: ArchitecturesLike, space: SearchSpace[Any] | None) -> SearchSpace[Any]:
    origin = _origin_of(x)
    own: SearchSpace[Any] | None = None
    if isinstance(x, Architectures | ArchitectureDataset | TableDataset | ConfigurationTable):
        own = x.space
    elif origin is not None:
        own = origin.space
    if space is None and own is None:
        raise InvalidArchitectureError(
            f"a {type(x).__name__} does not tell its search space; pass space= to the predictor"
        )
    if space is not None and own is not None and space.name != own.name:
        raise InvalidArchitectureError(f"the predictor works on {space.name}, the architectures are of {own.name}")
    chosen = own if space is None else space
    assert chosen is not None
    return chosen


def _origin_of(x: ArchitecturesLike) -> Origin | None:
    """What the first graph knows of its data set."""
    graph = x[0] if isinstance(x, Sequence) and len(x) else x
    return graph.origin if isinstance(graph, ArchData) else None


def maximize_of(x: ArchitecturesLike) -> bool:
    r"""Returns whether larger labels are better, as a data set or its graphs say; true for anything else."""
    origin = _origin_of(x)
    return bool(getattr(x, "maximize", True)) if origin is None else origin.maximize


def _parsed(member: Any, space: SearchSpace[Any]) -> Any:
    return space.from_str(member) if isinstance(member, str) else space.check(member)


def labels_of(x: ArchitecturesLike) -> Tensor:
    r"""Returns the labels ``y`` that a data set or graphs carry, ``[n]``.

    Raises:
        InvalidLabelsError: If an architecture carries none, or more than one.
    """
    if isinstance(x, ArchitectureDataset | TableDataset):
        return x.y
    count = int(x.num_graphs) if isinstance(x, Batch) else 1 if isinstance(x, Data) else len(x)
    labels = [x.y] if isinstance(x, Data) else [getattr(graph, "y", None) for graph in x]
    missing = [i for i, y in enumerate(labels) if y is None]
    if missing:
        raise InvalidLabelsError(f"architecture {missing[0]} carries no label y; pass y= to fit")
    flat = torch.cat([torch.as_tensor(y).reshape(-1) for y in labels]) if labels else torch.empty(0)
    if flat.numel() != count:
        raise InvalidLabelsError(f"{count} graphs carry {flat.numel()} values in y; pass y= to fit")
    return flat


def live_cells(space: SearchSpace[Any], archs: Archs) -> DenseGraphs:
    r"""Returns the live parts of architectures: the nodes on paths along which information reaches the output.

    Input and output are kept if there is no such path.

    Args:
        space: The search space.
        archs: Architectures or official indices, ``n`` of them.
    """
    view = require_cells(space)
    graphs = topological(view.dense(archs))
    live = live_part(graphs, [view.op_names.index(name) for name in view.zero_ops])
    ends = (graphs.ops == INPUT) | (graphs.ops == OUTPUT)
    ops = torch.where(ends, graphs.ops, live.ops)
    return DenseGraphs(live.adjacency, ops, (ops >= 0).sum(dim=1))


def _from_graphs(graphs: Batch | Sequence[Data], space: CellSpace[Any]) -> Architectures:
    """Looks up, in one batch, the graphs that equal the space's graph of their index, and decodes the others."""
    index = _claimed_indices(graphs, space)
    rows = (index >= 0).nonzero().flatten()
    if rows.numel() == 0 and isinstance(graphs, Batch) and hasattr(space, "batch_decode"):
        return Architectures(space, space.batch_decode(graphs))
    index[rows[~_same_graphs(graphs, rows, space, index[rows])]] = -1
    if bool((index >= 0).all()):
        return Architectures(space, index)
    return Architectures(space, [space[i] if i >= 0 else space.decode(graphs[k]) for k, i in enumerate(index.tolist())])


def _claimed_indices(graphs: Batch | Sequence[Data], space: CellSpace[Any]) -> Tensor:
    """Official index that each graph claims, or -1 if it has none or cannot be compared with the space's graph."""
    if isinstance(graphs, Batch):
        if not _comparable(graphs, space) or graphs.arch_index.numel() != graphs.num_graphs:
            return torch.full((graphs.num_graphs,), -1)
        index = graphs.arch_index.flatten()
    else:
        index = torch.tensor([int(g.arch_index) if _comparable(g, space) else -1 for g in graphs], dtype=torch.long)
    return torch.where((index >= 0) & (index < len(space)), index, -1) if bool((index >= 0).any()) else index


def _comparable(graphs: Data, space: CellSpace[Any]) -> bool:
    return (
        "arch_index" in graphs
        and graphs.x is not None
        and graphs.x.dim() == 2
        and graphs.x.size(1) == len(space.op_names)
    )


def _same_graphs(graphs: Batch | Sequence[Data], rows: Tensor, space: CellSpace[Any], index: Tensor) -> Tensor:
    """Whether each graph is that of its index; an edited graph may still carry the index of the original."""
    if rows.numel() == 0:
        return torch.empty(0, dtype=torch.bool)
    if isinstance(graphs, Batch):
        given = from_batch(graphs.x, graphs.edge_index, graphs.batch, graphs.num_graphs).select(rows)
    else:
        chosen = [graphs[i] for i in rows.tolist()]
        num_nodes = torch.tensor([graph.x.size(0) for graph in chosen])
        start = num_nodes.cumsum(0) - num_nodes
        edge_index = torch.cat([graph.edge_index + offset for graph, offset in zip(chosen, start, strict=True)], dim=1)
        owner = torch.repeat_interleave(torch.arange(len(chosen)), num_nodes)
        given = from_batch(torch.cat([graph.x for graph in chosen]), edge_index, owner, len(chosen))
    wanted = space.dense(index)
    width = max(given.ops.size(1), wanted.ops.size(1))
    (edges, ops), (wanted_edges, wanted_ops) = _padded(given, width), _padded(wanted, width)
    return (edges == wanted_edges).flatten(1).all(dim=1) & (ops == wanted_ops).all(dim=1)


def _padded(graphs: DenseGraphs, width: int) -> tuple[Tensor, Tensor]:
    extra = width - graphs.ops.size(1)
    return pad(graphs.adjacency, (0, extra, 0, extra)), pad(graphs.ops, (0, extra), value=-1)
