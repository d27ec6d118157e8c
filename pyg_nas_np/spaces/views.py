r"""Conversion to networkx and drawing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import networkx as nx
from torch_geometric.data import Data

from pyg_nas_np.spaces.base import ArchT, CellSpace
from pyg_nas_np.utils.errors import InvalidArchitectureError
from pyg_nas_np.utils.imports import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def to_networkx(space: CellSpace[ArchT], arch: ArchT) -> nx.DiGraph:
    r"""Converts an architecture to a directed graph whose nodes carry their operation as ``op``.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> to_networkx(space, space[0]).number_of_nodes()
        8
    """
    data = space.encode(arch)
    graph = nx.DiGraph()
    for node, op in enumerate(data.x.argmax(dim=1).tolist()):
        graph.add_node(node, op=space.op_names[op])
    graph.add_edges_from(data.edge_index.t().tolist())
    return graph


def from_networkx(space: CellSpace[ArchT], graph: nx.DiGraph) -> ArchT:
    r"""Reads an architecture from a graph whose nodes carry ``op``; node names and order are ignored.

    Raises:
        InvalidArchitectureError: If an operation is unknown or the graph is not one of the space.
    """
    import torch

    position = {node: i for i, node in enumerate(graph.nodes)}
    x = torch.zeros(len(position), len(space.op_names))
    for node, attributes in graph.nodes(data=True):
        op = attributes.get("op")
        if op not in space.op_names:
            raise InvalidArchitectureError(
                f"node {node!r} has op {op!r}; operations of {space.name}: {', '.join(space.op_names)}"
            )
        x[position[node], space.op_names.index(op)] = 1.0
    edges = [(position[u], position[v]) for u, v in graph.edges]
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    return space.decode(Data(x=x, edge_index=edge_index))


def draw(space: CellSpace[ArchT], arch: ArchT, ax: Axes | None = None, title: str | None = None) -> Axes:
    r"""Draws an architecture as a layered DAG, input on the left, one colour per operation (extra ``viz``).

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    plt, patches, paths = (require(f"matplotlib.{name}", "viz") for name in ("pyplot", "patches", "path"))
    graph = to_networkx(space, arch)
    if ax is None:
        ax = plt.subplots(figsize=(7, 2.8), layout="constrained")[1]
    position, routes = layered_layout(graph)
    palette = plt.get_cmap("tab10")
    for source, target in graph.edges:
        points = [position[source], *(position[p] for p in routes[source, target]), position[target]]
        curve = paths.Path(*_smooth(points, paths.Path))
        arrow = patches.FancyArrowPatch(
            path=curve, arrowstyle="-|>", mutation_scale=11, color="#666666", zorder=1, shrinkA=0, shrinkB=0
        )
        ax.add_patch(arrow)
    for node, op in graph.nodes(data="op"):
        kind = space.op_names.index(op)
        ax.text(
            *position[node],
            "\n".join(op.rsplit("_", 1)),
            ha="center",
            va="center",
            fontsize=8,
            zorder=2,
            bbox={
                "boxstyle": "round,pad=0.4",
                "facecolor": "#e6e6e6" if kind < 2 else _pale(palette(kind - 2)),
                "edgecolor": "#444444",
            },
        )
    xs, ys = zip(*position.values(), strict=True)
    ax.set_xlim(min(xs) - 0.5, max(xs) + 0.5)
    ax.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title, fontsize=9)
    return ax


def _pale(color: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(0.45 * c + 0.55 for c in color[:3])


def _smooth(points: list[tuple[float, float]], path: Any) -> tuple[list[tuple[float, float]], list[int]]:
    """Joins points by cubic curves with horizontal tangents; the last one stops short of the target's box."""
    *inner, (x, y) = points
    points = [*inner, (x - 0.27, y)]
    vertices, codes = [points[0]], [path.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (x0 + x1) / 2
        vertices += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [path.CURVE4] * 3
    return vertices, codes


def layered_layout(graph: nx.DiGraph) -> tuple[dict[Any, tuple[float, float]], dict[Any, list[Any]]]:
    r"""Places nodes by depth and routes edges that skip layers through dummy nodes (Sugiyama's method).

    Args:
        graph: A directed acyclic graph.

    Returns:
        Position ``(x, y)`` of every node and dummy node, one unit apart, with ``x`` along the edges and ``y`` upwards;
        and the dummy nodes of every edge, in order.

    Example:
        >>> position, routes = layered_layout(nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c")]))
        >>> [position[node][0] for node in "abc"], len(routes["a", "c"])
        ([0.0, 1.0, 2.0], 1)
    """
    depth: dict[Any, int] = {}
    for node in nx.topological_sort(graph):
        depth[node] = max((depth[p] + 1 for p in graph.predecessors(node)), default=0)
    layers: list[list[Any]] = [[] for _ in range(max(depth.values()) + 1)]
    for node, level in depth.items():
        layers[level].append(node)
    linked = nx.Graph()
    routes: dict[Any, list[Any]] = {}
    for source, target in graph.edges:
        route = [(source, target, level) for level in range(depth[source] + 1, depth[target])]
        routes[source, target] = route
        for holder in route:
            layers[holder[2]].append(holder)
        nx.add_path(linked, [source, *route, target])
    level_of = {node: level for level, nodes in enumerate(layers) for node in nodes}
    y = {node: (len(nodes) - 1) / 2 - i for nodes in layers for i, node in enumerate(nodes)}
    for sweep in range(8):
        step = 1 if sweep % 2 == 0 else -1
        for level in range(len(layers))[::step]:

            def barycenter(node: Any, reference: int = level - step) -> float:
                around = [y[other] for other in linked[node] if level_of[other] == reference]
                return sum(around) / len(around) if around else y[node]

            nodes = sorted(layers[level], key=barycenter, reverse=True)
            y.update({node: (len(nodes) - 1) / 2 - i for i, node in enumerate(nodes)})
    return {node: (float(level_of[node]), y[node]) for node in y}, routes
