r"""Search spaces of operation graphs: a pool of candidates, or whatever a function draws."""

from __future__ import annotations

import itertools
import math
import numbers
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.spaces.base import Archs, Costs, EnumerableSpace, Scores, Validity
from pyg_nas_np.spaces.operation_graph import OperationGraph, pack
from pyg_nas_np.spaces.operations import Operation, OperationGraphs, OperationView
from pyg_nas_np.utils import InvalidArchitectureError, InvalidLabelsError

GraphLike: TypeAlias = "OperationGraph | Data | nx.DiGraph"
CostLike: TypeAlias = "Sequence[float] | Tensor | Callable[[OperationGraph], float]"

NUM_NEIGHBORS = 8
"""How many nearest candidates of a pool are neighbors."""

NUM_REFERENCE = 256
"""How many graphs of a sampler tell its vocabulary."""

_RESERVED = frozenset({"op", "x", "y", "edge_index", "edge_attr", "recurrent", "slot", "batch", "ptr", "pos", "space"})

SLOT = "slot"
"""Operation, and its attribute, of the node that stands for one of the ordered inputs of an operation."""


def operation_graph(
    graph: GraphLike, operations: Sequence[Operation] = (), attributes: Sequence[str] | None = None
) -> OperationGraph:
    r"""Reads a graph of operations from PyG or networkx.

    - :class:`~torch_geometric.data.Data`: operations are ``op`` (a list of names, or ids into :obj:`operations`), or
      else a one-hot ``x``; every further number per node (``[num_nodes]``) is an attribute, NaN where a node has none;
      ``recurrent`` ``[num_edges]`` marks edges that carry the value of the step before, ``slot`` ``[num_edges]`` which
      input of its target an edge is, negative where the order does not count.
    - :class:`networkx.DiGraph` and :class:`~networkx.MultiDiGraph`: a node's ``op`` is its operation, its other entries
      are attributes; an edge with a true ``recurrent`` carries the value of the step before, one with a ``slot`` is
      that input of its target.

    Gates of recurrent cells, differences and matrix products depend on the order of their inputs. An edge with a slot
    leads through a node of its own, an operation ``"slot"`` with the number as attribute, so that whatever reads
    operations tells ``a - b`` from ``b - a``.

    Args:
        graph: The graph.
        operations: The vocabulary that ids and ``x`` refer to.
        attributes: Names of the attributes to read. (default: all numbers of the nodes)

    Raises:
        InvalidArchitectureError: If a node has no operation, an attribute is not a number, a slot is not a whole
            number, or edges form a cycle.

    Example:
        >>> graph = nx.DiGraph([("stem", "head")])
        >>> graph.nodes["stem"].update(op="conv", kernel=3)
        >>> graph.nodes["head"]["op"] = "linear"
        >>> operation_graph(graph).to_json()
        '{"nodes":[["conv",{"kernel":3.0}],["linear",{}]],"edges":[[0,1]]}'

        A gate that takes the new state where it is open and the old one where it is closed:

        >>> cell = nx.MultiDiGraph()
        >>> cell.add_nodes_from([("x", {"op": "input"}), ("new", {"op": "tanh"}), ("h", {"op": "blend"})])
        >>> edges = ("x", "new", {}), ("new", "h", {"slot": 0}), ("h", "h", {"slot": 1, "recurrent": True})
        >>> keys = cell.add_edges_from(edges)
        >>> sorted(node.op for node in operation_graph(cell).nodes)
        ['blend', 'input', 'slot', 'slot', 'tanh']
    """
    if isinstance(graph, OperationGraph):
        return graph
    if isinstance(graph, Data):
        return _from_data(graph, [op.name for op in operations], attributes)
    if isinstance(graph, nx.Graph):
        return _from_networkx(graph, attributes)
    raise InvalidArchitectureError(
        f"a {type(graph).__name__} is not a graph; give torch_geometric.data.Data, networkx.DiGraph or OperationGraph"
    )


