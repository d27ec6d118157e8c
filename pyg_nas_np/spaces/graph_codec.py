r"""The graphs of generative models: a fixed number of ordered, typed vertices with fixed edges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic

import torch
from torch import Tensor

from pyg_nas_np.spaces.base import Archs, ArchT, CellSpace
from pyg_nas_np.spaces.dense import DenseGraphs
from pyg_nas_np.spaces.mobilenetv3 import (
    DEPTHS,
    LAYERS,
    MAX_DEPTH,
    NUM_STAGES,
    MobileNetV3Arch,
    MobileNetV3Space,
)
from pyg_nas_np.spaces.nasbench201 import OPS, NASBench201Arch, NASBench201Space
from pyg_nas_np.utils.errors import InvalidArchitectureError

START, END = 0, 1
"""Types of the first and of the last vertex in every codec."""


class GraphCodec(ABC, Generic[ArchT]):
    r"""The encoding of `MetaD2A <https://arxiv.org/abs/2107.00860>`_ for one space: an architecture as a list of types.

    All graphs of a codec have the same ``V`` vertices in topological order and the same edges. The types of its
    vertices determine an architecture. A constraint defines which types may follow those chosen so far: the lists that
    satisfy it correspond one-to-one to architectures of the space.

    Subclasses define :attr:`num_types`, :attr:`adjacency` and the three abstract methods.
    """

    space: CellSpace[ArchT]

    num_types: int
    """Number of types ``T``; type 0 starts a graph, type 1 ends it."""

    adjacency: Tensor
    """The edges of every graph, ``[V, V]`` bool; entry ``[i, j]`` is the edge i → j and ``i < j``."""

    @property
    def num_vertices(self) -> int:
        r"""Number of vertices ``V``, including the first and the last one."""
        return self.adjacency.size(0)

    @abstractmethod
    def types(self, archs: Archs = None) -> Tensor:
        r"""Returns the types of the vertices of architectures, int64 ``[B, V]``."""

    @abstractmethod
    def archs(self, types: Tensor) -> list[ArchT]:
        r"""Reads architectures back from :obj:`types` ``[B, V]``.

        Raises:
            InvalidArchitectureError: If a row violates the constraint.
        """

    @abstractmethod
    def _allowed_inside(self, types: Tensor) -> Tensor:
        """:meth:`allowed` for the vertices between the first and the last one."""

    def extremes(self) -> Archs:
        r"""Returns architectures that include the cheapest and the most expensive ones. (default: the whole space)"""
        return None

    def allowed(self, types: Tensor) -> Tensor:
        r"""Returns which types the next vertex may have, bool ``[B, T]``, after :obj:`types` ``[B, v]`` so far.

        After any allowed types at least one is allowed.
        """
        position = types.size(1)
        if 0 < position < self.num_vertices - 1:
            return self._allowed_inside(types)
        mask = torch.zeros(types.size(0), self.num_types, dtype=torch.bool, device=types.device)
        mask[:, START if position == 0 else END] = True
        return mask

    def obeys(self, types: Tensor) -> Tensor:
        r"""Returns which rows of :obj:`types` ``[B, V]`` satisfy the constraint, bool ``[B]``.

        Raises:
            InvalidArchitectureError: If the rows do not have ``V`` integers.
        """
        if types.dim() != 2 or types.size(1) != self.num_vertices or types.is_floating_point():
            raise InvalidArchitectureError(
                f"types must be integers [num_graphs, {self.num_vertices}], got {types.dtype} {list(types.shape)}"
            )
        known = ((types >= 0) & (types < self.num_types)).all(dim=1)
        safe = types.clamp(0, self.num_types - 1)
        for v in range(self.num_vertices):
            known &= self.allowed(safe[:, :v]).gather(1, safe[:, v : v + 1]).squeeze(1)
        return known

    def graphs(self, archs: Archs = None) -> DenseGraphs:
        r"""Returns architectures as graphs of this codec."""
        return self.graphs_of(self.types(archs))

    def graphs_of(self, types: Tensor) -> DenseGraphs:
        r"""Returns the graphs whose vertices have :obj:`types` ``[B, V]``."""
        count, size = types.size(0), self.num_vertices
        adjacency = self.adjacency.to(types.device).expand(count, size, size)
        return DenseGraphs(adjacency, types, torch.full((count,), size, device=types.device))

    def contains(self, graphs: DenseGraphs) -> Tensor:
        r"""Returns which graphs have the edges of this codec and types that satisfy the constraint, bool ``[B]``."""
        same = (graphs.adjacency == self.adjacency.to(graphs.ops.device)).flatten(1).all(dim=1)
        return same & self.obeys(graphs.ops)

    def _check(self, types: Tensor) -> Tensor:
        obeys = self.obeys(types)
        if not bool(obeys.all()):
            row = int((~obeys).nonzero()[0])
            raise InvalidArchitectureError(f"types {types[row].tolist()} are no {self.space.name} architecture")
        return types

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space}, vertices={self.num_vertices}, types={self.num_types})"


class NASBench201GraphCodec(GraphCodec[NASBench201Arch]):
    r"""Cells of NAS-Bench-201 in the encoding of `MetaD2A <https://arxiv.org/abs/2107.00860>`_.

    Eight vertices: start (type 0), the six operations in string order (type = official operation id + 2) and end (type
    1), on a chain with four shortcuts. This is the encoding of D-VAE, in which each vertex follows the previous one; it
    is not the line graph of the cell from :meth:`~pyg_nas_np.spaces.NASBench201Space.dense`.

    Args:
        space: The space. (default: the one of CIFAR-10)

    Example:
        >>> codec = NASBench201GraphCodec()
        >>> types = codec.types(torch.tensor([6111]))
        >>> types.tolist(), int(codec.adjacency.sum())
        ([[0, 5, 5, 5, 3, 5, 4, 1]], 11)
        >>> str(codec.archs(types)[0]) == str(codec.space[6111])
        True
    """

    num_types = 2 + len(OPS)

    def __init__(self, space: NASBench201Space | None = None) -> None:
        self.space: NASBench201Space = space or NASBench201Space()
        self.adjacency = torch.zeros(8, 8, dtype=torch.bool)
        self.adjacency[range(7), range(1, 8)] = True
        self.adjacency[[1, 1, 2, 3], [3, 5, 6, 6]] = True

    def types(self, archs: Archs = None) -> Tensor:
        r"""Returns the types of the vertices of cells, int64 ``[B, 8]``."""
        return self.space.dense(archs).ops

    def archs(self, types: Tensor) -> list[NASBench201Arch]:
        r"""Reads cells back from their types ``[B, 8]``."""
        inner = self._check(types)[:, 1:7] - 2
        return [NASBench201Arch(tuple(OPS[i] for i in row)) for row in inner.tolist()]  # type: ignore[arg-type]

    def _allowed_inside(self, types: Tensor) -> Tensor:
        mask = torch.ones(types.size(0), self.num_types, dtype=torch.bool, device=types.device)
        mask[:, [START, END]] = False
        return mask


class MobileNetV3GraphCodec(GraphCodec[MobileNetV3Arch]):
    r"""Sub-networks of Once-for-All in the encoding of `MetaD2A <https://arxiv.org/abs/2107.00860>`_.

    A chain of 22 vertices: start, four for each of the five stages, end. The 27 inner types are depth × kernel ×
    expansion. The four vertices of a stage share its depth. Those beyond the depth have no layer; their kernel and
    expansion are the smallest ones, so that the encoding is unique. The resolution is not encoded.

    Args:
        space: The space. (default: all resolutions)
        resolution: Resolution of all decoded architectures. (default: the largest of the space)

    Raises:
        ValueError: If the space does not have the resolution.

    Example:
        >>> codec = MobileNetV3GraphCodec()
        >>> text = "r224|k3e4-k5e3|k3e3-k3e3-k7e6|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3-k5e3-k3e4"
        >>> types = codec.types([codec.space.from_str(text)])
        >>> types[0, :9].tolist()
        [0, 3, 5, 2, 2, 11, 11, 19, 11]
        >>> codec.space.to_str(codec.archs(types)[0]) == text
        True
    """

    num_types = 2 + len(DEPTHS) * len(LAYERS)

    def __init__(self, space: MobileNetV3Space | None = None, resolution: int | None = None) -> None:
        self.space: MobileNetV3Space = space or MobileNetV3Space()
        self.resolution = self.space.resolutions[-1] if resolution is None else resolution
        if self.resolution not in self.space.resolutions:
            raise ValueError(f"resolution {resolution} is not one of {self.space.resolutions}")
        self.adjacency = torch.diag_embed(torch.ones(NUM_STAGES * MAX_DEPTH + 1, dtype=torch.bool), 1)

    def extremes(self) -> list[MobileNetV3Arch]:
        r"""Returns the smallest and the largest sub-network at the codec's resolution."""
        ends = ((DEPTHS[0], LAYERS[0]), (DEPTHS[-1], LAYERS[-1]))
        return [MobileNetV3Arch(((layer,) * depth,) * NUM_STAGES, self.resolution) for depth, layer in ends]

    def types(self, archs: Archs = None) -> Tensor:
        r"""Returns the types of the vertices of sub-networks, int64 ``[B, 22]``."""
        rows = []
        for arch in self.space.resolve(archs):
            row = [START]
            for stage in self.space.check(arch).stages:
                first = 2 + len(LAYERS) * DEPTHS.index(len(stage))
                layers = [LAYERS.index(layer) for layer in stage]
                row += [first + layer for layer in layers + [0] * (MAX_DEPTH - len(layers))]
            rows.append([*row, END])
        return torch.tensor(rows, dtype=torch.long).reshape(-1, self.num_vertices)

    def archs(self, types: Tensor) -> list[MobileNetV3Arch]:
        r"""Reads sub-networks back from their types ``[B, 22]``."""
        inner = (self._check(types)[:, 1:-1] - 2).reshape(-1, NUM_STAGES, MAX_DEPTH)
        depths, layers = (inner[:, :, 0] // len(LAYERS)).tolist(), (inner % len(LAYERS)).tolist()
        return [
            MobileNetV3Arch(
                tuple(tuple(LAYERS[i] for i in stage[: DEPTHS[d]]) for d, stage in zip(depth, stages, strict=True)),
                self.resolution,
            )
            for depth, stages in zip(depths, layers, strict=True)
        ]

    def _allowed_inside(self, types: Tensor) -> Tensor:
        mask = torch.zeros(types.size(0), self.num_types, dtype=torch.bool, device=types.device)
        place = (types.size(1) - 1) % MAX_DEPTH
        if place == 0:
            mask[:, 2:] = True
            return mask
        number = torch.arange(self.num_types - 2, device=types.device)
        depth = (types[:, -place] - 2).clamp_min(0) // len(LAYERS)
        shared = number // len(LAYERS) == depth.unsqueeze(1)
        active = (depth + DEPTHS[0] > place).unsqueeze(1)
        mask[:, 2:] = shared & (active | (number % len(LAYERS) == 0))
        return mask


def is_flow_graph(graphs: DenseGraphs) -> Tensor:
    r"""Returns which graphs are valid in the sense of MetaD2A, bool ``[B]``; weaker than :meth:`GraphCodec.contains`.

    A valid graph has edges from earlier to later vertices only, one start and one end, at its first and last vertex,
    and every other vertex has at least one edge in and one out. The edges are not compared with those of the codec.

    Example:
        >>> codec = NASBench201GraphCodec()
        >>> graphs = codec.graphs(torch.arange(3))
        >>> cut = graphs._replace(adjacency=graphs.adjacency & (torch.arange(8) != 4))
        >>> is_flow_graph(graphs).tolist(), is_flow_graph(cut).tolist()
        ([True, True, True], [False, False, False])
    """
    adjacency, ops, num_nodes = graphs
    last = (num_nodes - 1).clamp_min(0).unsqueeze(1)
    forward = ~adjacency.tril().flatten(1).any(dim=1)
    one_start = ((ops == START).sum(dim=1) == 1) & (ops[:, 0] == START)
    one_end = ((ops == END).sum(dim=1) == 1) & (ops.gather(1, last).squeeze(1) == END)
    fed = adjacency.any(dim=1) | (ops == START) | ~graphs.node_mask
    feeds = adjacency.any(dim=2) | (ops == END) | ~graphs.node_mask
    return forward & one_start & one_end & fed.all(dim=1) & feeds.all(dim=1)


GRAPH_CODECS: dict[str, type[GraphCodec[Any]]] = {
    NASBench201Space.name: NASBench201GraphCodec,
    MobileNetV3Space.name: MobileNetV3GraphCodec,
}
"""Codecs by the name of their space."""


def graph_codec(space: CellSpace[ArchT]) -> GraphCodec[ArchT]:
    r"""Returns the codec of a space.

    Raises:
        ValueError: If the space has none.

    Example:
        >>> graph_codec(NASBench201Space())
        NASBench201GraphCodec(NASBench201Space(15625, dataset='cifar10'), vertices=8, types=7)
    """
    codec: Any = GRAPH_CODECS.get(space.name)
    if codec is None:
        raise ValueError(
            f"there is no graph form of the space '{space.name}'; there are {', '.join(GRAPH_CODECS)}. Subclass "
            f"GraphCodec and add it to GRAPH_CODECS"
        )
    return codec(space)  # type: ignore[no-any-return]
