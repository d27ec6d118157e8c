r"""NAS-Bench-101: 423,624 cells with operations on the vertices, enumerated offline in the order of their hashes."""

from __future__ import annotations

import hashlib
import heapq
import logging
import operator
import re
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.spaces._nasbench101_enumeration import (
    MAX_EDGES,
    MAX_VERTICES,
    Digests,
    batch_hash,
    cell_hash,
    enumerate_cells,
    signatures,
)
from pyg_nas_np.spaces.base import Archs, CellSpace, Validity
from pyg_nas_np.spaces.dense import DenseGraphs, from_batch
from pyg_nas_np.utils import InvalidArchitectureError, VerificationError, atomic_path, cache_dir
from pyg_nas_np.utils.defaults import fixed_defaults

logger = logging.getLogger(__name__)

OP_NAMES = ("input", "output", "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
LETTERS = "31p"
"""Letters of the interior operations in compact codes, in the order of their ids."""

NUM_CELLS = 423_624

_COST_ROWS = 16_384
_SIGNATURE_ROWS = 16_384

# SHA-256 of the enumerated space (hashes, packed adjacency, operation ids). The space is a mathematical constant, so
# this digest detects a damaged cache as well as a wrong enumeration.
_SPACE_SHA256 = "779fa00a0dc2b5ff95fd9aeb5297e4e0b46d104270dfc6a41a5d99b4d1d4583c"


@dataclass(frozen=True, slots=True)
class NASBench101Arch:
    r"""One cell, as an immutable value.

    Args:
        edges: The strict upper triangle of the adjacency matrix, row by row, as ``V (V - 1) / 2`` characters 0 and 1.
        labels: The operations of the ``V - 2`` interior vertices: ``3`` conv3x3, ``1`` conv1x1, ``p`` maxpool3x3.

    Values are compared by edges and labels; isomorphic cells have equal :meth:`NASBench101Space.canonical`. Use
    :meth:`from_matrix` for cells from other sources.

    Example:
        >>> arch = NASBench101Arch.from_matrix([[0, 1, 1], [0, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"])
        >>> str(arch)
        '3:111:p'
    """

    edges: str
    labels: str

    @classmethod
    def from_matrix(cls, matrix: Any, ops: Sequence[str], *, prune: bool = True) -> NASBench101Arch:
        r"""Builds a cell from an adjacency matrix and vertex labels, as in the original API.

        Args:
            matrix: ``[V, V]`` zeros and ones, strictly upper triangular: a nested list, array or tensor.
            ops: ``V`` labels, ``input`` first and ``output`` last.
            prune: Whether to delete, as in the original API, the vertices that are not on a path from input to output.
                Otherwise such vertices raise an error. The limits of 7 vertices and 9 edges apply afterwards.

        Raises:
            InvalidArchitectureError: If the cell is outside the space; the message gives the reason.
        """
        array = _check_matrix(matrix, ops)
        reached = _closure(array, 0) & _closure(array.T, len(array) - 1)
        if not reached[0]:
            raise InvalidArchitectureError("the cell has no path from input to output")
        if prune:
            array = array[np.ix_(reached, reached)]
            ops = [op for op, keep in zip(ops, reached, strict=True) if keep]
        elif not reached.all():
            raise InvalidArchitectureError(
                f"vertex {int(np.flatnonzero(~reached)[0])} is not on a path from input to output; pass prune=True"
            )
        size = len(array)
        edges = "".join("1" if array[i, j] else "0" for i in range(size) for j in range(i + 1, size))
        arch = cls(edges, "".join(LETTERS[OP_NAMES.index(op) - 2] for op in ops[1:-1]))
        if reason := _reason(arch):
            raise InvalidArchitectureError(f"{arch} is not a valid nasbench101 cell: {reason}")
        return arch

    @property
    def num_vertices(self) -> int:
        r"""Number of vertices, with input and output."""
        return len(self.labels) + 2

    @property
    def matrix(self) -> npt.NDArray[np.int8]:
        r"""Adjacency matrix ``[V, V]``."""
        matrix = np.zeros((self.num_vertices, self.num_vertices), dtype=np.int8)
        matrix[np.triu_indices(self.num_vertices, 1)] = [int(bit) for bit in self.edges]
        return matrix

    @property
    def ops(self) -> tuple[str, ...]:
        r"""Labels of all vertices."""
        return ("input", *(OP_NAMES[2 + LETTERS.index(letter)] for letter in self.labels), "output")

    @property
    def compact(self) -> tuple[int, str, str]:
        r"""The compact code of the published tables: ``(V, edges, labels)``."""
        return self.num_vertices, self.edges, self.labels

    def __str__(self) -> str:
        return f"{self.num_vertices}:{self.edges}:{self.labels}"


class _Table(NamedTuple):
    r"""The whole space: hashes ``[N]``, adjacency ``[N, 7, 7]`` bool and operation ids ``[N, 7]`` int8."""

    digests: Digests
    adjacency: npt.NDArray[np.bool_]
    ops: npt.NDArray[np.int8]


class NASBench101Space(CellSpace[NASBench101Arch]):
    r"""The cells of `"NAS-Bench-101: Towards Reproducible Neural Architecture Search"
    <https://arxiv.org/abs/1902.09635>`_ in the order of their official hashes.

    The first use enumerates the space (less than two minutes) and caches it in :func:`~pyg_nas_np.utils.cache_dir`,
    from where it is later loaded in a fraction of a second.

    * **Index**: the position of the official hash in the sorted list of all 423,624. :meth:`index` finds it for any
      isomorphic form of a cell.
    * **String**: ``V:edges:labels``, for example ``7:100110100001001010101:3p331``: the number of vertices, the strict
      upper triangle row by row, one letter per interior vertex (see :class:`NASBench101Arch`).
    * **Graph**: one node per vertex, in the order of the cell; arrays of :meth:`dense` are always padded to 7.
    * **Parameters and FLOPs** are those of the benchmark's network on CIFAR-10: stem, three stacks of three modules at
      128, 256 and 512 channels and 32, 16 and 8 pixels, linear classifier. FLOPs are the multiply-accumulates of
      convolutions and of the classifier, without batch norm, pooling, additions and biases.

    Example:
        >>> space = NASBench101Space()
        >>> arch = space.from_str("3:111:1")
        >>> space.canonical(arch), space.num_parameters(arch)
        ('09fc2d10bdd6225e167a6f81a22a3f06', 2793866)
    """

    name = "nasbench101"
    op_names: ClassVar[tuple[str, ...]] = OP_NAMES
    averaging_ops: ClassVar[tuple[str, ...]] = ("maxpool3x3",)
    described_ops: ClassVar[Mapping[str, tuple[str, Mapping[str, float]]]] = MappingProxyType(
        {
            "conv1x1-bn-relu": ("conv", {"kernel": 1.0}),
            "conv3x3-bn-relu": ("conv", {"kernel": 3.0}),
            "maxpool3x3": ("pool", {"kernel": 3.0}),
        }
    )

    def __len__(self) -> int:
        return NUM_CELLS

    def __getitem__(self, index: int) -> NASBench101Arch:
        position = operator.index(index)
        if not 0 <= position < NUM_CELLS:
            raise IndexError(f"index {position} is outside the {NUM_CELLS} architectures of {self.name}")
        table = _load_table()
        return _to_arch(table.adjacency[position], table.ops[position])

    def index(self, arch: NASBench101Arch) -> int:
        r"""Returns the position of the cell's hash, the same for all isomorphic cells."""
        return int(self.index_hashes([self.canonical(arch)])[0])

    def indices(self, archs: Sequence[NASBench101Arch]) -> list[int]:
        r"""Returns the positions of the hashes of many cells; finds them without the hashes, which are slow."""
        return [*_positions(*self._parse(archs)).tolist()]

    def index_hashes(self, hashes: Sequence[str]) -> Tensor:
        r"""Returns the indices of many official hashes, int64 ``[len(hashes)]``.

        Raises:
            InvalidArchitectureError: If one is not the hash of a cell of this space; the message names it.
        """
        try:
            wanted = Digests.from_hex(hashes)
        except ValueError:
            wrong = next(text for text in hashes if not re.fullmatch("[0-9a-f]{32}", str(text)))
            raise InvalidArchitectureError(
                f"{wrong!r} is not an MD5 hash of 32 lower-case hexadecimal digits"
            ) from None
        index = self.index_digests(wanted)
        if (index < 0).any():
            raise InvalidArchitectureError(f"{hashes[int(np.argmax(index < 0))]} is not the hash of a nasbench101 cell")
        return torch.from_numpy(index)

    def index_digests(self, digests: Digests) -> npt.NDArray[np.int64]:
        r"""Returns the indices of many binary hashes, -1 for those that belong to no cell."""
        table = _load_table()
        index = np.searchsorted(table.digests.high, digests.high).clip(max=NUM_CELLS - 1)
        found = (table.digests.high[index] == digests.high) & (table.digests.low[index] == digests.low)
        return np.where(found, index, -1).astype(np.int64)

    def index_bytes(self, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        r"""Returns the indices of hashes given as ``[n, 16]`` bytes, -1 for those that belong to no cell."""
        return self.index_digests(Digests.from_bytes(digests))

    # -- editing ----------------------------------------------------------------------------------------------------

    def neighbors(self, arch: NASBench101Arch) -> list[NASBench101Arch]:
        r"""Returns the cells one edit away, as canonical representatives, in the order of the edits.

        An edit changes one operation, adds or removes one edge, or adds one vertex with one edge in and one out.
        Removing an edge also removes vertices that are then on no path from input to output.
        """
        return [self[i] for i in _around(self.check(arch))]

    def mutate(self, arch: NASBench101Arch, generator: torch.Generator | None = None) -> NASBench101Arch:
        r"""Returns a uniformly drawn neighbor, the one that the default would draw; only that one is built."""
        options = _around(self.check(arch))
        return self[options[int(torch.randint(len(options), (1,), generator=generator, device="cpu"))]]

    # -- representations --------------------------------------------------------------------------------------------

    def to_str(self, arch: NASBench101Arch) -> str:
        r"""Returns ``V:edges:labels``."""
        return str(self.check(arch))

    def from_str(self, text: str) -> NASBench101Arch:
        r"""Parses ``V:edges:labels``.

        Raises:
            InvalidArchitectureError: If the text is malformed or its cell outside the space.
        """
        match = re.fullmatch(r"(\d):([01]+):([31p]*)", text)
        if match is None:
            raise InvalidArchitectureError(
                f"{text!r} is not of the form 'V:edges:labels', for example '7:100110100001001010101:3p331'"
            )
        arch = NASBench101Arch(match[2], match[3])
        if arch.num_vertices != int(match[1]):
            raise InvalidArchitectureError(f"{text!r} names {match[1]} vertices and labels {arch.num_vertices}")
        return self.check(arch)

    def is_valid(self, arch: Any) -> Validity:
        r"""Returns whether :obj:`arch` is a cell of the space and, if not, why.

        It may be a :class:`NASBench101Arch` or a pair ``(matrix, ops)``, which is pruned as in the original API.
        """
        if isinstance(arch, NASBench101Arch):
            reason = _reason(arch)
            return Validity(not reason, reason)
        if isinstance(arch, tuple | list) and len(arch) == 2:
            try:
                NASBench101Arch.from_matrix(*arch)
            except InvalidArchitectureError as error:
                return Validity(False, str(error))
            return Validity(True)
        return Validity(False, f"expected a NASBench101Arch or a pair (matrix, ops), got {type(arch).__name__}")

    def canonical(self, arch: NASBench101Arch) -> str:
        r"""Returns the official hash, the same for isomorphic cells."""
        self.check(arch)
        return cell_hash(arch.matrix, [OP_NAMES.index(op) for op in arch.ops])

    def batch_canonical(self, archs: Archs = None) -> list[str]:
        r"""Returns the official hashes of many cells."""
        if archs is None:
            return _load_table().digests.to_hex()
        if isinstance(archs, Tensor):
            return _load_table().digests.take(self.check_indices(archs).numpy()).to_hex()
        return self.hash_dense(self.dense(archs)).to_hex()

    def hash_dense(self, graphs: DenseGraphs) -> Digests:
        r"""Returns the official hashes of padded arrays (see :meth:`dense`), in binary form."""
        adjacency, ops = graphs.adjacency.numpy(), graphs.ops.numpy().astype(np.int8)
        high, low = np.empty((2, len(ops)), dtype=np.uint64)
        for size in np.unique(graphs.num_nodes.numpy()).tolist():
            rows = np.flatnonzero(graphs.num_nodes.numpy() == size)
            high[rows], low[rows] = batch_hash(adjacency[rows, :size, :size], ops[rows, :size])
        return Digests(high, low)

    def decode(self, data: Data) -> NASBench101Arch:
        r"""Reads a cell from a graph.

        Nodes in topological order, input first and output last, keep their order; any other order gives the canonical
        representative of the cell.
        """
        graph = from_batch(data.x, data.edge_index)
        if data.x.size(1) != len(OP_NAMES):
            raise InvalidArchitectureError(
                f"x has {data.x.size(1)} columns, {self.name} has {len(OP_NAMES)} operations"
            )
        matrix, ids = graph.adjacency[0].numpy(), graph.ops[0]
        names = [OP_NAMES[op] for op in ids.tolist()]
        ends = [i for name in OP_NAMES[:2] for i, op in enumerate(names) if op == name]
        if len(ends) != 2:
            raise InvalidArchitectureError(f"a cell has one input and one output, the graph has {names}")
        order = _topological_order(matrix, first=ends[0], last=ends[1])
        arch = NASBench101Arch.from_matrix(matrix[np.ix_(order, order)], [names[i] for i in order], prune=False)
        return arch if order == sorted(order) else self[self.index(arch)]

    def dense(self, archs: Archs = None) -> DenseGraphs:
        r"""Returns padded arrays with ``V = 7``; operation ids index :attr:`op_names`."""
        if archs is None or isinstance(archs, Tensor):
            table = _load_table()
            select = slice(None) if archs is None else self.check_indices(archs).numpy()
            adjacency, ops = table.adjacency[select], table.ops[select]
        else:
            adjacency, ops = self._parse(archs)
        ids = torch.from_numpy(ops.astype(np.int64))
        # A copy, because the caller may write to the result.
        return DenseGraphs(torch.from_numpy(adjacency.copy()), ids, (ids >= 0).sum(1))

    def _parse(self, archs: Sequence[NASBench101Arch]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
        return _parse([self.check(arch) for arch in archs])

    # -- exact costs ------------------------------------------------------------------------------------------------

    @fixed_defaults
    def batch_num_parameters(self, archs: Archs = None) -> Tensor:
        r"""Returns the exact numbers of trainable parameters, int64 ``[B]``."""
        return torch.from_numpy(self._costs(archs)[0])

    @fixed_defaults
    def batch_flops(self, archs: Archs = None) -> Tensor:
        r"""Returns the multiply-accumulates of a forward pass, int64 ``[B]``."""
        return torch.from_numpy(self._costs(archs)[1])

    def _costs(self, archs: Archs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if archs is None or isinstance(archs, Tensor):
            select = slice(None) if archs is None else self.check_indices(archs).numpy()
            params, macs = _space_costs()
            return params[select].copy(), macs[select].copy()
        return network_costs(*self._parse(archs))


def network_costs(
    adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    r"""Returns the exact parameters and multiply-accumulates of the benchmark's networks, each ``[B]``.

    Args:
        adjacency: ``[B, 7, 7]``.
        ops: ``[B, 7]`` operation ids, padded with -1.
    """
    params, macs = np.empty((2, len(ops)), dtype=np.int64)
    for start in range(0, len(ops), _COST_ROWS):
        rows = slice(start, start + _COST_ROWS)
        # The vertex dimension is first, so that every step operates on contiguous vectors over the cells.
        edges = np.ascontiguousarray(adjacency[rows].transpose(1, 2, 0))
        params[rows], macs[rows] = _network_costs(edges, np.ascontiguousarray(ops[rows].T))
    return params, macs


def _network_costs(edges: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> tuple[Any, Any]:
    feeds = (edges & (ops == 1)).any(1)
    stem, classifier = 27 * 128, 512 * 10
    params: Any = stem + 2 * 128 + classifier + 10
    macs: Any = stem * 32 * 32 + classifier
    entering = 128
    for width, pixels in ((128, 32), (256, 16), (512, 8)):
        channels = _vertex_channels(edges, ops, feeds, width)
        for repeat, source in ((1, entering), (2, width)):
            weights, norms = _module_weights(edges, ops, feeds, channels, source, width)
            params = params + repeat * (weights + 2 * norms)
            macs = macs + repeat * weights * pixels * pixels
        entering = width
    return params, macs


def _vertex_channels(
    edges: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8], feeds: npt.NDArray[np.bool_], width: int
) -> npt.NDArray[np.int64]:
    r"""Channels ``[7, B]`` of the interior vertices of a module with ``width`` outputs, 0 elsewhere."""
    interior = ops >= 2
    sharing = feeds & interior
    share, rest = np.divmod(width, np.maximum(sharing.sum(0), 1))
    channels = np.where(sharing, share + (sharing.cumsum(0) <= rest), 0)
    for vertex in range(MAX_VERTICES - 2, 0, -1):
        widest = (edges[vertex, vertex + 1 :] * channels[vertex + 1 :]).max(0)
        channels[vertex] = np.where(sharing[vertex], channels[vertex], widest * interior[vertex])
    return channels


def _module_weights(
    edges: npt.NDArray[np.bool_],
    ops: npt.NDArray[np.int8],
    feeds: npt.NDArray[np.bool_],
    channels: npt.NDArray[np.int64],
    source: int,
    width: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    r"""Weights of all convolutions of a module, and the number of their output channels, each ``[B]``."""
    taps = np.array([0, 0, 9, 1, 0, 0])[ops]  # the padding id -1 is the last entry
    projected = edges[0] * channels
    weights = (source * projected + taps * channels * channels).sum(0) + feeds[0] * (source * width)
    norms = (projected + (taps > 0) * channels).sum(0) + feeds[0] * width
    return weights, norms


@cache
def _space_costs() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    table = _load_table()
    return network_costs(table.adjacency, table.ops)


_OP_OF_LETTER = np.full(256, -1, dtype=np.int8)
for _id, _letter in enumerate(LETTERS, start=2):
    _OP_OF_LETTER[ord(_letter)] = _id


def _parse(archs: Sequence[NASBench101Arch]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    adjacency = np.zeros((len(archs), MAX_VERTICES, MAX_VERTICES), dtype=np.bool_)
    ops = np.full((len(archs), MAX_VERTICES), -1, dtype=np.int8)
    sizes = np.array([len(arch.labels) + 2 for arch in archs], dtype=np.int64)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        edges = "".join(archs[i].edges for i in rows.tolist()).encode()
        x, y = np.triu_indices(size, 1)
        adjacency[rows[:, None], x, y] = np.frombuffer(edges, dtype=np.uint8).reshape(len(rows), -1) == ord("1")
        labels = np.frombuffer("".join(archs[i].labels for i in rows.tolist()).encode(), dtype=np.uint8)
        ops[rows, 0], ops[rows, size - 1] = 0, 1
        ops[rows, 1 : size - 1] = _OP_OF_LETTER[labels].reshape(len(rows), size - 2)
    return adjacency, ops


def _to_arch(adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> NASBench101Arch:
    size = int((ops >= 0).sum())
    edges = adjacency[np.triu_indices(size, 1)]
    return NASBench101Arch(
        (edges + np.uint8(ord("0"))).tobytes().decode(), "".join(LETTERS[op - 2] for op in ops[1 : size - 1].tolist())
    )


def _reason(arch: NASBench101Arch) -> str:
    r"""Why the value is not a cell of the space, or an empty string."""
    size = arch.num_vertices
    if size > MAX_VERTICES:
        return f"it has {size} vertices, at most {MAX_VERTICES} are allowed"
    if unknown := sorted(set(arch.labels) - set(LETTERS)):
        return f"unknown operation letter '{unknown[0]}', the letters are 3, 1 and p"
    if len(arch.edges) != size * (size - 1) // 2 or set(arch.edges) - {"0", "1"}:
        return f"{size} vertices need {size * (size - 1) // 2} characters 0 or 1 as edges, got '{arch.edges}'"
    if (count := arch.edges.count("1")) > MAX_EDGES:
        return f"it has {count} edges, at most {MAX_EDGES} are allowed"
    # The rows of the upper triangle, each as long as the vertices that follow.
    starts = [i * size - i * (i + 1) // 2 for i in range(size)]
    for i in range(size):
        if i < size - 1 and "1" not in arch.edges[starts[i] : starts[i] + size - 1 - i]:
            return f"vertex {i} has no successor; from_matrix(prune=True) removes such vertices"
        if i > 0 and all(arch.edges[starts[j] + i - j - 1] == "0" for j in range(i)):
            return f"vertex {i} has no predecessor; from_matrix(prune=True) removes such vertices"
    return ""


def _check_matrix(matrix: Any, ops: Sequence[str]) -> npt.NDArray[np.bool_]:
    try:
        array = np.asarray(matrix)
    except ValueError:
        raise InvalidArchitectureError("the adjacency matrix has rows of different lengths") from None
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        raise InvalidArchitectureError(f"the adjacency matrix must be [V, V] with V >= 2, got {list(array.shape)}")
    if not np.isin(array, (0, 1)).all():
        raise InvalidArchitectureError("the adjacency matrix must hold only 0 and 1")
    if len(ops) != len(array):
        raise InvalidArchitectureError(f"{len(array)} vertices need as many labels, got {len(ops)}")
    if unknown := [op for op in ops if op not in OP_NAMES]:
        raise InvalidArchitectureError(f"unknown operation {unknown[0]!r}; operations: {', '.join(OP_NAMES)}")
    if ops[0] != "input" or ops[-1] != "output" or {"input", "output"} & set(ops[1:-1]):
        raise InvalidArchitectureError(f"the first label must be 'input' and only the last 'output', got {list(ops)}")
    bits = array.astype(np.bool_)
    if (lower := np.argwhere(np.tril(bits))).size:
        _topological_order(bits, first=0, last=len(bits) - 1)
        i, j = lower[0].tolist()
        raise InvalidArchitectureError(
            f"edge {i} -> {j} is below the diagonal; number the vertices in topological order"
        )
    return bits


def _closure(matrix: npt.NDArray[np.bool_], start: int) -> npt.NDArray[np.bool_]:
    r"""Which vertices are reachable from ``start``, including itself; all False if it has no edges."""
    reached = np.zeros(len(matrix), dtype=np.bool_)
    reached[start] = True
    for _ in range(len(matrix)):
        reached |= matrix[reached].any(0)
    return reached


def _topological_order(matrix: npt.NDArray[np.bool_], first: int, last: int) -> list[int]:
    r"""Topological order from ``first`` to ``last``; ties are resolved by the smallest number."""
    waiting = matrix.sum(0).tolist()
    if waiting[first] or matrix[last].any():
        raise InvalidArchitectureError("the input must have no predecessor and the output no successor")
    ready = [v for v in range(len(matrix)) if not waiting[v] and v not in (first, last)]
    heapq.heapify(ready)
    order: list[int] = []
    vertex = first
    while True:
        order.append(vertex)
        for target in np.flatnonzero(matrix[vertex]).tolist():
            waiting[target] -= 1
            if not waiting[target] and target != last:
                heapq.heappush(ready, target)
        if not ready:
            break
        vertex = heapq.heappop(ready)
    if waiting[last] or len(order) != len(matrix) - 1:
        stuck = [v for v in range(len(matrix)) if waiting[v]]
        raise InvalidArchitectureError(f"the graph has a cycle through or before vertices {stuck}")
    return [*order, last]


# -- edits ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def _around(arch: NASBench101Arch) -> tuple[int, ...]:
    r"""Indices of the cells one edit away. Searches mutate a few good cells many times."""
    (adjacency,), (ops,) = _parse([arch])
    edited = _pruned(*_edits(adjacency, ops, arch.num_vertices))
    found = dict.fromkeys(_positions(*edited).tolist())
    found.pop(int(_positions(adjacency[None], ops[None])[0]), None)
    return tuple(found)


def _edits(
    adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8], size: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    r"""The cell with another operation, with one edge more or less, with one vertex more, in this order."""
    interior = np.arange(1, size - 1)
    kinds = np.arange(2, len(OP_NAMES), dtype=np.int8)
    vertex, kind = (grid.ravel() for grid in np.meshgrid(interior, kinds, indexing="ij"))
    vertex, kind = vertex[other := ops[vertex] != kind], kind[other]
    relabelled = np.repeat(ops[None], len(vertex), axis=0)
    relabelled[np.arange(len(vertex)), vertex] = kind
    source, target = np.triu_indices(size, 1)
    flipped = np.repeat(adjacency[None], len(source), axis=0)
    flipped[np.arange(len(source)), source, target] ^= True
    edges = [np.repeat(adjacency[None], len(vertex), axis=0), flipped]
    labels = [relabelled, np.repeat(ops[None], len(source), axis=0)]
    if size < MAX_VERTICES:
        for i, j in zip(source.tolist(), target.tolist(), strict=True):
            # The new vertex takes the place j, what stood there and behind it moves on.
            places = np.insert(np.arange(MAX_VERTICES - 1), j, MAX_VERTICES - 1)
            grown, names = adjacency[np.ix_(places, places)], ops[places]
            grown[i, j] = grown[j, j + 1] = True
            edges.append(np.repeat(grown[None], len(kinds), axis=0))
            labels.append(np.repeat(names[None], len(kinds), axis=0))
            labels[-1][:, j] = kinds
    return np.concatenate(edges), np.concatenate(labels)


def _pruned(
    adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    r"""Leaves out vertices on no path from input to output, then cells that are outside the space."""
    rows = np.arange(len(ops))
    ahead, behind = ops == 0, ops == 1
    for _ in range(MAX_VERTICES - 1):
        ahead |= (adjacency & ahead[:, :, None]).any(1)
        behind |= (adjacency & behind[:, None, :]).any(2)
    reached = ahead & behind
    order = np.argsort(~reached, axis=1, kind="stable")
    kept = np.take_along_axis(reached, order, axis=1)
    adjacency = adjacency[rows[:, None, None], order[:, :, None], order[:, None, :]]
    adjacency &= kept[:, :, None] & kept[:, None, :]
    valid = kept[:, 0] & (adjacency.sum((1, 2)) <= MAX_EDGES)
    return adjacency[valid], np.where(kept, np.take_along_axis(ops, order, axis=1), -1)[valid].astype(np.int8)


def _positions(adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    r"""Indices ``[B]`` of cells of the space, in any isomorphic form."""
    known, index = _load_signatures()
    return index[np.searchsorted(known, _signatures(adjacency, ops))]


def _signatures(adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    sizes, found = (ops >= 0).sum(1), np.empty(len(ops), dtype=np.uint64)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        for part in np.array_split(rows, -(-len(rows) // _SIGNATURE_ROWS)):
            found[part] = signatures(adjacency[part, :size, :size], ops[part, None, :size])
    return found


@cache
def _load_signatures() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    r"""The signatures of all cells in ascending order, and their indices."""
    table = _load_table()
    known = _signatures(table.adjacency, table.ops)
    index = np.argsort(known)
    return known[index], index


# -- the cached enumeration -----------------------------------------------------------------------------------------


@cache
def _load_table() -> _Table:
    path = cache_dir() / "nasbench101-space-1.npz"
    table = _read_table(path)
    if table is None:
        logger.info("Enumerating the %d cells of NAS-Bench-101 once; the result is cached in %s.", NUM_CELLS, path)
        start = time.perf_counter()
        table = _Table(*enumerate_cells())
        packed = _pack(table)
        if _checksum(packed) != _SPACE_SHA256:
            raise VerificationError(
                f"the enumeration of NAS-Bench-101 gave {len(table.ops)} cells that are not the published ones "
                f"(NumPy {np.__version__}); please report this"
            )
        logger.info("Enumerated in %.1f s.", time.perf_counter() - start)
        with atomic_path(path) as tmp:
            np.savez(tmp, allow_pickle=False, **packed)
    for array in (*table.digests, table.adjacency, table.ops):
        array.flags.writeable = False
    return table


def _read_table(path: Path) -> _Table | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            packed = {name: file[name] for name in ("digests", "adjacency", "ops")}
        if _checksum(packed) == _SPACE_SHA256:
            return _unpack(packed)
        reason = "its contents have another checksum"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error)
    logger.warning("The cache %s is damaged and will be built again (%s).", path, reason)
    return None


def _pack(table: _Table) -> dict[str, npt.NDArray[Any]]:
    bits = np.packbits(table.adjacency.reshape(len(table.ops), -1), axis=1)
    return {"digests": table.digests.to_bytes(), "adjacency": bits, "ops": table.ops}


def _unpack(packed: dict[str, npt.NDArray[Any]]) -> _Table:
    bits = np.unpackbits(packed["adjacency"], axis=1, count=MAX_VERTICES**2).astype(np.bool_)
    adjacency = bits.reshape(-1, MAX_VERTICES, MAX_VERTICES)
    return _Table(Digests.from_bytes(packed["digests"]), adjacency, packed["ops"])


def _checksum(packed: dict[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in packed.values():
        digest.update(array.tobytes())
    return digest.hexdigest()