def _from_networkx(graph: nx.Graph, wanted: Sequence[str] | None) -> OperationGraph:
    if not graph.is_directed():
        raise InvalidArchitectureError(f"a {type(graph).__name__} has no directions; build a networkx.DiGraph")
    position = {node: i for i, node in enumerate(graph.nodes)}
    nodes = []
    for node, entries in graph.nodes(data=True):
        if "op" not in entries:
            raise InvalidArchitectureError(f"node {node!r} has no 'op'; set graph.nodes[{node!r}]['op'] to a name")
        names = [name for name in entries if name != "op"] if wanted is None else [n for n in wanted if n in entries]
        nodes.append((entries["op"], {name: entries[name] for name in names if not _absent(entries[name])}))
    edges = [
        (position[u], position[v], bool(entries.get("recurrent", False)), entries.get(SLOT))
        for u, v, entries in graph.edges(data=True)
    ]
    return _joined(nodes, edges)


def _joined(
    nodes: list[tuple[str, dict[str, Any]]], edges: Iterable[tuple[int, int, bool, float | None]]
) -> OperationGraph:
    """The graph of nodes and edges (source, target, recurrent, slot); a slot becomes a node on its edge."""
    pairs: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for u, v, recurrent, slot in edges:
        if slot is None:
            pairs[recurrent].append((u, v))
            continue
        if not isinstance(slot, numbers.Real) or not 0 <= slot < math.inf or slot != math.floor(slot):
            raise InvalidArchitectureError(f"edge {u, v} has slot {slot!r}; number the inputs of a node 0, 1, 2")
        pairs[recurrent].append((u, len(nodes)))
        pairs[False].append((len(nodes), v))
        nodes = [*nodes, (SLOT, {SLOT: float(slot)})]
    return OperationGraph.of(nodes, *pairs)


def _from_data(data: Data, names: list[str], wanted: Sequence[str] | None) -> OperationGraph:
    op = data.op if "op" in data else None
    if op is None:
        x = data.x
        if x is None or x.dim() != 2 or x.size(1) != len(names) or not bool((x.sum(dim=1) == 1).all()):
            raise InvalidArchitectureError(
                f"{data} names no operations; give data.op, a list of a name a node, or a one-hot x and operations= "
                f"(there are {len(names)})"
            )
        op = x.argmax(dim=1)
    if isinstance(op, Tensor):
        ids = op.flatten().tolist()
        wrong = [i for i in ids if not (isinstance(i, int) and 0 <= i < len(names))]
        if wrong:
            raise InvalidArchitectureError(f"operation id {wrong[0]} is not one of the {len(names)} operations=")
        op = [names[i] for i in ids]
    size = len(op)
    columns: dict[str, list[Any]] = {}
    for name in data.keys() if wanted is None else wanted:
        value = data.get(name)
        if isinstance(value, Tensor):
            value = value.tolist() if value.dim() == 1 else None
        if name not in _RESERVED and isinstance(value, list | tuple) and len(value) == size:
            columns[name] = list(value)
    nodes = [(o, {k: c[i] for k, c in columns.items() if not _absent(c[i])}) for i, o in enumerate(op)]
    edge_index = torch.empty(2, 0) if data.edge_index is None else data.edge_index
    count = edge_index.size(1)
    recurrent = data.recurrent.flatten().tolist() if "recurrent" in data else [False] * count
    slots = data.slot.flatten().tolist() if SLOT in data else [-1] * count
    if not len(recurrent) == len(slots) == count:
        raise InvalidArchitectureError(
            f"recurrent and slot need one entry for each of {count} edges, got {len(recurrent)} and {len(slots)}"
        )
    edges = [
        (u, v, bool(later), None if slot < 0 else slot)
        for (u, v), later, slot in zip(edge_index.t().tolist(), recurrent, slots, strict=True)
    ]
    return _joined(nodes, edges)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


