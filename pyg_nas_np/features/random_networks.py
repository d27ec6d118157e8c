r"""Outputs of random, untrained networks on the cells of a space, as coordinates of a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pyg_nas_np.features.dag import INPUT, OUTPUT, live_part, topological
from pyg_nas_np.features.tables import chunked, seeded_sample
from pyg_nas_np.spaces import CellSpace, SearchSpace
from pyg_nas_np.spaces.base import Archs, require_cells
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.utils import map_chunks
from pyg_nas_np.utils.defaults import fixed_defaults

CHUNK = 1 << 14
"""Cells per batch of shared states."""

ROWS = 1 << 7
"""Cells whose states are read at a time; their hidden units fit into the processor's cache."""

REFERENCE = 1 << 13
"""Number of cells, drawn with a fixed seed, from which mean, scale and principal axes are computed."""

_BLOCK = 48
"""Width of the block-diagonal matrices, which make products of narrow networks as fast as those of a wide one."""

_HIDDEN = 12


class Weights(NamedTuple):
    r"""Weights of ``K`` networks of width ``d``, in ``G`` blocks of ``k``.

    Shapes:
        - **start:** ``[G, 1, k d]``, output of the input node.
        - **ops:** ``[num_ops, G, k d, k d]``, block-diagonal.
        - **hidden**, **bias:** ``[G, k d, 12 k]``, block-diagonal, and ``[G, 1, 12 k]``: the hidden layer of the head.
        - **out:** ``[G, 12 k, k]``, block-diagonal.
    """

    start: Tensor
    ops: Tensor
    hidden: Tensor
    bias: Tensor
    out: Tensor


