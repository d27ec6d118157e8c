r"""The search space of graph neural networks of NAS-Bench-Graph."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.spaces.base import Archs, CellSpace, Validity
from pyg_nas_np.spaces.dense import DenseGraphs, require_tensors
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.errors import InvalidArchitectureError

OPS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
"""Operation names; the position is the benchmark's operation id (``graph`` is the k-GNN, ``fc`` a linear layer)."""

LINKS = (
    (0, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 0, 1, 1),
    (0, 0, 1, 2),
    (0, 0, 1, 3),
    (0, 1, 1, 1),
    (0, 1, 1, 2),
    (0, 1, 2, 2),
    (0, 1, 2, 3),
)
"""The nine canonical trees of four nodes; the position is the first digit of the key."""

Dataset = Literal["cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv", "proteins"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)

_SKIP = OPS.index("skip")
_ALL_SKIP_KEY = 88888
_STRING = re.compile(r"([0-4]{4})\|(\w+)\|(\w+)\|(\w+)\|(\w+)")


class _Task(NamedTuple):
    """A node-classification data set and the network that the benchmark trained on it."""

    features: int
    classes: int
    nodes: int
    edges: int  # directed messages, after the benchmark's own preprocessing, without self-loops
    hidden: int
    pre: bool  # linear layer before the computing nodes
    post: bool  # linear layer after them


# Widths and layers are inferred from the parameter counts of the released tables, which they reproduce exactly for
# every architecture (for physics, for the 94 % whose three runs used the same network).
_TASKS: dict[str, _Task] = {
    "cora": _Task(1433, 7, 2708, 10556, 256, False, True),
    "citeseer": _Task(3703, 6, 3327, 9104, 256, False, True),
    "pubmed": _Task(500, 3, 19717, 88648, 128, False, False),
    "cs": _Task(6805, 15, 18333, 163788, 128, True, False),
    "physics": _Task(8415, 5, 34493, 495924, 256, True, False),
    "photo": _Task(745, 8, 7487, 238086, 128, False, False),
    "computers": _Task(767, 10, 13381, 491556, 64, True, True),
    "arxiv": _Task(128, 40, 169343, 2332486, 128, False, True),
    "proteins": _Task(8, 112, 132534, 79122504, 256, True, True),
}


@dataclass(frozen=True, slots=True)
class NASBenchGraphArch:
    r"""Four computing nodes, each with one input node and one operation; every leaf feeds the output.

    Args:
        links: Input of each computing node: 0 is the raw input, k the k-th computing node. Any order of the nodes is
            allowed.
        ops: Operation of each computing node, by name (:data:`OPS`).
    """

    links: tuple[int, ...]
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        # The benchmark's package takes lists; values must be hashable.
        object.__setattr__(self, "links", tuple(self.links))
        object.__setattr__(self, "ops", tuple(self.ops))

    def __str__(self) -> str:
        return "|".join(["".join(map(str, self.links)), *self.ops])


