r"""Values of random, untrained networks on graphs of described operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.features.operation_dag import Level, LiveGraphs, levels, live_graphs, mixed
from pyg_nas_np.features.operations import Vocabulary
from pyg_nas_np.features.random_networks import principal_axes
from pyg_nas_np.features.tables import chunked, mostly_whole, reference_sample
from pyg_nas_np.spaces import OperationView
from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.operations import ADD, IDENTITY, INPUT, OUTPUT, POOL, Operation, OperationGraphs
from pyg_nas_np.utils import fixed_defaults, map_chunks

REFERENCE = 1 << 11
"""Graphs that give the mean, the scale and the principal axes."""

CHUNK = 1 << 8
"""Graphs that share states."""

BLOCK = 64
"""States whose maps are gathered at a time, so that they fit into the cache."""

STEPS = 3
"""How often graphs with recurrent edges are run."""

_HIDDEN = 12
_SHORT = 8
_PASSING = (IDENTITY, ADD, OUTPUT)


class Shared(NamedTuple):
    r"""What computes in the nodes of many graphs: nodes with the same operation on the same values are one state.

    Shapes:
        - **op:** ``[S]`` int64.
        - **values:** ``[S, A]`` float32 attributes.
        - **begins:** ``[S]`` bool, states that receive the start of their operation.
        - **levels:** Edges between states.
        - **recurrent:** ``[2, R]`` int64 edges from the step before.
        - **owner**, **output:** ``[P]`` int64, graph and state of each output.
    """

    op: Tensor
    values: Tensor
    begins: Tensor
    levels: list[Level]
    recurrent: Tensor
    owner: Tensor
    output: Tensor


def share(live: LiveGraphs, values: Tensor) -> Shared:
    r"""Finds the nodes of many graphs that compute the same.

    Args:
        live: The live parts of ``B`` graphs.
        values: ``[N, A]`` attributes, 0 where absent.
    """
    graphs = live.graphs
    rounds = STEPS if graphs.recurrent_index.numel() else 1
    own = _descriptions(graphs.op + 1 + (live.inputs.long() << 40), values)
    label = torch.zeros_like(own)
    for _ in range(rounds):
        before, label = label, own.clone()
        source, target = graphs.recurrent_index
        label.index_add_(0, target, mixed(before[source] * 5 + 1))
        for nodes, above, position in live.levels:
            received = torch.zeros_like(nodes).index_add_(0, position, label[above])
            label[nodes] = mixed(label[nodes] + received * 7)
    first, state = _distinct(label)
    size = first.numel()
    chosen = torch.zeros(state.numel(), dtype=torch.bool).index_fill_(0, first, True)
    edges = graphs.edge_index[:, chosen[graphs.edge_index[1]]]
    recurrent = graphs.recurrent_index[:, chosen[graphs.recurrent_index[1]]]
    out = live.outputs.nonzero().flatten()
    return Shared(
        op=graphs.op[first],
        values=values[first],
        begins=live.inputs[first],
        levels=levels(state[edges], size),
        recurrent=state[recurrent],
        owner=graphs.batch[out],
        output=state[out],
    )


def _descriptions(op: Tensor, values: Tensor) -> Tensor:
    """One number for an operation, ``[N]``, and the values of its attributes, ``[N, A]``."""
    labels = mixed(op)
    for column in values.t().contiguous().double():
        labels = mixed(labels * 3 + column.view(torch.int64))
    return labels


def _distinct(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the first of each different label, and which of these each label is."""
    distinct, which = torch.unique(labels, return_inverse=True)
    first = torch.full_like(distinct, labels.numel())
    return first.scatter_reduce_(0, which, torch.arange(labels.numel()), "amin"), which