class _GraphSpace(OperationView[OperationGraph], Costs[OperationGraph]):
    """What both kinds of spaces share: a vocabulary taken from graphs, and JSON."""

    def _learn(self, graphs: Sequence[OperationGraph], declared: Sequence[Operation]) -> None:
        """Takes vocabulary and values from graphs, and refuses those without a way through."""
        batch = pack(graphs, declared)
        self._operations, self._attribute_names = batch.operations, batch.attribute_names
        self._kinds = {op.name: op.kind for op in batch.operations}
        for row, graph in enumerate(graphs):
            if not graph.is_connected(self._kinds):
                raise InvalidArchitectureError(
                    f"graph {row} has no way from an input to an output; nodes of kind 'input' and 'output', or else "
                    f"those without predecessors and successors, are the ends"
                )

    @property
    def operations(self) -> tuple[Operation, ...]:
        r"""The declared operations, and those of the graphs."""
        return self._operations

    @property
    def attribute_names(self) -> tuple[str, ...]:
        r"""Names of the numeric attributes of operations and nodes."""
        return self._attribute_names

    def to_str(self, arch: OperationGraph) -> str:
        r"""Returns the graph as JSON, the same for equal graphs."""
        return arch.to_json()

    def from_str(self, text: str) -> OperationGraph:
        r"""Reads a graph from JSON, with its nodes in any order."""
        return self.check(OperationGraph.from_json(text))

    def is_valid(self, arch: Any) -> Validity:
        r"""Tells whether :obj:`arch` is a graph of the space, and if not, why."""
        if not isinstance(arch, OperationGraph):
            return Validity(False, f"a {type(arch).__name__} is not an OperationGraph; read it with operation_graph()")
        reason = self._why_not(arch)
        return Validity(not reason, reason)

    @abstractmethod
    def _why_not(self, arch: OperationGraph) -> str: ...


@dataclass(frozen=True)
class _Drawn:
    """Draws one of some graphs. A class, because functions inside of functions cannot be pickled."""

    graphs: tuple[OperationGraph, ...]

    def __call__(self, generator: torch.Generator | None) -> OperationGraph:
        return self.graphs[int(torch.randint(len(self.graphs), (), generator=generator, device="cpu"))]


@dataclass(frozen=True)
class _Sum:
    """Sum of an attribute over the nodes of a graph."""

    attribute: str

    def __call__(self, graph: OperationGraph) -> float:
        return sum(value for node in graph.nodes for name, value in node.attributes if name == self.attribute)