class NASBenchGraphSpace(CellSpace[NASBenchGraphArch]):
    r"""The 26,206 networks of `NAS-Bench-Graph <https://arxiv.org/abs/2206.09166>`_, in ascending order of their key.

    The key is the hash of the benchmark's package: the decimal digits ``L a b c d`` with ``L`` the position of the
    links in :data:`LINKS` and ``a`` to ``d`` the operation ids. The space contains one canonical variant of each
    network; all methods also accept other variants (links in any order, skips anywhere) in place of the canonical one,
    which is computed as follows:

    1. A skip that has successors, is an only child, or reads the raw input is moved to the front of the network.
    2. Among the topological orders of the nodes, the one with the smallest links and then operation ids is chosen.

    Networks of skips only are not in the benchmark.

    Args:
        dataset: One of the nine data sets (:data:`DATASETS`); determines the network's widths and the graph for the
            costs. The set of architectures and its order do not depend on it.

    Raises:
        ValueError: If :obj:`dataset` is unknown.

    Example:
        >>> space = NASBenchGraphSpace()
        >>> arch = NASBenchGraphArch((0, 1, 2, 1), ("gcn", "gin", "fc", "cheb"))
        >>> space.key(arch), space.index(arch)
        (61237, 13881)
        >>> str(space[space.index(arch)])
        '0112|gcn|gin|cheb|fc'
        >>> space.num_parameters(arch)
        765191
    """

    name = "nasbenchgraph"
    op_names: ClassVar[tuple[str, ...]] = ("input", "output", *OPS)
    zero_ops: ClassVar[tuple[str, ...]] = ()
    identity_ops: ClassVar[tuple[str, ...]] = ("skip",)
    described_ops: ClassVar[Mapping[str, tuple[str, Mapping[str, float]]]] = MappingProxyType(
        {"fc": ("linear", {})} | {name: ("message", {}) for name in OPS if name not in ("fc", "skip")}
    )

    def __init__(self, dataset: Dataset = "cora") -> None:
        if dataset not in _TASKS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
        self.dataset = dataset

    # -- the set ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return _catalogue().keys.numel()

    def __getitem__(self, index: int) -> NASBenchGraphArch:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} architectures of {self.name}")
        catalogue = _catalogue()
        return _arch(catalogue.links[index].tolist(), catalogue.ops[index].tolist())

    def index(self, arch: NASBenchGraphArch) -> int:
        r"""Returns the position of the canonical network among the sorted keys."""
        return int(_catalogue().position[_form(*_relabelled(self.check(arch)))])

    def key(self, arch: NASBenchGraphArch) -> int:
        r"""Returns the key of the canonical network, equal to ``valid_hash()`` of the benchmark's package."""
        return int(_catalogue().keys[self.index(arch)])

    @fixed_defaults
    def index_of_keys(self, keys: Sequence[int] | Tensor) -> Tensor:
        r"""Looks up many keys at once.

        Args:
            keys: Keys of canonical networks, ``[B]``.

        Returns:
            Official indices, int64 ``[B]``.

        Raises:
            InvalidArchitectureError: If a key is not one of the 26,206.
        """
        wanted = torch.as_tensor(keys, dtype=torch.long)
        table = _catalogue().keys
        index = torch.searchsorted(table, wanted).clamp_(max=table.numel() - 1)
        missing = table[index] != wanted
        if bool(missing.any()):
            raise InvalidArchitectureError(
                f"{int(wanted[missing][0])} is not the key of one of the {table.numel()} architectures of {self.name}; "
                f"keys are those of canonical forms"
            )
        return index

    def is_valid(self, arch: Any) -> Validity:
        r"""Returns whether :obj:`arch` is a network of the space: a tree of four nodes, not all of them skips."""
        if not isinstance(arch, NASBenchGraphArch):
            return Validity(False, f"expected a NASBenchGraphArch, got {type(arch).__name__}")
        if len(arch.links) != 4 or len(arch.ops) != 4:
            return Validity(False, f"it needs 4 links and 4 operations, got {len(arch.links)} and {len(arch.ops)}")
        for node, link in enumerate(arch.links, start=1):
            if not isinstance(link, int) or not 0 <= link <= 4:
                return Validity(False, f"the link of computing node {node} must be an int from 0 to 4, got {link!r}")
        unknown = [op for op in arch.ops if op not in OPS]
        if unknown:
            return Validity(False, f"unknown operation {unknown[0]!r}; operations: {', '.join(OPS)}")
        for node in range(1, 5):
            above = node
            for _ in range(4):
                above = arch.links[above - 1] if above else 0
            if above:
                return Validity(
                    False, f"computing node {node} is not fed by the input: links {arch.links} hold a cycle"
                )
        if set(arch.ops) == {"skip"}:
            return Validity(False, "a network of skips alone is not in the benchmark")
        return Validity(True)

    # -- editing ----------------------------------------------------------------------------------------------------

    @fixed_defaults
    def neighbors(self, arch: NASBenchGraphArch) -> list[NASBenchGraphArch]:
        r"""Returns the networks with a variant that differs from a variant of :obj:`arch` in one operation or link.

        All variants count, so the relation is symmetric although only canonical networks are stored.
        """
        own = self.index(arch)
        catalogue = _catalogue()
        start, stop = catalogue.first_form[own : own + 2].tolist()
        edited = _one_edit(catalogue.forms[start:stop])
        found = torch.unique(catalogue.position[edited])
        return [self[i] for i in found[(found >= 0) & (found != own)].tolist()]

    @fixed_defaults
    def crossover(
        self, first: NASBenchGraphArch, second: NASBenchGraphArch, generator: torch.Generator | None = None
    ) -> NASBenchGraphArch:
        r"""Takes link and operation of each canonical node from either parent; returns the canonical network."""
        parents = [self[self.index(first)], self[self.index(second)]]
        while True:
            take = torch.randint(2, (4,), generator=generator).tolist()
            links = tuple(parents[p].links[node] for node, p in enumerate(take))
            child = NASBenchGraphArch(links, tuple(parents[p].ops[node] for node, p in enumerate(take)))
            if self.is_valid(child):
                return self[self.index(child)]

    # -- strings ----------------------------------------------------------------------------------------------------

    def to_str(self, arch: NASBenchGraphArch) -> str:
        r"""Returns links and operations as given, for example ``0012|cheb|graph|cheb|gin``."""
        return str(self.check(arch))

    def from_str(self, text: str) -> NASBenchGraphArch:
        r"""Parses a string of :meth:`to_str`, or the decimal key of a canonical network (``33632``).

        Example:
            >>> space = NASBenchGraphSpace()
            >>> space.from_str("33632") == space.from_str("0012|cheb|graph|cheb|gin")
            True
        """
        if re.fullmatch(r"0|[1-9][0-9]{0,4}", text):
            return self[int(self.index_of_keys([int(text)]))]
        match = _STRING.fullmatch(text)
        if match is None:
            raise InvalidArchitectureError(
                f"{text!r} is neither a decimal key of at most five digits nor of the form 0012|op|op|op|op"
            )
        links, *ops = match.groups()
        return self.check(NASBenchGraphArch(tuple(map(int, links)), tuple(ops)))

    def canonical(self, arch: NASBenchGraphArch) -> str:
        r"""Returns the key in decimal digits."""
        return str(self.key(arch))

    def batch_canonical(self, archs: Archs = None) -> list[str]:
        r"""Returns the keys of many architectures in decimal digits."""
        return [str(key) for key in _catalogue().keys[self._indices(archs)].tolist()]

    # -- graphs -----------------------------------------------------------------------------------------------------

    @fixed_defaults
    def dense(self, archs: Archs = None) -> DenseGraphs:
        r"""Returns the 6-node graphs: input, the four computing nodes in topological order, output.

        Skips are kept where they are; the nodes are in the smallest topological order.
        """
        links, ops = self._codes(archs)
        count = links.size(0)
        graph, node = torch.arange(count).unsqueeze(1), torch.arange(1, 5)
        adjacency = torch.zeros(count, 6, 6, dtype=torch.bool)
        adjacency[graph, links, node] = True
        adjacency[:, 1:5, 5] = ~adjacency[:, 1:5, 1:5].any(dim=2)
        ends = torch.zeros(count, 1, dtype=torch.long)
        return DenseGraphs(adjacency, torch.cat([ends, ops + 2, ends + 1], dim=1), torch.full((count,), 6))

    def encode(self, arch: NASBenchGraphArch) -> Data:
        r"""Returns the network as a graph: ``x`` ``[6, 11]`` one-hot over :attr:`op_names`, one edge per connection."""
        return super().encode(self.check(arch))

    def decode(self, data: Data) -> NASBenchGraphArch:
        r"""Reads a network back, with its nodes in the smallest topological order and skips where they are."""
        require_tensors(data.x, data.edge_index)
        if data.x is None or list(data.x.shape) != [6, len(self.op_names)]:
            raise InvalidArchitectureError(
                f"x must have shape [6, {len(self.op_names)}], got {None if data.x is None else list(data.x.shape)}"
            )
        one_hot = ((data.x == 0) | (data.x == 1)).all(dim=1) & (data.x.sum(dim=1) == 1)
        if not bool(one_hot.all()):
            row = int((~one_hot).nonzero()[0])
            raise InvalidArchitectureError(f"row {row} of x is not a one-hot operation: {data.x[row].tolist()}")
        kind = data.x.argmax(dim=1).tolist()
        edges = {(int(i), int(j)) for i, j in data.edge_index.t().tolist()}
        if kind.count(0) != 1 or kind.count(1) != 1:
            raise InvalidArchitectureError(
                f"a network has one input and one output, got {kind.count(0)} and {kind.count(1)}"
            )
        nodes = [kind.index(0), *(v for v in range(6) if kind[v] > 1)]
        links = []
        for node in nodes[1:]:
            sources = [i for i, j in edges if j == node]
            if len(sources) != 1 or sources[0] not in nodes:
                raise InvalidArchitectureError(f"node {node} must have one input that is not the output, got {sources}")
            links.append(nodes.index(sources[0]))
        leaves = {nodes[i] for i in range(1, 5) if i not in links}
        fed = {i for i, j in edges if j == kind.index(1)}
        if fed != leaves:
            raise InvalidArchitectureError(
                f"the nodes without successors ({sorted(leaves)}) feed the output, got {sorted(fed)}"
            )
        arch = self.check(NASBenchGraphArch(tuple(links), tuple(OPS[kind[v] - 2] for v in nodes[1:])))
        return _arch(*_relabelled(arch))

    # -- costs ------------------------------------------------------------------------------------------------------

    @fixed_defaults
    def batch_num_parameters(self, archs: Archs = None) -> Tensor:
        r"""Exact trainable parameters of the canonical network on this data set, int64 ``[B]``.

        They equal the ``para`` of the released tables for every architecture on eight data sets. For physics the table
        differs for 1,567 architectures (6 %): it contains the mean over three runs, not all of which used this network.
        """
        task = _TASKS[self.dataset]
        width, d = torch.tensor([task.hidden, task.features]), task.hidden
        weights = width * d
        per_op = torch.stack(
            [
                weights + 3 * d,  # gat: attention vectors of source and target, bias
                weights + d,
                weights + d,
                2 * weights + d,
                2 * weights + d,
                2 * weights + d * d + d,  # arma: PyG allocates a recurrent weight even for a single layer
                2 * weights + d,
                weights + d,
                0 * weights,
            ]
        )
        op_cost, leaves = self._network(archs, per_op)
        out = task.hidden if task.post else task.classes
        total = op_cost + 4 * 2 * d + leaves * d * out + out
        if task.pre:
            total += task.features * d + d
        if task.post:
            total += d * task.classes + task.classes
        return total

    @fixed_defaults
    def batch_flops(self, archs: Archs = None) -> Tensor:
        r"""Multiply-accumulates of one forward pass of the canonical network over the whole graph, int64 ``[B]``.

        The benchmark does not publish them. They include dense products (``N·in·out``), attention scores, and one
        multiply-accumulate per channel for every non-zero of the propagation matrix, before or after the dense product
        as in PyG's layer. Normalisation, activations, biases and batch norm are not counted.
        """
        task = _TASKS[self.dataset]
        width, d, n, e = torch.tensor([task.hidden, task.features]), task.hidden, task.nodes, task.edges
        product = n * width * d
        per_op = torch.stack(
            [
                product + 2 * n * d + (e + n) * d,
                product + (e + n) * d,
                product + (e + n) * width,
                2 * product + e * width,
                2 * product + e * width,
                2 * product + e * d,
                2 * product + e * width,
                product,
                0 * product,
            ]
        )
        op_cost, leaves = self._network(archs, per_op)
        total = op_cost + n * leaves * d * (d if task.post else task.classes)
        if task.pre:
            total += n * task.features * d
        if task.post:
            total += n * d * task.classes
        return total

    def _network(self, archs: Archs, per_op: Tensor) -> tuple[Tensor, Tensor]:
        """Sums ``per_op[op, input has raw width]`` over the canonical networks and counts their leaves."""
        catalogue, index = _catalogue(), self._indices(archs)
        links, ops = catalogue.links[index], catalogue.ops[index]
        raw = torch.zeros(index.numel(), 5, dtype=torch.long)
        raw[:, 0] = int(not _TASKS[self.dataset].pre)
        total = torch.zeros(index.numel(), dtype=torch.long)
        for node in range(4):
            width = raw.gather(1, links[:, node : node + 1]).squeeze(1)
            total += per_op[ops[:, node], width]
            raw[:, node + 1] = width * (ops[:, node] == _SKIP)
        has_successor = torch.zeros_like(raw).scatter_(1, links, 1)
        return total, 5 - has_successor.sum(dim=1)

    # -- many architectures -----------------------------------------------------------------------------------------

    @fixed_defaults
    def _indices(self, archs: Archs) -> Tensor:
        if archs is None:
            return torch.arange(len(self))
        if isinstance(archs, Tensor):
            return self.check_indices(archs)
        return torch.tensor([self.index(arch) for arch in archs], dtype=torch.long)

    @fixed_defaults
    def _codes(self, archs: Archs) -> tuple[Tensor, Tensor]:
        if archs is None or isinstance(archs, Tensor):
            index = self._indices(archs)
            return _catalogue().links[index], _catalogue().ops[index]
        pairs = [_relabelled(self.check(arch)) for arch in archs]
        codes = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2, 4)
        return codes[:, 0], codes[:, 1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, dataset={self.dataset!r})"


