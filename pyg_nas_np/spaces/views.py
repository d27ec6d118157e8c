r"""Graph views for people: networkx conversion and drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
from torch_geometric.data import Data

from pyg_nas_np.spaces.base import ArchT, SearchSpace
from pyg_nas_np.utils.errors import InvalidArchitectureError
from pyg_nas_np.utils.imports import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def to_networkx(space: SearchSpace[ArchT], arch: ArchT) -> nx.DiGraph:
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


def from_networkx(space: SearchSpace[ArchT], graph: nx.DiGraph) -> ArchT:
    r"""Reads an architecture from a graph whose nodes carry ``op``; node names and order do not matter.

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


def draw(space: SearchSpace[ArchT], arch: ArchT, ax: Axes | None = None, title: str | None = None) -> Axes:
    r"""Draws an architecture as a layered DAG, input on the left, one colour an operation (extra ``viz``).

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    plt = require("matplotlib.pyplot", "viz")
    graph = to_networkx(space, arch)
    if ax is None:
        ax = plt.subplots(figsize=(7, 2.8), layout="constrained")[1]
    pos = _layered_layout(graph)
    palette = plt.get_cmap("tab10")
    colors = {op: ("#dddddd" if i < 2 else palette(i - 2)) for i, op in enumerate(space.op_names)}
    for source, target in graph.edges:
        # Edges that skip layers bend, so that they do not hide behind the nodes between.
        span = pos[target][0] - pos[source][0]
        bend = 0.0 if span <= 1 else -0.18 - 0.04 * span
        ax.annotate(
            "",
            xy=pos[target],
            xytext=pos[source],
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#555555",
                "shrinkA": 20,
                "shrinkB": 22,
                "connectionstyle": f"arc3,rad={bend}",
            },
        )
    for node, op in graph.nodes(data="op"):
        ax.text(
            *pos[node],
            op.replace("_", "\n", 1),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": colors[op], "edgecolor": "#555555", "alpha": 0.85},
        )
    xs, ys = zip(*pos.values(), strict=True)
    ax.set_xlim(min(xs) - 0.6, max(xs) + 0.6)
    ax.set_ylim(min(ys) - 0.8, max(ys) + 0.8)
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title, fontsize=9)
    return ax


def _layered_layout(graph: nx.DiGraph) -> dict[Any, tuple[float, float]]:
    depth: dict[Any, int] = {}
    for node in nx.topological_sort(graph):
        depth[node] = max((depth[p] + 1 for p in graph.predecessors(node)), default=0)
    layers: dict[int, list[Any]] = {}
    for node, level in depth.items():
        layers.setdefault(level, []).append(node)
    return {
        node: (float(level), (len(nodes) - 1) / 2 - i)
        for level, nodes in layers.items()
        for i, node in enumerate(nodes)
    }