@fixed_defaults
def draw_weights(
    space: CellSpace[Any],
    num_functions: int,
    width: int,
    generator: torch.Generator,
    *,
    gain: float = 0.7,
    correlation: float = 0.85,
    spread: float = 0.3,
) -> Weights:
    r"""Draws networks whose nodes sum their inputs and whose operations are random linear maps.

    Weights of different operations are correlated, so that the operations compute related functions. Operations that
    average (:attr:`~pyg_nas_np.spaces.CellSpace.averaging_ops`) are closer to the identity. Each operation of each
    network has a random log-gain.

    Args:
        space: The space, for the types of its operations.
        num_functions: Number ``K`` of networks.
        width: Width ``d`` of each.
        generator: Source of randomness.
        gain: Gain of the weighted operations; 1 keeps the variance of a linear network.
        correlation: Correlation between the weights of any two weighted operations.
        spread: Standard deviation of the log-gains.
    """
    per_block = max(1, _BLOCK // width)
    blocks = math.ceil(num_functions / per_block)

    def normal(*shape: int) -> Tensor:
        return torch.randn(blocks, per_block, *shape, generator=generator)

    eye = torch.eye(width)
    common = normal(width, width)
    ops = torch.zeros(len(space.op_names), blocks, per_block * width, per_block * width)
    for op, name in enumerate(space.op_names):
        if op in (INPUT, OUTPUT) or name in space.identity_ops:
            ops[op] = torch.eye(per_block * width)
            continue
        own = normal(width, width)
        size = (spread * normal(1, 1)).exp()
        if name in space.averaging_ops:
            matrix = 0.7 * eye + 0.3 * own / math.sqrt(width)
        else:
            matrix = gain * (math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)
            matrix = matrix * math.sqrt(2.0 / width)  # ReLU halves the second moment
        ops[op] = _block_diagonal(size * matrix)
    hidden = _block_diagonal(normal(width, _HIDDEN))
    return Weights(
        start=normal(width).abs().view(blocks, 1, -1),
        ops=ops,
        hidden=hidden,
        bias=0.5 * normal(_HIDDEN).view(blocks, 1, -1),
        out=_block_diagonal(normal(_HIDDEN, 1)),
    )


@fixed_defaults
def evaluate_networks(graphs: DenseGraphs, weights: Weights, linear_ops: Sequence[int]) -> Tensor:
    r"""Returns the value of every network on every cell.

    The state of a node depends only on its predecessors, so many nodes of different cells share their state. Each
    distinct state is computed once.

    Args:
        graphs: The live parts of ``B`` cells, in topological order.
        weights: ``K`` networks.
        linear_ops: Operations without a ReLU behind them.

    Returns: ``[B, K']`` with ``K'`` the number of networks rounded up to whole blocks; for a cell without a live path,
        the input of the output node is zero.
    """
    adjacency, ops, _ = graphs
    blocks, _, width = weights.start.shape
    state, cells = shared_states(graphs)
    states = torch.zeros(sum(map(len, cells)), blocks * width)
    start = 0
    for v, new in enumerate(cells):
        new_ops = ops[new, v]
        for op in new_ops.unique().tolist():
            for rows in (new_ops == op).nonzero().flatten().split(ROWS):
                if op == INPUT:
                    states[start + rows] = weights.start.flatten()
                elif op > OUTPUT:
                    received = _received(states, state[new[rows]], adjacency[new[rows], :, v])
                    product = torch.bmm(received.view(-1, blocks, width).transpose(0, 1), weights.ops[op])
                    produced = product if op in linear_ops else product.relu_()
                    states[start + rows] = produced.transpose(0, 1).flatten(1)
        start += len(new)
    last = (adjacency & (ops == OUTPUT).unsqueeze(1)).any(dim=2)
    offset, values = -weights.out.sum(dim=1, keepdim=True), []
    for rows in torch.arange(len(ops)).split(ROWS):
        result = _received(states, state[rows], last[rows]).view(-1, blocks, width).transpose(0, 1)
        # tanh(u) = 2 / (1 + exp(-2 u)) - 1: PyTorch's logistic function takes a seventh of the time of its tanh.
        hidden = torch.baddbmm(weights.bias, result, weights.hidden, beta=2, alpha=2).sigmoid_()
        # Block-diagonal once more: 12 hidden units of each network to one value.
        values.append(torch.baddbmm(offset, hidden, weights.out, alpha=2).transpose(0, 1).flatten(1))
    return torch.cat(values)


@fixed_defaults
def shared_states(graphs: DenseGraphs) -> tuple[Tensor, list[Tensor]]:
    r"""Finds the nodes at the same position with the same state: the same operation on the same states.

    Args:
        graphs: ``B`` cells in topological order, of ``V`` positions.

    Returns:
        The number of each node's state, ``[B, V]``, ascending along the positions, and for each position the cells that
        are the first to have its first, second, ... state. Padding and output nodes of one position share one.
    """
    adjacency, ops, _ = graphs
    inner = ops.masked_fill(ops == OUTPUT, -1)
    generator = torch.Generator().manual_seed(0)
    # A multiset is hashed by a sum of random 62-bit numbers; collisions are negligible.
    label, of_op = torch.zeros_like(ops), _random_labels(int(ops.max()) + 2, generator)
    state, cells, total = torch.empty_like(ops), [], 0
    for v in range(ops.size(1)):
        received = (label[:, :v] * adjacency[:, :v, v]).sum(dim=1)
        # The padding id -1 is the last entry.
        key, which = torch.unique(of_op[inner[:, v]] + received * (inner[:, v] >= 0), return_inverse=True)
        rows = torch.arange(len(ops))
        cells.append(torch.zeros_like(key).scatter_reduce_(0, which, rows, "amin", include_self=False))
        state[:, v], label[:, v] = total + which, _random_labels(len(key), generator)[which]
        total += len(key)
    return state, cells


def _random_labels(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1 << 62, (count,), generator=generator)


def _received(states: Tensor, state: Tensor, edges: Tensor) -> Tensor:
    """Sum of the states ``[B, V]`` of the nodes that feed one node of each cell, by ``edges`` ``[B, V]``."""
    counts = edges.sum(dim=1)
    return embedding_bag(state[edges], states, counts.cumsum(0) - counts, mode="sum")


def _block_diagonal(parts: Tensor) -> Tensor:
    """``[G, k, a, b]`` to ``[G, k a, k b]``."""
    groups, k, a, b = parts.shape
    whole = torch.zeros(groups, k, a, k, b)
    diagonal = torch.arange(k)
    whole[:, diagonal, :, diagonal] = parts.transpose(0, 1)
    return whole.view(groups, k * a, k * b)


class _Basis(NamedTuple):
    weights: list[Weights]
    mean: Tensor
    axes: Tensor


def principal_axes(values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    r"""Returns the mean of columns, and the leading principal axes of the standardised columns.

    Args:
        values: ``[B, K]`` values of ``K`` functions on a reference sample.
        rank: Largest number of axes.

    Returns:
        ``[K]``, and ``[K, R]`` by which centred values are to be multiplied; the mean of the squared norms of the
        coordinates of the sample is 1.
    """
    mean, std = values.mean(dim=0), values.std(dim=0).clamp_min(1e-6)
    scaled = ((values - mean) / std).double()
    spectrum, vectors = torch.linalg.eigh(scaled.t() @ scaled / len(values))
    rank = min(rank, int((spectrum > 1e-8 * spectrum[-1]).sum()))
    axes = vectors[:, vectors.size(1) - rank :].flip(1) / spectrum[-rank:].sum().sqrt()
    # An eigenvector has no sign of its own; without one, another machine could mirror a coordinate.
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    return mean, (axes / std.double().unsqueeze(1)).float()


class RandomNetworks:
    r"""Coordinates of cells in the space spanned by many random, untrained networks.

    Two cells are similar if random networks built from them have similar outputs. The linear kernel of the coordinates
    is that of the standardised outputs, restricted to the leading principal axes.

    Args:
        space: The search space, any :class:`~pyg_nas_np.spaces.CellSpace`.
        num_functions: Number of networks.
        widths: Their widths; each is used by the same number of networks.
        rank: Largest number of coordinates.
        seed: Seed of the networks.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> networks = RandomNetworks(NASBench201Space(), num_functions=32, rank=8)
        >>> networks.table(torch.arange(4)).shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        space: CellSpace[Any],
        *,
        num_functions: int = 256,
        widths: Sequence[int] = (3,),
        rank: int = 128,
        seed: int = 0,
    ) -> None:
        if num_functions < len(widths) or rank < 1 or not widths or min(widths) < 1:
            raise ValueError(
                f"num_functions={num_functions} must reach the number of widths={tuple(widths)}, and all be positive, "
                f"as must rank={rank}"
            )
        self.space = space
        self.num_functions = num_functions
        self.widths = tuple(widths)
        self.rank = rank
        self.seed = seed

    @property
    def num_coordinates(self) -> int:
        r"""Number of coordinates: :obj:`rank`, or less where the functions have less."""
        return self._basis.axes.size(1)

    @fixed_defaults
    def table(self, archs: Archs = None) -> Tensor:
        r"""Coordinates of many architectures.

        The table of the whole space is cached and used for all index tensors that cover at least half of the space, and
        only for these: the result must not depend on earlier calls, and coordinates computed in other batches may
        differ in the last bit.

        Args:
            archs: Architectures, a tensor of official indices, or :obj:`None` for the whole space.

        Returns:
            ``[B, rank]`` float32, centred over the space; the mean of their squared norms over the space is 1.
        """
        if archs is None:
            # A copy, because the caller may write to the result.
            return self._whole.clone()
        if isinstance(archs, Tensor):
            rows = self.space.check_indices(archs)
            if 2 * rows.numel() >= self.space.size:
                return self._whole[rows]
        return self._project(archs)

    @cached_property
    @fixed_defaults
    def _whole(self) -> Tensor:
        return self._project(None)

    @cached_property
    @fixed_defaults
    def _basis(self) -> _Basis:
        generator = torch.Generator().manual_seed(self.seed)
        share = self.num_functions // len(self.widths)
        weights = [draw_weights(self.space, share, width, generator) for width in self.widths]
        reference = seeded_sample(self.space, REFERENCE)
        # On one thread, because spaces that compute a table once do it here.
        self.space.dense(reference[:1])
        values = torch.cat(map_chunks(lambda rows: self._values(rows, weights), self._chunks(reference)))
        return _Basis(weights, *principal_axes(values, self.rank))

    def _values(self, archs: Sequence[Any] | Tensor, weights: Sequence[Weights]) -> Tensor:
        space = self.space
        index = space.op_names.index
        live = live_part(topological(space.dense(archs)), [index(name) for name in space.zero_ops])
        linear = [index(name) for name in (*space.identity_ops, *space.averaging_ops)]
        return torch.cat([evaluate_networks(live, part, linear) for part in weights], dim=1)

    def _project(self, archs: Archs) -> Tensor:
        weights, mean, axes = self._basis
        parts = map_chunks(lambda rows: (self._values(rows, weights) - mean) @ axes, self._chunks(archs))
        return torch.cat(parts) if parts else torch.empty(0, axes.size(1))

    def _chunks(self, archs: Archs) -> Sequence[Sequence[Any] | Tensor]:
        return chunked(torch.arange(len(self.space)) if archs is None else archs, CHUNK)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, num_functions={self.num_functions}, widths={self.widths})"


def shared_networks(space: SearchSpace[Any]) -> RandomNetworks:
    r"""Returns the random networks of a space, cached in it, so that tables are computed once.

    Raises:
        InvalidArchitectureError: If its architectures are not cells.
    """
    return require_cells(space).keep(RandomNetworks)