class _Catalogue(NamedTuple):
    """The canonical networks, sorted by key, and the canonical network of every variant.

    A variant is a topologically ordered architecture, numbered 0 to 24 · 9^4 - 1: its tree (links as a mixed-radix
    number), then its operation ids in base 9.
    """

    keys: Tensor  # [26206]
    links: Tensor  # [26206, 4]
    ops: Tensor  # [26206, 4]
    position: Tensor  # [24 * 9^4], index of the canonical network, -1 for skips only
    forms: Tensor  # the variants, grouped by index
    first_form: Tensor  # [26207], first variant of each index


@cache
@fixed_defaults
def _catalogue() -> _Catalogue:
    ops = torch.tensor(list(itertools.product(range(len(OPS)), repeat=4)))
    decimal = 10 ** torch.arange(3, -1, -1)
    keys = torch.empty(24, ops.size(0), dtype=torch.long)
    for skips in itertools.product((False, True), repeat=4):
        # Which nodes move depends on the links and on where the skips are, not on the other operations.
        rows = ((ops == _SKIP) == torch.tensor(skips)).all(dim=1).nonzero().flatten()
        same = ops[rows].t()
        for tree, links in enumerate(itertools.product(range(1), range(2), range(3), range(4))):
            normal, orders = _orders(*_move_skips(links, skips))
            digits = torch.stack([decimal @ same[list(order)] for order in orders]).amin(dim=0)
            keys[tree, rows] = LINKS.index(normal) * 10**4 + digits
    found, position = torch.unique(keys.flatten(), return_inverse=True)
    # The key of the network of skips only is the largest one.
    position[position == found.numel() - 1] = -1
    found = found[found < _ALL_SKIP_KEY]
    digits = found.unsqueeze(1) // (10 ** torch.arange(4, -1, -1)) % 10
    forms = position.argsort(stable=True)
    first = torch.searchsorted(position[forms], torch.arange(found.numel() + 1))
    return _Catalogue(found, torch.tensor(LINKS)[digits[:, 0]], digits[:, 1:], position, forms, first)