class SampledGraphSpace(_GraphSpace):
    r"""The operation graphs that a function draws: a space without an index, of any size.

    Neighbors differ in the operation or one attribute of a node, or in one edge; operations and values are those of the
    vocabulary and of a few graphs that were drawn.

    Args:
        sampler: ``sampler(generator)`` returns an :class:`OperationGraph`, or what :func:`operation_graph` reads.
        operations: What is known of operations beforehand; names that graphs use beside them are added.
        attributes: Names of the attributes to read. (default: all numbers of the nodes)
        costs: Cost of a graph by name.
        is_member: Whether an edited graph is in the space. (default: any with a way from an input to an output is)
        name: Name of the space.

    Raises:
        InvalidArchitectureError: If the sampler returns something else than a graph, or one without a way from an
            input to an output.

    Example:
        >>> def chain(generator):
        ...     width = 2 ** int(torch.randint(4, 8, (), generator=generator))
        ...     layer = ("linear", {"width": width})
        ...     return OperationGraph.of([("input", {}), layer, layer, ("output", {})], [(0, 1), (1, 2), (2, 3)])
        >>> space = SampledGraphSpace(chain)
        >>> space.attribute_names, len(space.sample(3, torch.Generator().manual_seed(0)))
        (('width',), 3)
    """

    def __init__(
        self,
        sampler: Callable[[torch.Generator], GraphLike],
        operations: Sequence[Operation] = (),
        *,
        attributes: Sequence[str] | None = None,
        costs: Mapping[str, Callable[[OperationGraph], float]] | None = None,
        is_member: Callable[[OperationGraph], bool] | None = None,
        name: str = "graphs",
    ) -> None:
        self.name = name
        self._sampler = sampler
        self._declared = tuple(operations)
        self._wanted = attributes
        self._is_member = is_member
        self._costs = dict(costs or {})
        generator = torch.Generator(device="cpu").manual_seed(0)
        graphs = [self._draw(generator) for _ in range(NUM_REFERENCE)]
        self._learn(graphs, operations)
        values: dict[tuple[str, str], set[float]] = defaultdict(set)
        for node in itertools.chain.from_iterable(graph.nodes for graph in graphs):
            for attribute, value in node.attributes:
                values[node.op, attribute].add(value)
        self._values = {key: sorted(found) for key, found in values.items()}

    @classmethod
    def around(
        cls, graphs: Sequence[GraphLike], operations: Sequence[Operation] = (), *, name: str = "graphs"
    ) -> SampledGraphSpace:
        r"""Returns the space of graphs like the given ones, which is what a predictor takes that is given graphs alone.

        Samples are the given graphs; any graph with a way through belongs to the space. Where nodes tell their
        ``parameters`` and ``macs``, as those of traced modules do, their sums are costs.

        Raises:
            InvalidArchitectureError: If there is no graph, or one is not a graph of operations.
        """
        pool = GraphSpace(graphs, operations, name=name)
        sums = {"num_parameters": "parameters", "flops": "macs"}
        costs = {cost: _Sum(part) for cost, part in sums.items() if part in pool.attribute_names}
        return cls(_Drawn(tuple(pool.enumerate())), pool.operations, costs=costs, name=name)

    def _draw(self, generator: torch.Generator | None) -> OperationGraph:
        return operation_graph(self._sampler(generator), self._declared, self._wanted)  # type: ignore[arg-type]

    def operation_graphs(self, archs: Archs = None) -> OperationGraphs:
        r"""Returns the graphs of many architectures."""
        return pack(self.resolve(archs), self._operations, self._attribute_names)

    def costs(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns the given costs, float64 ``[B]`` each; none where none are given."""
        graphs = self.resolve(archs)
        return {
            name: torch.tensor([cost(graph) for graph in graphs], dtype=torch.float64, device="cpu")
            for name, cost in self._costs.items()
        }

    def sample(
        self, n: int, generator: torch.Generator | None = None, *, replace: bool = False
    ) -> list[OperationGraph]:
        r"""Draws :obj:`n` graphs, distinct unless :obj:`replace`.

        Raises:
            ValueError: If :obj:`n` is negative, or the sampler does not give that many distinct graphs: 100 draws in a
                row brought none.
        """
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        if generator is None:
            generator = torch.Generator(device="cpu").manual_seed(int(torch.randint(1 << 31, (), device="cpu")))
        if replace:
            return [self._draw(generator) for _ in range(n)]
        found: dict[OperationGraph, None] = {}
        misses = 0
        while len(found) < n:
            count = len(found)
            found[self._draw(generator)] = None
            misses = 0 if len(found) > count else misses + 1
            if misses == 100:
                raise ValueError(
                    f"cannot draw n={n} distinct architectures: 100 draws of the sampler brought none beyond {count}; "
                    f"pass replace=True"
                )
        return list(found)

    def neighbors(self, arch: OperationGraph) -> list[OperationGraph]:
        r"""Returns the valid graphs that differ in one operation, attribute or edge."""
        found = {edited: None for edit in self._edits(arch) if (edited := self._edited(arch, edit)) is not None}
        return list(found)

    def mutate(self, arch: OperationGraph, generator: torch.Generator | None = None) -> OperationGraph:
        r"""Returns a neighbor by a uniformly drawn edit.

        Raises:
            InvalidArchitectureError: If no edit leads to a valid graph.
        """
        edits = self._edits(arch)
        for i in torch.randperm(len(edits), generator=generator, device="cpu").tolist():
            if (edited := self._edited(arch, edits[i])) is not None:
                return edited
        raise InvalidArchitectureError(f"no single edit of {arch.to_json()} leads to another graph of {self.name}")

    def _edits(self, arch: OperationGraph) -> list[tuple[Any, ...]]:
        inputs, outputs = arch.ends(self._kinds)
        ends = {*inputs, *outputs}
        names = [op.name for op in self._operations if op.kind not in ("input", "output")]
        edits: list[tuple[Any, ...]] = []
        for v, node in enumerate(arch.nodes):
            if node.op in names:
                edits += [("op", v, name) for name in names if name != node.op]
            for name, value in node.attributes:
                values = self._values.get((node.op, name), [])
                lower, upper = [x for x in values if x < value][-1:], [x for x in values if x > value][:1]
                edits += [("attribute", v, (name, x)) for x in lower + upper]
        edits += [("remove", u, v) for u, v in dict.fromkeys(arch.edges)]
        present = set(arch.edges)
        # A longer list of edges than this is no local edit any more, and would be slow.
        pairs = itertools.combinations(range(len(arch.nodes)), 2)
        free = ((u, v) for u, v in pairs if (u, v) not in present and u not in ends.intersection(outputs))
        edits += [("add", u, v) for u, v in itertools.islice((e for e in free if e[1] not in inputs), 256)]
        return edits

    def _edited(self, arch: OperationGraph, edit: tuple[Any, ...]) -> OperationGraph | None:
        what, first, second = edit
        nodes = [(node.op, dict(node.attributes)) for node in arch.nodes]
        edges = list(arch.edges)
        if what == "op":
            # What the new operation does not have elsewhere is dropped, what it lacks is left to its description.
            kept = {name: x for name, x in nodes[first][1].items() if (second, name) in self._values}
            nodes[first] = (second, kept)
        elif what == "attribute":
            nodes[first][1][second[0]] = second[1]
        elif what == "remove":
            edges.remove((first, second))
        else:
            edges.append((first, second))
        edited = OperationGraph.of(nodes, edges, arch.recurrent)
        same_ends = what not in ("remove", "add") or [len(part) for part in edited.ends(self._kinds)] == [
            len(part) for part in arch.ends(self._kinds)
        ]
        return edited if edited != arch and same_ends and self.is_valid(edited) else None

    def _why_not(self, arch: OperationGraph) -> str:
        if not arch.is_connected(self._kinds):
            return "no way leads from an input to an output"
        return "" if self._is_member is None or self._is_member(arch) else "is_member refuses it"


class GraphSpace(EnumerableSpace[OperationGraph], _GraphSpace, Scores[OperationGraph]):
    r"""A pool of operation graphs: the candidates that there are. For a function that draws graphs see :meth:`sampled`.

    The official index is the position in the list; isomorphic candidates are equal, and :meth:`index` gives the first.
    Neighbors are the candidates that differ least: in the fewest operations, attributes and pairs of operations along
    an edge.

    Args:
        graphs: The candidates: :class:`OperationGraph`, or what :func:`operation_graph` reads.
        operations: What is known of operations beforehand; names that graphs use beside them are added.
        attributes: Names of the attributes to read. (default: all numbers of the nodes)
        costs: Costs by name: one number a candidate, or a function of the graph.
        scores: Zero-cost scores by name, of which larger ones are supposed to be better: as costs, NaN where unknown.
        name: Name of the space.

    Raises:
        InvalidArchitectureError: If there is no candidate, or one is not a graph, has a cycle or a node without an
            operation, or no way from an input to an output; the message names its position.
        InvalidLabelsError: If a column of costs has not one finite number a candidate, or one of scores not one number.

    Example:
        >>> def chain(*widths):
        ...     graph = nx.DiGraph()
        ...     nx.add_path(graph, range(len(widths)))
        ...     for node, width in enumerate(widths):
        ...         graph.nodes[node].update(op="linear", width=width)
        ...     return graph
        >>> space = GraphSpace([chain(8, 8), chain(8, 16), chain(64, 64, 64)], costs={"params": [64, 128, 8192]})
        >>> space.index(space.neighbors(space[0])[0]), space.costs([space[2]])["params"].tolist()
        (1, [8192.0])
    """

    def __init__(
        self,
        graphs: Sequence[GraphLike],
        operations: Sequence[Operation] = (),
        *,
        attributes: Sequence[str] | None = None,
        costs: Mapping[str, CostLike] | None = None,
        scores: Mapping[str, CostLike] | None = None,
        name: str = "graphs",
    ) -> None:
        self.name = name
        self._graphs = [_read(graph, i, operations, attributes) for i, graph in enumerate(graphs)]
        if not self._graphs:
            raise InvalidArchitectureError("a pool needs at least one graph")
        self._learn(self._graphs, operations)
        self._position: dict[OperationGraph, int] = {}
        for i, graph in enumerate(self._graphs):
            self._position.setdefault(graph, i)
        self._columns = {name: self._column(f"costs[{name!r}]", cost) for name, cost in (costs or {}).items()}
        self._scores = {name: self._column(f"scores[{name!r}]", score) for name, score in (scores or {}).items()}
        for name, column in self._columns.items():
            if not bool(column.isfinite().all()):
                raise InvalidLabelsError(f"costs[{name!r}] must be finite; give one known number a graph")

    @staticmethod
    def sampled(
        sampler: Callable[[torch.Generator], GraphLike], operations: Sequence[Operation] = (), **options: Any
    ) -> SampledGraphSpace:
        r"""Returns the space of the graphs that a function draws: :class:`SampledGraphSpace`."""
        return SampledGraphSpace(sampler, operations, **options)

    def _column(self, what: str, cost: CostLike) -> Tensor:
        values = [cost(graph) for graph in self._graphs] if callable(cost) else cost
        column = torch.as_tensor(values, dtype=torch.float64, device="cpu").flatten()
        if column.numel() != len(self._graphs):
            raise InvalidLabelsError(
                f"{what} must be one number for each of {len(self._graphs)} graphs, got {column.numel()} values"
            )
        return column

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, index: int) -> OperationGraph:
        if not 0 <= index < len(self._graphs):
            raise IndexError(f"index {index} is outside the {len(self._graphs)} graphs of {self.name}")
        return self._graphs[index]

    def index(self, arch: OperationGraph) -> int:
        r"""Returns the position of the first equal candidate."""
        return self._position[self.check(arch)]

    def _why_not(self, arch: OperationGraph) -> str:
        return "" if arch in self._position else "the pool has no such graph"

    def operation_graphs(self, archs: Archs = None) -> OperationGraphs:
        r"""Returns the graphs of architectures, official indices, or all."""
        return self._packed() if archs is None else self._packed().select(self._rows(archs))

    def costs(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns the given costs, float64 ``[B]`` each; none where none are given."""
        return self._rows_of(self._columns, archs)

    def scores(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns the given scores, float64 ``[B]`` each; none where none are given."""
        return self._rows_of(self._scores, archs)

    def _rows_of(self, columns: Mapping[str, Tensor], archs: Archs) -> dict[str, Tensor]:
        rows = slice(None) if archs is None else self._rows(archs)
        return {name: column[rows] for name, column in columns.items()}

    def neighbors(self, arch: OperationGraph) -> list[OperationGraph]:
        r"""Returns the nearest candidates, at most :data:`NUM_NEIGHBORS`, nearest first."""
        sizes, rows_of = self.keep(_inverted_index)
        own = _tokens(arch)
        common = torch.zeros(len(self._graphs), dtype=torch.long, device="cpu")
        for token, count in own.items():
            rows, counts = rows_of[token]
            common[rows] += counts.clamp_max(count)
        distance = sizes + own.total() - 2 * common
        found: dict[OperationGraph, None] = {}
        self.index(arch)
        for i in distance.argsort(stable=True).tolist():
            if self._graphs[i] != arch:
                found[self._graphs[i]] = None
            if len(found) == NUM_NEIGHBORS:
                break
        return list(found)

    def _packed(self) -> OperationGraphs:
        return self.keep(_pack_pool)

    def _rows(self, archs: Sequence[OperationGraph] | Tensor) -> Tensor:
        if isinstance(archs, Tensor):
            return self.check_indices(archs)
        return torch.tensor([self.index(arch) for arch in archs], dtype=torch.long, device="cpu")


def _read(
    graph: GraphLike, position: int, operations: Sequence[Operation], attributes: Sequence[str] | None
) -> OperationGraph:
    try:
        return operation_graph(graph, operations, attributes)
    except InvalidArchitectureError as error:
        raise InvalidArchitectureError(f"graph {position}: {error}") from error


def _pack_pool(space: GraphSpace) -> OperationGraphs:
    return pack(space._graphs, space.operations, space.attribute_names)


def _tokens(graph: OperationGraph) -> Counter[tuple[Any, ...]]:
    """What graphs are compared by: operations, attributes, and operations along edges, and how often each occurs."""
    names = [node.op for node in graph.nodes]
    tokens: Iterator[tuple[Any, ...]] = itertools.chain(
        ((name,) for name in names),
        ((node.op, *item) for node in graph.nodes for item in node.attributes),
        ((names[u], names[v]) for u, v in graph.edges),
    )
    return Counter(tokens)


def _inverted_index(space: GraphSpace) -> tuple[Tensor, dict[tuple[Any, ...], tuple[Tensor, Tensor]]]:
    """Number of tokens of each candidate, and the candidates that have a token, with how often."""
    counts = [_tokens(graph) for graph in space._graphs]
    rows: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
    for i, found in enumerate(counts):
        for token, count in found.items():
            rows[token].append((i, count))
    sizes = torch.tensor([found.total() for found in counts], dtype=torch.long, device="cpu")
    columns = {token: torch.tensor(pairs, dtype=torch.long, device="cpu").t() for token, pairs in rows.items()}
    return sizes, {token: (pair[0], pair[1]) for token, pair in columns.items()}