class Networks:
    r"""``K`` random networks of width ``d`` whose weights follow the description of an operation.

    The weights of an operation are a common part, a part of its kind and one of its name, and a part for each attribute
    times its value, as is the logarithm of its gain. Every operation has its own seed, so that unknown ones can be met
    later. The second half of the networks adds what comes in to what an operation makes of it.

    Args:
        num_functions: Number ``K``.
        width: Width ``d``.
        num_attributes: Number of attributes.
        depth: Of typical graphs; the deeper, the nearer the gain to 1.
        seed: Seed of everything.
    """

    def __init__(self, num_functions: int, width: int, num_attributes: int, depth: int, seed: int) -> None:
        self.num_functions, self.width, self.seed = num_functions, width, seed
        generator = torch.Generator(device="cpu").manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")

        self.gain = 0.7 ** min(1.0, _SHORT / max(depth, 1))
        self.common = normal(num_functions, width, width)
        self.hidden = normal(num_functions, width, _HIDDEN)
        self.bias = 0.5 * normal(num_functions, 1, _HIDDEN)
        self.out = normal(num_functions, _HIDDEN, 1)
        self.slopes = 0.15 * normal(num_attributes, num_functions)
        self.parts = normal(num_attributes, num_functions, width, width)
        self._made: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}

    def of(self, op: Operation) -> tuple[Tensor, Tensor]:
        r"""Returns the weights of an operation, ``[K, (1 + A) d, d]``, and what it gives as an input, ``[K, d]``."""
        key = (op.kind, op.name)
        if key not in self._made:
            self._made[key] = self._make(op)
        return self._made[key]

    def _make(self, op: Operation) -> tuple[Tensor, Tensor]:
        size, width = self.num_functions, self.width
        name = self._normal(f"name {op.name}")
        both = (self._normal(f"kind {op.kind}") + name) / math.sqrt(2.0)
        own, start = both[:, :width], both[:, width].abs()
        # A name alone decides the gain.
        spread = (0.3 * name[:, width + 1, :1]).exp().unsqueeze(2)
        if op.kind == POOL:
            base = 0.7 * torch.eye(width, dtype=torch.float32, device="cpu") + 0.3 * own / math.sqrt(width)
            scale = 0.1 / math.sqrt(width)
        else:
            scale = self.gain * math.sqrt(2.0 / width)  # ReLU halves the second moment
            base = scale * (math.sqrt(0.6) * self.common + math.sqrt(0.4) * own)
            scale *= 0.35
        parts = [base, *(scale * part for part in self.parts)]
        return torch.cat(parts, dim=1).reshape(size, -1, width) * spread, start

    def _normal(self, text: str) -> Tensor:
        digest = blake2b(f"{self.seed} {text}".encode(), digest_size=4).digest()
        generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "big"))
        shape = (self.num_functions, self.width + 2, self.width)
        return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")

    def evaluate(self, shared: Shared, operations: Sequence[Operation], num_graphs: int) -> Tensor:
        r"""Returns the value of every network on every graph, ``[B, K]``; a dead graph has that of zero."""
        size, width = self.num_functions, self.width
        kinds = [op.kind for op in operations]
        passing = torch.tensor([kind in _PASSING for kind in kinds])[shared.op]
        entering = torch.tensor([kind == INPUT for kind in kinds])[shared.op]
        linear = torch.tensor([kind == POOL for kind in kinds])[shared.op]
        maps, row, starts = self._maps(shared, operations, ~passing & ~entering)
        states = torch.zeros(shared.op.numel(), width, size)
        for _ in range(STEPS if shared.recurrent.numel() else 1):
            before = torch.zeros_like(states)
            before.index_add_(0, shared.recurrent[1], states.index_select(0, shared.recurrent[0]))
            for level in shared.levels:
                received = before.index_select(0, level.nodes)
                received.index_add_(0, level.target, states.index_select(0, level.source))
                started = shared.begins[level.nodes] & ~passing[level.nodes]
                received[started] += starts[shared.op[level.nodes[started]]]
                states[level.nodes] = received
                computing, pooling = row[level.nodes] >= 0, linear[level.nodes]
                for mask, apply in ((computing & ~pooling, self._activated), (computing & pooling, self._mapped)):
                    for rows in mask.nonzero().flatten().split(BLOCK):
                        nodes = level.nodes[rows]
                        states[nodes] = _limited(
                            apply(received.index_select(0, rows), maps.index_select(0, row[nodes]))
                        )
        total = torch.zeros(num_graphs, width, size).index_add_(0, shared.owner, states[shared.output])
        hidden = torch.baddbmm(self.bias, total.permute(2, 0, 1), self.hidden).tanh_()
        return torch.bmm(hidden, self.out).squeeze(2).t()

    def _maps(
        self, shared: Shared, operations: Sequence[Operation], computing: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Linear maps ``[M, d, d, K]`` of the states that compute, the row of each state (-1 if it does not), and what
        each operation gives as an input, ``[O, d, K]``."""
        size, width = self.num_functions, self.width
        nodes = computing.nonzero().flatten()
        first, row = _distinct(_descriptions(shared.op[nodes] + 1, shared.values[nodes]))
        ops, values = shared.op[nodes[first]], shared.values[nodes[first]]
        factors = torch.cat([torch.ones(len(ops), 1), values], dim=1)
        maps = torch.empty(len(ops), width, width, size)
        starts = torch.zeros(len(operations), width, size)
        for op in shared.op.unique().tolist():
            if operations[op].kind in _PASSING:
                continue
            weights, start = self.of(operations[op])
            starts[op] = start.t()
            rows = (ops == op).nonzero().flatten()
            # [K, (1 + A) d, d] to [1 + A, d, d, K]
            parts = weights.view(size, -1, width, width).permute(1, 2, 3, 0).reshape(factors.size(1), -1)
            maps[rows] = (factors[rows] @ parts).view(-1, width, width, size)
        maps *= (values @ self.slopes).exp()[:, None, None]
        return maps, torch.full_like(shared.op, -1).index_copy_(0, nodes, row), starts

    def _mapped(self, given: Tensor, maps: Tensor) -> Tensor:
        """Inputs ``[n, d, K]`` through maps ``[n, d, d, K]``."""
        made = given[:, :1] * maps[:, 0]
        for i in range(1, self.width):
            made.addcmul_(given[:, i : i + 1], maps[:, i])
        return made

    def _activated(self, given: Tensor, maps: Tensor) -> Tensor:
        """The same with a ReLU; the second half of the networks adds the inputs."""
        made = self._mapped(given, maps).relu_()
        plain = self.num_functions // 2
        made[..., plain:].add_(given[..., plain:]).mul_(1.0 / math.sqrt(2.0))
        return made


def _limited(made: Tensor) -> Tensor:
    # Many ways through a deep graph would add up to anything.
    return made.mul_((1.0 + made.square().mean(dim=1, keepdim=True) / 100.0).rsqrt_())


class _Basis(NamedTuple):
    vocabulary: Vocabulary
    networks: Networks
    mean: Tensor
    axes: Tensor


class OperationNetworks:
    r"""Coordinates of graphs of described operations in the space spanned by many random, untrained networks.

    As :class:`~pyg_nas_np.features.RandomNetworks` for cells; operations are related by kind, name and attributes, so
    that a convolution of twice the width computes something similar, and operations that were never seen compute too.
    Graphs with recurrent edges are run for three steps.

    Args:
        space: The search space.
        num_functions: Number of networks, the second half of them with residual nodes.
        width: Their width.
        rank: Largest number of coordinates.
        seed: Seed of the networks.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> from pyg_nas_np.spaces import GraphSpace, OperationGraph
        >>> def chain(*widths):
        ...     nodes = [("linear", {"width": width}) for width in widths]
        ...     return OperationGraph.of(nodes, [(i, i + 1) for i in range(len(widths) - 1)])
        >>> space = GraphSpace([chain(8), chain(9), chain(8, 64)])
        >>> table = OperationNetworks(space, num_functions=32, rank=2).table()
        >>> table.shape, bool((table[0] - table[1]).norm() < (table[0] - table[2]).norm())
        (torch.Size([3, 2]), True)
    """

    def __init__(
        self, space: OperationView[Any], *, num_functions: int = 256, width: int = 4, rank: int = 96, seed: int = 0
    ) -> None:
        if min(num_functions, width, rank) < 1:
            raise ValueError(f"num_functions={num_functions}, width={width} and rank={rank} must be positive")
        self.space = space
        self.num_functions, self.width, self.rank, self.seed = num_functions, width, rank, seed

    @property
    def num_coordinates(self) -> int:
        r"""Number of coordinates: :obj:`rank`, or less where the functions have less."""
        return self._basis.axes.size(1)

    def table(self, archs: Archs = None) -> Tensor:
        r"""Coordinates of many architectures.

        Args:
            archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.

        Returns:
            ``[B, R]`` float32, centred over a reference sample of the space; the mean of their squared norms over it is
            1.
        """
        if mostly_whole(self.space, archs):
            # A copy, because the caller may write into what every predictor of the space reads.
            return self._whole.clone() if archs is None else self._whole[archs]
        return self._compute(list(self.space.resolve(archs)))

    @cached_property
    def _whole(self) -> Tensor:
        return self._compute(list(self.space.resolve(None)))

    def _compute(self, rows: Sequence[Any]) -> Tensor:
        vocabulary, networks, mean, axes = self._basis

        def project(part: Sequence[Any]) -> Tensor:
            return (self._values(part, vocabulary, networks) - mean) @ axes

        parts = map_chunks(fixed_defaults(project), chunked(rows, CHUNK))
        return torch.cat(parts) if parts else torch.empty(0, axes.size(1), dtype=torch.float32)

    @cached_property
    def _basis(self) -> _Basis:
        return self._fit()

    @fixed_defaults
    def _fit(self) -> _Basis:
        rows = reference_sample(self.space, REFERENCE)
        graphs = self.space.operation_graphs(rows)
        vocabulary = Vocabulary.of(graphs)
        depth = len(live_graphs(graphs.select(torch.arange(min(CHUNK, len(rows))))).levels)
        networks = Networks(self.num_functions, self.width, len(vocabulary.attributes), depth, self.seed)
        evaluate = fixed_defaults(lambda part: self._values(part, vocabulary, networks))
        values = map_chunks(evaluate, chunked(rows, CHUNK))
        return _Basis(vocabulary, networks, *principal_axes(torch.cat(values), self.rank))

    def _values(self, archs: Sequence[Any], vocabulary: Vocabulary, networks: Networks) -> Tensor:
        graphs: OperationGraphs = self.space.operation_graphs(archs)
        centre = torch.tensor([offset / scale for _, _, offset, scale in vocabulary.attributes])
        values = (vocabulary.values(graphs) - centre).nan_to_num(0.0).clamp(-3.0, 3.0).float()
        return networks.evaluate(share(live_graphs(graphs), values), graphs.operations, graphs.num_graphs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, num_functions={self.num_functions}, width={self.width})"


def shared_operation_networks(space: OperationView[Any]) -> OperationNetworks:
    r"""Returns the random networks of a space, kept with it."""
    return space.keep(OperationNetworks)
