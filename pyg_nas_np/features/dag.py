r"""Graph algorithms on many small labelled DAGs at once: order, live part, path statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.utils import InvalidArchitectureError
from pyg_nas_np.utils.defaults import fixed_defaults

INPUT, OUTPUT = 0, 1
"""Operation ids of the two end nodes in every space."""


@fixed_defaults
def topological(graphs: DenseGraphs) -> DenseGraphs:
    r"""Reorders nodes so that every edge points from a lower to a higher position.

    Args:
        graphs: ``B`` graphs in any node order.

    Raises:
        InvalidArchitectureError: If a graph has a cycle, or not exactly one input and one output node; the message
            names its position in the batch.

    Example:
        >>> adjacency = torch.tensor([[[False, False], [True, False]]])  # node 1 feeds node 0
        >>> topological(DenseGraphs(adjacency, torch.tensor([[1, 0]]), torch.tensor([2]))).ops
        tensor([[0, 1]])
    """
    adjacency, ops, _ = graphs
    for op, name in ((INPUT, "input"), (OUTPUT, "output")):
        wrong = (ops == op).sum(dim=1) != 1
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            count = int((ops[row] == op).sum())
            raise InvalidArchitectureError(f"graph {row} has {count} {name} nodes; every architecture has exactly one")
    if not bool(adjacency.tril().any()):
        return graphs
    level = _levels(adjacency).masked_fill(ops < 0, ops.size(1))
    order = level.argsort(dim=1, stable=True)
    rows = adjacency.gather(1, order.unsqueeze(2).expand_as(adjacency))
    return DenseGraphs(rows.gather(2, order.unsqueeze(1).expand_as(adjacency)), ops.gather(1, order), graphs.num_nodes)


def _levels(adjacency: Tensor) -> Tensor:
    """Longest distance of each node from a source, ``[B, V]``; converges unless there is a cycle."""
    level = torch.zeros(adjacency.shape[:2], dtype=torch.long)
    for _ in range(adjacency.size(1) + 1):
        previous = level
        level = ((level + 1).unsqueeze(2) * adjacency).amax(dim=1)
        if torch.equal(level, previous):
            return level
    row = int((level != previous).any(dim=1).nonzero()[0])
    raise InvalidArchitectureError(f"graph {row} has a cycle; architectures are acyclic")


@fixed_defaults
def live_part(graphs: DenseGraphs, zero_ops: Iterable[int] = ()) -> DenseGraphs:
    r"""Removes every node that is not on an input-output path without zero operations.

    Args:
        graphs: ``B`` graphs in topological order.
        zero_ops: Ids of operations that output zero.

    Returns:
        The same nodes at the same positions, dead ones as padding; a graph without such a path has no nodes.
    """
    adjacency, ops, _ = graphs
    present = ops >= 0
    for op in zero_ops:
        present = present & (ops != op)
    adjacency = adjacency & present.unsqueeze(1) & present.unsqueeze(2)
    forward = (ops == INPUT) & present
    backward = (ops == OUTPUT) & present
    for v in range(1, ops.size(1)):
        forward[:, v] |= (adjacency[:, :v, v] & forward[:, :v]).any(dim=1)
    for v in reversed(range(ops.size(1) - 1)):
        backward[:, v] |= (adjacency[:, v, v + 1 :] & backward[:, v + 1 :]).any(dim=1)
    live = forward & backward
    return DenseGraphs(adjacency & live.unsqueeze(1) & live.unsqueeze(2), ops.masked_fill(~live, -1), live.sum(dim=1))


class PathStatistics(NamedTuple):
    r"""Sums of node weights along all input-output paths of each graph.

    Shapes:
        - **num_paths:** ``[B]``, number of paths.
        - **minimum, maximum, mean:** ``[B, W]`` over the paths; 0 where there is none.
        - **depth:** ``[B, V, W]``, largest sum along a path from the input to each node; ``-inf`` without a path.
    """

    num_paths: Tensor
    minimum: Tensor
    maximum: Tensor
    mean: Tensor
    depth: Tensor


@fixed_defaults
def path_statistics(graphs: DenseGraphs, weights: Tensor) -> PathStatistics:
    r"""Minimum, maximum and mean over all input-output paths of the sum of node weights, without enumerating the paths.

    A dynamic program over the nodes in topological order takes :math:`O(V^2 W)` per graph for any number of paths.

    Args:
        graphs: ``B`` graphs in topological order.
        weights: ``[B, V, W]`` weights of the nodes.

    Example:
        >>> adjacency = torch.tensor([[[0, 1, 1], [0, 0, 1], [0, 0, 0]]], dtype=torch.bool)
        >>> graphs = DenseGraphs(adjacency, torch.tensor([[0, 2, 1]]), torch.tensor([3]))
        >>> stats = path_statistics(graphs, torch.tensor([[[0.0], [5.0], [0.0]]]))
        >>> stats.num_paths.item(), stats.minimum.item(), stats.maximum.item(), stats.mean.item()
        (2.0, 0.0, 5.0, 2.5)
    """
    # The batch dimension is last, so that every step of the program consists of a few long vector operations.
    edge = graphs.adjacency.permute(1, 2, 0).to(weights.dtype).contiguous()
    wall = torch.where(edge > 0, 0.0, torch.inf).unsqueeze(2)
    weight = weights.permute(1, 2, 0)
    source, sink = ((graphs.ops == op).t().to(weights.dtype) for op in (INPUT, OUTPUT))
    # The maximum is the negative of the minimum of the negated weights.
    shortest = torch.cat([weight, -weight], dim=1)
    ways_in, ways_out = source.clone(), sink.clone()
    size = source.size(0)
    shortest[0] += torch.where(source[0] > 0, 0.0, torch.inf)
    for v in range(1, size):
        ways_in[v] += (ways_in[:v] * edge[:v, v]).sum(dim=0)
        start = torch.where(source[v] > 0, 0.0, torch.inf)
        shortest[v] += torch.minimum((shortest[:v] + wall[:v, v]).amin(dim=0), start)
    for v in reversed(range(size - 1)):
        ways_out[v] += (ways_out[v + 1 :] * edge[v, v + 1 :]).sum(dim=0)
    num_paths = (ways_in * sink).sum(dim=0)
    ends = torch.where(sink.unsqueeze(1) > 0, shortest, torch.inf).amin(dim=0).masked_fill(num_paths == 0, 0.0)
    minimum, negative = ends.t().chunk(2, dim=1)
    # The number of paths through a node is (paths to it) x (paths from it).
    total = (weight * (ways_in * ways_out).unsqueeze(1)).sum(dim=0)
    return PathStatistics(
        num_paths=num_paths,
        minimum=minimum,
        maximum=0.0 - negative,  # avoids -0.0, which would hide that two columns are equal
        mean=(total / num_paths.clamp_min(1.0)).t(),
        depth=-shortest[:, weight.size(1) :].permute(2, 0, 1),
    )


@fixed_defaults
def laplacian_spectrum(adjacency: Tensor, mask: Tensor) -> Tensor:
    r"""Eigenvalues of the symmetric normalised Laplacian of the undirected graphs, ascending, 0 for padding.

    :math:`L = I - D^{-1/2} A D^{-1/2}` with the rows of isolated nodes set to 0; eigenvalues lie in :math:`[0, 2]`.

    Args:
        adjacency: ``[B, V, V]`` bool, directed or not.
        mask: ``[B, V]`` bool, True on nodes that count.

    Returns:
        ``[B, V]`` float64.
    """
    both = (adjacency | adjacency.mT).double()
    degree = both.sum(dim=2)
    scale = degree.clamp_min(1.0).rsqrt()
    laplacian = torch.diag_embed((degree > 0).double()) - scale.unsqueeze(2) * both * scale.unsqueeze(1)
    # Nodes that do not count sort behind the largest possible eigenvalue, 2, and are cut off there.
    laplacian = laplacian + torch.diag_embed(torch.where(mask, 0.0, 4.0).double())
    values = torch.linalg.eigvalsh(laplacian)
    # Rounding makes eigenvalues independent of the order of the nodes.
    return torch.where(values < 3.0, values, 0.0).round(decimals=9).abs()
