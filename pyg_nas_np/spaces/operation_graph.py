r"""One graph of operations as a value: checked, in a canonical node order, written as JSON, packed into batches."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

import torch

from pyg_nas_np.spaces.operations import INPUT, OUTPUT, Operation, OperationGraphs, numbers_of
from pyg_nas_np.utils import InvalidArchitectureError

Edges: TypeAlias = "tuple[tuple[int, int], ...]"


class Node(NamedTuple):
    r"""The operation of a node, by name, and the node's own numeric attributes, sorted by name."""

    op: str
    attributes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class OperationGraph:
    r"""A directed graph of named operations: an immutable value; build it with :meth:`of`.

    Isomorphic graphs are equal: nodes are in a canonical, topological order. (Colours are refined along the edges until
    they tell the nodes apart; ties are broken one node at a time. Only highly regular graphs, of which cells and
    networks are none, could have two forms.)
    """

    nodes: tuple[Node, ...]
    edges: Edges
    """Source and target, sorted by target; parallel edges repeat."""
    recurrent: Edges = ()
    """Edges that carry the value of the step before."""

    @classmethod
    def of(
        cls,
        nodes: Sequence[tuple[str, Mapping[str, float]]],
        edges: Iterable[tuple[int, int]],
        recurrent: Iterable[tuple[int, int]] = (),
    ) -> OperationGraph:
        r"""Builds a graph from nodes and edges in any order.

        Args:
            nodes: Name of the operation and numeric attributes of each node.
            edges: Positions of source and target.
            recurrent: Further edges, which carry the source's value of the step before.

        Raises:
            InvalidArchitectureError: If there is no node, a node has no name, an attribute is not a number, an edge
                leaves the nodes, or edges form a cycle.

        Example:
            >>> conv, relu = ("conv", {"kernel": 3}), ("relu", {})
            >>> one = OperationGraph.of([conv, relu], [(0, 1)])
            >>> one == OperationGraph.of([relu, conv], [(1, 0)])
            True
        """
        made = []
        for i, (op, attributes) in enumerate(nodes):
            if not isinstance(op, str) or not op:
                raise InvalidArchitectureError(f"node {i} has no operation name but {op!r}")
            try:
                made.append(Node(op, numbers_of(attributes, f"node {i} ({op})")))
            except ValueError as error:
                raise InvalidArchitectureError(str(error)) from error
        if not made:
            raise InvalidArchitectureError("a graph needs at least one node")
        forward, back = [tuple(edge) for edge in edges], [tuple(edge) for edge in recurrent]
        for edge in (*forward, *back):
            if not all(isinstance(end, int) and 0 <= end < len(made) for end in edge) or len(edge) != 2:
                raise InvalidArchitectureError(f"edge {edge} does not join two of the nodes 0 to {len(made) - 1}")
        order = _canonical_order(made, forward, back)
        position = {node: i for i, node in enumerate(order)}

        def moved(pairs: list[Any]) -> Edges:
            return tuple(sorted(((position[u], position[v]) for u, v in pairs), key=lambda edge: edge[::-1]))

        return cls(tuple(made[i] for i in order), moved(forward), moved(back))

    def to_json(self) -> str:
        r"""Returns the graph as a line of JSON, the same for equal graphs.

        Example:
            >>> OperationGraph.of([("conv", {"kernel": 3}), ("relu", {})], [(0, 1)]).to_json()
            '{"nodes":[["conv",{"kernel":3.0}],["relu",{}]],"edges":[[0,1]]}'
        """
        content: dict[str, Any] = {
            "nodes": [[node.op, dict(node.attributes)] for node in self.nodes],
            "edges": self.edges,
        }
        if self.recurrent:
            content["recurrent"] = self.recurrent
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> OperationGraph:
        r"""Reads what :meth:`to_json` wrote, nodes in any order.

        Raises:
            InvalidArchitectureError: If the text is not of this form, or not a graph.
        """
        try:
            content = json.loads(text)
            nodes = [(str(op), dict(attributes)) for op, attributes in content["nodes"]]
            edges, recurrent = ([(u, v) for u, v in content.get(key, ())] for key in ("edges", "recurrent"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidArchitectureError(
                f'{text[:80]!r} is not a graph of the form {{"nodes":[["conv",{{"kernel":3}}]],"edges":[[0,1]]}}'
            ) from error
        return cls.of(nodes, edges, recurrent)

    def ends(self, kinds: Mapping[str, str]) -> tuple[list[int], list[int]]:
        r"""Returns the inputs and the outputs: nodes of these kinds, else those without predecessors and successors.

        Args:
            kinds: Kind of each operation by name; an unknown name is its own kind.
        """
        kind_of = [kinds.get(node.op) or Operation(node.op).kind for node in self.nodes]
        sources, targets = {u for u, _ in self.edges}, {v for _, v in self.edges}
        every = range(len(self.nodes))
        inputs = [i for i in every if kind_of[i] == INPUT] or [i for i in every if i not in targets]
        return inputs, [i for i in every if kind_of[i] == OUTPUT] or [i for i in every if i not in sources]

    def is_connected(self, kinds: Mapping[str, str]) -> bool:
        r"""Whether a way leads from an input to an output."""
        inputs, outputs = self.ends(kinds)
        reached = set(inputs)
        for u, v in self.edges:
            if u in reached:
                reached.add(v)
        return not reached.isdisjoint(outputs)


def pack(
    graphs: Sequence[OperationGraph], operations: Sequence[Operation] = (), attribute_names: Sequence[str] = ()
) -> OperationGraphs:
    r"""Packs graphs into flat tensors; names beyond the vocabulary are appended to it as they appear.

    Args:
        graphs: ``B`` graphs.
        operations: The vocabulary.
        attribute_names: Names of the first attributes.

    Example:
        >>> graph = OperationGraph.of([("conv3x3", {}), ("relu", {})], [(0, 1)])
        >>> batch = pack([graph, graph], [Operation("conv3x3", kind="conv", kernel=3)])
        >>> batch.op.tolist(), batch.attributes[:, 0].tolist(), batch.edge_index.tolist()
        ([0, 1, 0, 1], [3.0, nan, 3.0, nan], [[0, 2], [1, 3]])
    """
    known = list(operations)
    ids = {op.name: i for i, op in enumerate(known)}
    columns = {name: i for i, name in enumerate(attribute_names)}
    op_ids: list[int] = []
    cells: list[tuple[int, int, float]] = []
    edges: list[tuple[int, int]] = []
    recurrent: list[tuple[int, int]] = []
    ptr = [0]
    for graph in graphs:
        start = ptr[-1]
        for row, node in enumerate(graph.nodes, start):
            if (op := ids.get(node.op)) is None:
                op = ids[node.op] = len(known)
                known.append(Operation(node.op))
            op_ids.append(op)
            # A node's own attribute comes behind the operation's, and overwrites it.
            for name, value in (*known[op].items, *node.attributes):
                cells.append((row, columns.setdefault(name, len(columns)), value))
        edges += [(u + start, v + start) for u, v in graph.edges]
        recurrent += [(u + start, v + start) for u, v in graph.recurrent]
        ptr.append(start + len(graph.nodes))
    attributes = torch.full((len(op_ids), len(columns)), torch.nan, dtype=torch.float64, device="cpu")
    values = {(row, column): value for row, column, value in cells}
    if values:
        rows, cols = torch.tensor(list(values), dtype=torch.long, device="cpu").t()
        attributes[rows, cols] = torch.tensor(list(values.values()), dtype=torch.float64, device="cpu")

    def pairs(found: list[tuple[int, int]]) -> torch.Tensor:
        return torch.tensor(found, dtype=torch.long, device="cpu").reshape(-1, 2).t().contiguous()

    return OperationGraphs(
        operations=tuple(known),
        attribute_names=tuple(columns),
        op=torch.tensor(op_ids, dtype=torch.long, device="cpu"),
        attributes=attributes,
        edge_index=pairs(edges),
        recurrent_index=pairs(recurrent),
        ptr=torch.tensor(ptr, dtype=torch.long, device="cpu"),
    )


def _canonical_order(nodes: list[Node], edges: list[Any], recurrent: list[Any]) -> list[int]:
    """A topological order that depends on the graph alone: nodes by level, then by colour."""
    (before, after), (back, forth) = _adjacent(len(nodes), edges), _adjacent(len(nodes), recurrent)
    order, level = _topological(nodes, before, after)
    sweeps = ((order, before), (order[::-1], after))

    def refined(colour: list[int]) -> list[int]:
        # A sweep carries colours along the edges through the whole depth at once. Hashes of integers have no salt.
        count, previous = len(set(colour)), -1
        while previous < count < len(nodes):
            for sweep, adjacent in sweeps:
                old = colour.copy()
                for v in sweep:
                    around = (
                        sorted(colour[u] for u in adjacent[v]),
                        [old[u] for u in back[v]],
                        [old[u] for u in forth[v]],
                    )
                    colour[v] = hash((colour[v], *((*sorted(part), len(part)) for part in around)))
            count, previous = len(set(colour)), count
        return colour

    colour = refined([_digest(f"{level[v]} {node!r}") for v, node in enumerate(nodes)])
    while tied := _tied(colour, before, after, back, forth):
        forms = [refined([hash((c, u == v)) for u, c in enumerate(colour)]) for v in tied]
        colour = min(forms, key=sorted)
    return sorted(range(len(nodes)), key=lambda v: (level[v], colour[v]))


def _adjacent(size: int, edges: list[Any]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(size)]
    after: list[list[int]] = [[] for _ in range(size)]
    for u, v in edges:
        before[v].append(u)
        after[u].append(v)
    return before, after


def _tied(colour: list[int], *adjacent: list[list[int]]) -> list[int]:
    """The first nodes of one colour that are not twins: twins have the same neighbors, their order does not matter."""
    classes = defaultdict(list)
    for v, c in enumerate(colour):
        classes[c].append(v)
    for _, members in sorted(classes.items()):
        if len(members) > 1 and len({tuple(tuple(sorted(part[v])) for part in adjacent) for v in members}) > 1:
            return members
    return []


def _topological(nodes: list[Node], before: list[list[int]], after: list[list[int]]) -> tuple[list[int], list[int]]:
    """A topological order, and the longest distance of each node from a source."""
    missing, level = [len(sources) for sources in before], [0] * len(nodes)
    order = [v for v, count in enumerate(missing) if count == 0]
    for u in order:
        for v in after[u]:
            level[v] = max(level[v], level[u] + 1)
            missing[v] -= 1
            if missing[v] == 0:
                order.append(v)
    if len(order) < len(nodes):
        # Every node that is left has a predecessor that is left: walking back must meet a node again.
        v, walk = next(v for v, count in enumerate(missing) if count), list[int]()
        while v not in walk:
            walk.append(v)
            v = next(u for u in before[v] if missing[u])
        cycle = [v, *reversed(walk[walk.index(v) :])]
        raise InvalidArchitectureError(
            f"nodes {' → '.join(f'{u} ({nodes[u].op})' for u in cycle)} form a cycle; mark the edge that carries the "
            f"value of the step before as recurrent"
        )
    return order, level


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big")
