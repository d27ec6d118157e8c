r"""What predictors need from graphs, in whichever form these come: space, labels, meta-features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch_geometric.data import Batch, Data

from pyg_nas_np.datasets import ArchitectureDataset
from pyg_nas_np.features import Descriptors, MetaFeatures
from pyg_nas_np.features.dag import INPUT, OUTPUT, live_part, topological
from pyg_nas_np.spaces import SearchSpace
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError

Graphs: TypeAlias = ArchitectureDataset | Batch | Data | Sequence[Data]
"""Many architectures: a (possibly indexed) data set, a batch, a list of graphs; or a single graph."""


def space_of(graphs: Graphs, space: SearchSpace[Any] | None) -> SearchSpace[Any]:
    r"""Returns :obj:`space`, or that of the data set.

    Raises:
        InvalidArchitectureError: If there is none, or it is not the space of the data set.
    """
    own = graphs.space if isinstance(graphs, ArchitectureDataset) else None
    if space is None and own is None:
        raise InvalidArchitectureError(
            f"a {type(graphs).__name__} does not tell its search space; pass space= to the predictor"
        )
    if space is not None and own is not None and space.name != own.name:
        raise InvalidArchitectureError(f"the predictor works on {space.name}, the data set holds {own.name} graphs")
    chosen = own if space is None else space
    assert chosen is not None
    return chosen


def count_graphs(graphs: Graphs) -> int:
    r"""Returns the number of graphs."""
    if isinstance(graphs, Batch):
        return int(graphs.num_graphs)
    return 1 if isinstance(graphs, Data) else len(graphs)


def labels_of(graphs: Graphs) -> Tensor:
    r"""Returns the labels ``y`` that the graphs carry, ``[n]``.

    Raises:
        InvalidLabelsError: If a graph carries none, or more than one.
    """
    if isinstance(graphs, ArchitectureDataset):
        return graphs.y
    labels = [graphs.y] if isinstance(graphs, Data) else [graph.y for graph in graphs]
    missing = [i for i, y in enumerate(labels) if y is None]
    if missing:
        raise InvalidLabelsError(f"graph {missing[0]} carries no label y; pass y= to fit")
    flat = torch.cat([torch.as_tensor(y).reshape(-1) for y in labels]) if labels else torch.empty(0)
    if flat.numel() != count_graphs(graphs):
        raise InvalidLabelsError(f"{count_graphs(graphs)} graphs carry {flat.numel()} values in y; pass y= to fit")
    return flat


def arch_indices(graphs: Graphs, space: SearchSpace[Any]) -> Tensor:
    r"""Returns the official indices of graphs, int64 ``[n]``.

    Data sets know theirs. In a batch or list, graphs that equal the space's graph of their ``arch_index`` are compared
    together; any other graph is decoded on its own.

    Raises:
        InvalidArchitectureError: If a graph is not one of the space.
    """
    if isinstance(graphs, ArchitectureDataset):
        return graphs.arch_index
    members = graphs if isinstance(graphs, Batch) else [graphs] if isinstance(graphs, Data) else graphs
    index = _claimed_indices(members, space)
    rows = (index >= 0).nonzero().flatten()
    index[rows[~_same_graphs(members, rows, space, index[rows])]] = -1
    for i in (index < 0).nonzero().flatten().tolist():
        index[i] = space.index(space.decode(members[i]))
    return index


def meta_features(graphs: Graphs, features: MetaFeatures | Descriptors) -> Tensor:
    r"""Returns the meta-features, or all descriptors, of graphs, ``[n, F]``.

    They are looked up by :func:`arch_indices`, or are those of the data set, where its ``pre_transform`` made them.

    Raises:
        InvalidArchitectureError: If a graph is not one of the space.
    """
    if isinstance(graphs, ArchitectureDataset) and repr(graphs.pre_transform) == repr(features):
        rows = torch.as_tensor(list(graphs.indices()), dtype=torch.long)
        return graphs._data.meta[rows]  # type: ignore[no-any-return]
    return features.table(arch_indices(graphs, features.space))


def live_cells(space: SearchSpace[Any], index: Tensor) -> DenseGraphs:
    r"""Returns the live parts of architectures: what information from the input to the output can pass through.

    Input and output stay where there is no way between them.

    Args:
        space: The search space.
        index: Official indices, ``[n]``.
    """
    graphs = topological(space.dense(index))
    live = live_part(graphs, [space.op_names.index(name) for name in space.zero_ops])
    ends = (graphs.ops == INPUT) | (graphs.ops == OUTPUT)
    ops = torch.where(ends, graphs.ops, live.ops)
    return DenseGraphs(live.adjacency, ops, (ops >= 0).sum(dim=1))


def _claimed_indices(graphs: Batch | Sequence[Data], space: SearchSpace[Any]) -> Tensor:
    """Official index that each graph claims, or -1 if it has none or cannot be compared with the space's graph."""
    if isinstance(graphs, Batch):
        if not _comparable(graphs, space) or graphs.arch_index.numel() != graphs.num_graphs:
            return torch.full((graphs.num_graphs,), -1)
        index = graphs.arch_index.flatten()
    else:
        index = torch.tensor([int(g.arch_index) if _comparable(g, space) else -1 for g in graphs], dtype=torch.long)
    return torch.where((index >= 0) & (index < len(space)), index, -1)


def _comparable(graphs: Data, space: SearchSpace[Any]) -> bool:
    return (
        "arch_index" in graphs
        and graphs.x is not None
        and graphs.x.dim() == 2
        and graphs.x.size(1) == len(space.op_names)
    )


def _same_graphs(graphs: Batch | Sequence[Data], rows: Tensor, space: SearchSpace[Any], index: Tensor) -> Tensor:
    """Whether each graph is that of its index: an edited graph may still carry the index of its origin."""
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
