r"""Padded arrays of many small labelled DAGs: the vectorised representation of all spaces."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.errors import InvalidArchitectureError


class DenseGraphs(NamedTuple):
    r"""A batch of labelled DAGs as padded tensors.

    Shapes:
        - **adjacency:** ``[B, V, V]`` bool; entry ``[b, i, j]`` is the edge i → j; padding is False.
        - **ops:** ``[B, V]`` int64 operation ids; padding is -1.
        - **num_nodes:** ``[B]`` int64.
    """

    adjacency: Tensor
    ops: Tensor
    num_nodes: Tensor

    def select(self, index: Tensor) -> DenseGraphs:
        r"""Returns the graphs at :obj:`index` (``[K]`` int64 or a mask ``[B]``)."""
        return DenseGraphs(self.adjacency[index], self.ops[index], self.num_nodes[index])

    @property
    def node_mask(self) -> Tensor:
        r"""``[B, V]`` bool, True on real nodes."""
        return self.ops >= 0


@fixed_defaults
def collate(graphs: DenseGraphs, num_ops: int) -> tuple[Data, dict[str, Tensor]]:
    r"""Collates graphs into PyG's in-memory storage without one object per graph.

    Args:
        graphs: The graphs, ``B`` of them.
        num_ops: Width of the one-hot ``x``.

    Returns:
        ``(data, slices)`` as from :meth:`torch_geometric.data.InMemoryDataset.collate`, with
        ``x`` ``[N, num_ops]`` float32 and ``edge_index`` ``[2, E]`` int64 (not offset).

    Raises:
        ValueError: If an operation id needs more than :obj:`num_ops` columns.

    Example:
        >>> adjacency = torch.tensor([[[False, True], [False, False]]])  # node 0 feeds node 1
        >>> collate(DenseGraphs(adjacency, torch.tensor([[0, 1]]), torch.tensor([2])), num_ops=3)[0]
        Data(x=[2, 3], edge_index=[2, 1])
    """
    ops = graphs.ops[graphs.node_mask]
    if ops.numel() and int(ops.max()) >= num_ops:
        raise ValueError(f"operation id {int(ops.max())} needs more than {num_ops} columns of x")
    x = torch.zeros(ops.numel(), num_ops)
    x.scatter_(1, ops.unsqueeze(1), 1.0)
    owner, src, dst = graphs.adjacency.nonzero(as_tuple=True)
    num_edges = torch.bincount(owner, minlength=graphs.ops.size(0))
    data = Data(x=x, edge_index=torch.stack([src, dst]))
    slices = {"x": _offsets(graphs.num_nodes), "edge_index": _offsets(num_edges)}
    return data, slices


@fixed_defaults
def to_batch(graphs: DenseGraphs, num_ops: int) -> Batch:
    r"""Builds a :class:`torch_geometric.data.Batch` of the graphs without a loop over them."""
    data, slices = collate(graphs, num_ops)
    num_graphs = graphs.ops.size(0)
    edge_owner = torch.repeat_interleave(torch.arange(num_graphs), slices["edge_index"].diff())
    offset = slices["x"][:-1]
    batch = Batch(
        x=data.x,
        edge_index=data.edge_index + offset[edge_owner],
        batch=torch.repeat_interleave(torch.arange(num_graphs), graphs.num_nodes),
        ptr=slices["x"],
    )
    batch._num_graphs = num_graphs
    batch._slice_dict = slices
    batch._inc_dict = {"x": torch.zeros(num_graphs, dtype=torch.long), "edge_index": offset}
    return batch


def require_tensors(x: object, edge_index: object) -> None:
    r"""Checks that a graph has nodes and edges at all.

    Raises:
        InvalidArchitectureError: If one of them is missing.
    """
    for name, value in (("x", x), ("edge_index", edge_index)):
        if not isinstance(value, Tensor):
            raise InvalidArchitectureError(f"a graph needs a tensor {name}, got {type(value).__name__}")


@fixed_defaults
def from_batch(
    x: Tensor, edge_index: Tensor, batch: Tensor | None = None, num_graphs: int | None = None
) -> DenseGraphs:
    r"""Reads padded arrays back from batched PyG tensors.

    Args:
        x: One-hot operations, ``[N, num_ops]``.
        edge_index: ``[2, E]``, offset per graph as in a :class:`~torch_geometric.data.Batch`.
        batch: Graph of each node, ``[N]``, sorted. (default: one graph)
        num_graphs: Number of graphs. (default: from :obj:`batch`)

    Raises:
        InvalidArchitectureError: If a row of :obj:`x` is not one-hot, :obj:`batch` is not sorted or does not fit, or an
            edge ends outside the nodes of its graph.
    """
    require_tensors(x, edge_index)
    if x.dim() != 2 or x.size(0) == 0:
        raise InvalidArchitectureError(f"x must have shape [num_nodes, num_ops], got {list(x.shape)}")
    one_hot = ((x == 0) | (x == 1)).all(dim=1) & (x.sum(dim=1) == 1)
    if not bool(one_hot.all()):
        row = int((~one_hot).nonzero()[0])
        raise InvalidArchitectureError(f"row {row} of x is not a one-hot operation: {x[row].tolist()}")
    if batch is None:
        batch = torch.zeros(x.size(0), dtype=torch.long)
    elif batch.shape != x.shape[:1]:
        raise InvalidArchitectureError(
            f"batch must have one entry for each of the {x.size(0)} nodes, got {list(batch.shape)}"
        )
    elif bool((batch.diff() < 0).any()):
        raise InvalidArchitectureError("batch must be sorted; build it with torch_geometric.data.Batch")
    size = int(batch[-1]) + 1 if num_graphs is None else num_graphs
    if int(batch[0]) < 0 or int(batch[-1]) >= size:
        wrong = int(batch[0]) if int(batch[0]) < 0 else int(batch[-1])
        raise InvalidArchitectureError(f"batch names graph {wrong}, which is none of {size} graphs")
    _check_edges(edge_index, batch)
    num_nodes = torch.bincount(batch, minlength=size)
    start = num_nodes.cumsum(0) - num_nodes
    position = torch.arange(x.size(0)) - start[batch]
    width = int(num_nodes.max())
    ops = torch.full((size, width), -1, dtype=torch.long)
    ops[batch, position] = x.argmax(dim=1)
    adjacency = torch.zeros(size, width, width, dtype=torch.bool)
    src, dst = edge_index
    adjacency[batch[src], position[src], position[dst]] = True
    return DenseGraphs(adjacency, ops, num_nodes)


def _check_edges(edge_index: Tensor, batch: Tensor) -> None:
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise InvalidArchitectureError(
            f"edge_index must be an integer tensor [2, num_edges], got {edge_index.dtype} {list(edge_index.shape)}"
        )
    outside = ((edge_index < 0) | (edge_index >= batch.numel())).any(dim=0)
    if bool(outside.any()):
        src, dst = edge_index[:, outside][:, 0].tolist()
        raise InvalidArchitectureError(f"edge {src} → {dst} leaves the {batch.numel()} nodes")
    owner = batch[edge_index]
    between = owner[0] != owner[1]
    if bool(between.any()):
        (src, dst), (first, second) = edge_index[:, between][:, 0].tolist(), owner[:, between][:, 0].tolist()
        raise InvalidArchitectureError(f"edge {src} → {dst} joins graphs {first} and {second}")


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