def _move_skips(links: Sequence[int], skips: Sequence[bool]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Moves redundant skips to the front; returns the links and, for each new node, the old one."""
    parent = dict(enumerate(links, start=1))
    front: list[int] = []

    def move(node: int) -> None:
        for other, above in parent.items():
            if above == node:
                parent[other] = parent[node]
        del parent[node]
        front.append(node)

    for node in [v for v, skip in enumerate(skips, start=1) if skip]:
        if node in parent.values():
            move(node)
    for node in [v for v, skip in enumerate(skips, start=1) if skip and v in parent]:
        siblings = [v for v, above in parent.items() if above == parent[node]]
        if parent[node] == 0 or siblings == [node]:
            move(node)
    order = [*front, *parent]
    moved = {0: len(front), **{node: order.index(node) + 1 for node in parent}}
    chain = range(len(front))
    return (*chain, *(moved[above] for above in parent.values())), tuple(node - 1 for node in order)


@cache
def _orders(
    links: tuple[int, ...], names: tuple[int, ...] = (0, 1, 2, 3)
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Returns the smallest topologically ordered links and all orders of the nodes that give them."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for order in itertools.permutations(range(4)):
        place = {0: 0, **{node + 1: i + 1 for i, node in enumerate(order)}}
        new = tuple(place[links[node]] for node in order)
        if all(link <= i for i, link in enumerate(new)):
            found.setdefault(new, []).append(tuple(names[node] for node in order))
    smallest = min(found)
    return smallest, tuple(found[smallest])


def _relabelled(arch: NASBenchGraphArch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns links and operation ids with the nodes in the smallest topological order."""
    ids = [OPS.index(op) for op in arch.ops]
    links, orders = _orders(arch.links)
    return links, min(tuple(ids[node] for node in order) for order in orders)


def _form(links: Sequence[int], ops: Sequence[int]) -> int:
    tree = (links[1] * 3 + links[2]) * 4 + links[3]
    return ((((tree * 9) + ops[0]) * 9 + ops[1]) * 9 + ops[2]) * 9 + ops[3]


def _one_edit(forms: Tensor) -> Tensor:
    """Returns the variants that differ from one of :obj:`forms` in one digit of the tree or of the operations."""
    edited = []
    radices = (9, 9, 9, 9, 4, 3, 2)
    for digit, radix in enumerate(radices):
        place = 1
        for lower in radices[:digit]:
            place *= lower
        base = forms - forms // place % radix * place
        edited.append((base.unsqueeze(1) + place * torch.arange(radix)).flatten())
    return torch.cat(edited)


def _arch(links: Sequence[int], ops: Sequence[int]) -> NASBenchGraphArch:
    return NASBenchGraphArch(tuple(links), tuple(OPS[i] for i in ops))
