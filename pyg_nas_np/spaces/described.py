r"""Graphs of described operations of any space that has graphs."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch

from pyg_nas_np.spaces.base import Archs, GraphView, SearchSpace
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.spaces.operations import IDENTITY, ZERO, Operation, OperationGraphs, OperationView
from pyg_nas_np.utils.defaults import fixed_defaults


def has_graphs(space: SearchSpace[Any]) -> TypeGuard[OperationView[Any] | GraphView[Any]]:
    r"""Whether the architectures of a space are graphs."""
    return isinstance(space, OperationView | GraphView)


@fixed_defaults
def described_graphs(space: OperationView[Any] | GraphView[Any], archs: Archs = None) -> OperationGraphs:
    r"""Returns the graphs of operations of many architectures, those of cells included.

    Args:
        space: A space whose architectures are graphs.
        archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> graphs = described_graphs(NASBench201Space(), torch.tensor([6111]))
        >>> graphs.operations[5], graphs.op.tolist()
        (Operation('nor_conv_3x3', kind='conv', kernel=3.0), [0, 5, 5, 5, 3, 5, 4, 1])
    """
    if isinstance(space, OperationView):
        return space.operation_graphs(archs)
    return _flat(space.dense(archs), tuple(_described(space, name) for name in space.op_names))


def _described(space: GraphView[Any], name: str) -> Operation:
    if name in space.zero_ops:
        return Operation(name, ZERO)
    if name in space.identity_ops:
        return Operation(name, IDENTITY)
    kind, attributes = space.described_ops.get(name, (None, {}))
    return Operation(name, kind, **attributes)


def _flat(graphs: DenseGraphs, operations: tuple[Operation, ...]) -> OperationGraphs:
    ptr = torch.cat([graphs.num_nodes.new_zeros(1), graphs.num_nodes.cumsum(0)])
    # Of the transpose, so that edges are sorted by their targets.
    owner, target, source = graphs.adjacency.mT.nonzero(as_tuple=True)
    op = graphs.ops[graphs.node_mask]
    names = sorted({name for operation in operations for name in operation.attributes})
    values = torch.tensor([[operation.attributes.get(name, torch.nan) for name in names] for operation in operations])
    return OperationGraphs(
        operations=operations,
        attribute_names=tuple(names),
        op=op,
        attributes=values.double().reshape(len(operations), len(names))[op],
        edge_index=torch.stack([source, target]) + ptr[owner],
        recurrent_index=torch.empty(2, 0, dtype=torch.long),
        ptr=ptr,
    )
