r"""The official NAS-Bench-101 graph hash, computed for many cells at once, and the enumeration of all cells with it.

The hash is an iterated MD5 over hexadecimal strings. Cells of one size are processed together: nodes with equal degrees
have messages of equal length, so one pass of array operations advances the MD5 of thousands of nodes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Parts: TypeAlias = list["bytes | npt.NDArray[np.void]"]
"""A batch of texts of equal length, as consecutive parts: constant bytes, or one item per text."""

MAX_VERTICES = 7
MAX_EDGES = 9

# Below this number of cells hashlib is faster than the fixed cost of batching.
_LOCKSTEP_PAYS = 2048
# Rows of one MD5 pass: small enough that the sixteen message words and the state stay in a core's cache.
_MD5_ROWS = 16_384
_CELLS_PER_CHUNK = 16_384
_MATRICES_PER_CHUNK = 256

_SHIFTS = np.repeat([[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]], 4, axis=0).reshape(-1)
_CONSTANTS = np.floor(np.abs(np.sin(np.arange(1, 65))) * 2.0**32).astype(np.uint32)
_WORDS = list(range(16))
_WORDS += (
    [(5 * i + 1) % 16 for i in range(16)] + [(3 * i + 5) % 16 for i in range(16)] + [7 * i % 16 for i in range(16)]
)
_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)

_LABELS = (-1, -2, 0, 1, 2)
"""The number of each operation id in the hash."""

_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


class Digests(NamedTuple):
    r"""MD5 digests as two big-endian halves, so that they sort as their hexadecimal strings do; each uint64 ``[N]``."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]

    @classmethod
    def from_bytes(cls, raw: npt.NDArray[np.uint8]) -> Digests:
        r"""Reads ``[N, 16]`` bytes."""
        halves = np.ascontiguousarray(raw).view(">u8").astype(np.uint64)
        return cls(halves[:, 0].copy(), halves[:, 1].copy())

    @classmethod
    def from_hex(cls, names: Sequence[str]) -> Digests:
        r"""Reads strings of 32 lower-case hexadecimal digits; raises :class:`ValueError` for anything else."""
        text = "".join(names)
        raw = bytes.fromhex(text)
        if any(len(name) != 32 for name in names) or raw.hex() != text:
            raise ValueError("a hash must have 32 lower-case hexadecimal digits")
        return cls.from_bytes(np.frombuffer(raw, dtype=np.uint8).reshape(-1, 16))

    @classmethod
    def concat(cls, parts: Iterable[Digests]) -> Digests:
        r"""Joins several."""
        high, low = zip(*parts, strict=True)
        return cls(np.concatenate(high), np.concatenate(low))

    def take(self, index: npt.NDArray[np.intp]) -> Digests:
        r"""Selects and orders."""
        return Digests(self.high[index], self.low[index])

    def to_bytes(self) -> npt.NDArray[np.uint8]:
        r"""Returns ``[N, 16]`` bytes."""
        return np.stack([self.high, self.low], axis=1).astype(">u8").view(np.uint8)

    def to_hex(self) -> list[str]:
        r"""Returns the hexadecimal strings."""
        text = self.to_bytes().tobytes().hex()
        return [text[i : i + 32] for i in range(0, len(text), 32)]


def cell_hash(matrix: npt.NDArray[Any], ops: Iterable[int]) -> str:
    r"""Returns the official hash of one cell.

    Args:
        matrix: ``[V, V]`` upper-triangular adjacency.
        ops: ``V`` operation ids: 0 input, 1 output, 2 conv3x3, 3 conv1x1, 4 maxpool3x3.
    """

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    # Plain integers, because the text of NumPy scalars in tuples, and thus every hash, changed with NumPy 2.
    rows = [[int(bit) for bit in row] for row in matrix]
    size = len(rows)
    labels = [_LABELS[op] for op in ops]
    successors = [[j for j in range(size) if rows[i][j]] for i in range(size)]
    predecessors = [[j for j in range(size) if rows[j][i]] for i in range(size)]
    state = [md5(str((len(successors[v]), len(predecessors[v]), labels[v]))) for v in range(size)]
    for _ in range(size):
        state = [
            md5(
                "".join(sorted(state[p] for p in predecessors[v]))
                + "|"
                + "".join(sorted(state[s] for s in successors[v]))
                + "|"
                + state[v]
            )
            for v in range(size)
        ]
    return md5(str(sorted(state)))


def batch_hash(adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> Digests:
    r"""Returns the official hashes of many cells with the same number of vertices.

    Args:
        adjacency: ``[B, V, V]``.
        ops: ``[B, V]``, as in :func:`cell_hash`.
    """
    if len(ops) < _LOCKSTEP_PAYS:
        return Digests.from_hex([cell_hash(matrix, row) for matrix, row in zip(adjacency, ops, strict=True)])
    starts = range(0, len(ops), _CELLS_PER_CHUNK)
    return Digests.concat(
        _hash_chunk(adjacency[i : i + _CELLS_PER_CHUNK], ops[i : i + _CELLS_PER_CHUNK]) for i in starts
    )


def _hash_chunk(adjacency: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> Digests:
    batch, size = ops.shape
    incoming = adjacency.transpose(0, 2, 1).reshape(-1, size)
    outgoing = adjacency.reshape(-1, size)
    fan_in, fan_out = incoming.sum(1), outgoing.sum(1)
    first_vertex = np.repeat(np.arange(batch) * size, size)

    state = _initial_state(fan_out, fan_in, ops.reshape(-1))
    groups = []
    for degrees in np.unique(fan_in * 8 + fan_out).tolist():
        nodes = np.flatnonzero(fan_in * 8 + fan_out == degrees)
        offset = first_vertex[nodes, None]
        predecessors = np.nonzero(incoming[nodes])[1].reshape(len(nodes), -1) + offset
        successors = np.nonzero(outgoing[nodes])[1].reshape(len(nodes), -1) + offset
        groups.append((nodes, predecessors, successors))

    for _ in range(size):
        text = _to_hex(state)
        order = Digests.from_bytes(state)
        updated = np.empty_like(state)
        for nodes, predecessors, successors in groups:
            parts: Parts = [
                *_columns(text, _sorted_rows(predecessors, order)),
                b"|",
                *_columns(text, _sorted_rows(successors, order)),
                b"|",
                text[nodes],
            ]
            updated[nodes] = _md5(parts, len(nodes))
        state = updated

    vertices = np.arange(batch * size).reshape(batch, size)
    texts: Parts = [b"['"]
    for column in _columns(_to_hex(state), _sorted_rows(vertices, Digests.from_bytes(state))):
        texts += [column, b"', '"]
    texts[-1] = b"']"
    return Digests.from_bytes(_md5(texts, batch))


def _initial_state(
    fan_out: npt.NDArray[np.integer[Any]], fan_in: npt.NDArray[np.integer[Any]], ops: npt.NDArray[np.int8]
) -> npt.NDArray[np.uint8]:
    keys = (fan_out * 8 + fan_in) * 8 + ops
    table = np.zeros((512, 16), dtype=np.uint8)
    for key in np.flatnonzero(np.bincount(keys)).tolist():
        text = str((key >> 6, key >> 3 & 7, _LABELS[key & 7]))
        table[key] = np.frombuffer(hashlib.md5(text.encode(), usedforsecurity=False).digest(), dtype=np.uint8)
    return table[keys]


def _to_hex(state: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    # One 32-byte item per digest, so that gathers move whole strings.
    return np.ascontiguousarray(_HEX[state]).view("V32").reshape(-1)


def _columns(text: npt.NDArray[np.void], rows: npt.NDArray[np.intp]) -> list[npt.NDArray[np.void]]:
    return [text[rows[:, k]] for k in range(rows.shape[1])]


def _sorted_rows(rows: npt.NDArray[np.intp], order: Digests) -> npt.NDArray[np.intp]:
    r"""Sorts each short row of node numbers by the digests of the nodes, with a network of compare-exchanges."""
    count = rows.shape[1]
    if count < 2:
        return rows
    columns = [rows[:, k] for k in range(count)]
    high = [order.high[column] for column in columns]
    for stop in range(count - 1, 0, -1):
        for k in range(stop):
            swap = high[k] > high[k + 1]
            tie = high[k] == high[k + 1]
            if tie.any():
                swap |= tie & (order.low[columns[k]] > order.low[columns[k + 1]])
            columns[k], columns[k + 1] = (
                np.where(swap, columns[k + 1], columns[k]),
                np.where(swap, columns[k], columns[k + 1]),
            )
            high[k], high[k + 1] = np.where(swap, high[k + 1], high[k]), np.where(swap, high[k], high[k + 1])
    return np.stack(columns, axis=1)


def _md5(parts: Parts, count: int) -> npt.NDArray[np.uint8]:
    r"""MD5 of ``count`` messages of equal length, given as their consecutive parts; returns ``[count, 16]`` bytes."""
    length = sum(len(part) if isinstance(part, bytes) else part.dtype.itemsize for part in parts)
    blocks = (length + 9 + 63) // 64
    message = np.zeros((count, 64 * blocks), dtype=np.uint8)
    position = 0
    for part in parts:
        if isinstance(part, bytes):
            message[:, position : position + len(part)] = np.frombuffer(part, dtype=np.uint8)
            position += len(part)
        else:
            width = part.dtype.itemsize
            message[:, position : position + width] = part.view(np.uint8).reshape(count, width)
            position += width
    message[:, position] = 0x80
    message[:, -8:] = np.frombuffer((8 * length).to_bytes(8, "little"), dtype=np.uint8)
    digest = np.empty((count, 4), dtype="<u4")
    words = message.view("<u4")
    for start in range(0, count, _MD5_ROWS):
        rows = slice(start, start + _MD5_ROWS)
        digest[rows] = _md5_rows(np.ascontiguousarray(words[rows].T)).T
    return digest.view(np.uint8)


def _md5_rows(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    r"""The MD5 compression function (RFC 1321) over ``[16 * blocks, n]`` message words; returns ``[4, n]``."""
    count = words.shape[1]
    total = np.empty((4, count), dtype=np.uint32)
    total[:] = np.array(_INITIAL, dtype=np.uint32)[:, None]
    mix, turned = np.empty((2, count), dtype=np.uint32)
    for first in range(0, len(words), 16):
        a, b, c, d = total.copy()
        for i in range(64):
            if i < 16:  # d ^ (b & (c ^ d))
                np.bitwise_xor(c, d, out=mix)
                mix &= b
                mix ^= d
            elif i < 32:  # c ^ (d & (b ^ c))
                np.bitwise_xor(b, c, out=mix)
                mix &= d
                mix ^= c
            elif i < 48:
                np.bitwise_xor(b, c, out=mix)
                mix ^= d
            else:  # c ^ (b | ~d)
                np.bitwise_not(d, out=mix)
                mix |= b
                mix ^= c
            a += mix
            a += words[first + _WORDS[i]]
            a += _CONSTANTS[i]
            shift = int(_SHIFTS[i])
            np.left_shift(a, np.uint32(shift), out=turned)
            a >>= np.uint32(32 - shift)
            a |= turned
            a += b
            a, b, c, d = d, a, b, c
        total += np.stack([a, b, c, d])
    return total


def full_dags(size: int) -> npt.NDArray[np.bool_]:
    r"""Returns the adjacency matrices ``[M, size, size]`` of all full DAGs with at most nine edges, in official order.

    In a full DAG every vertex but the last has a successor and every vertex but the first a predecessor. The official
    order is that of the integers whose bits are the edges; edge x → y (x < y) is bit ``x + y (y - 1) / 2``.
    """
    pairs = [(x, y) for y in range(size) for x in range(y)]
    bits = np.arange(1 << len(pairs), dtype=np.uint32)
    edges = np.stack([(bits >> k) & 1 for k in range(len(pairs))], axis=1).astype(np.uint8)
    keep = edges.sum(1) <= MAX_EDGES
    for vertex in range(size):
        if vertex < size - 1:
            keep &= edges[:, [k for k, (x, _) in enumerate(pairs) if x == vertex]].any(1)
        if vertex > 0:
            keep &= edges[:, [k for k, (_, y) in enumerate(pairs) if y == vertex]].any(1)
    adjacency = np.zeros((int(keep.sum()), size, size), dtype=np.bool_)
    for k, (x, y) in enumerate(pairs):
        adjacency[:, x, y] = edges[keep, k]
    return adjacency


def labellings(size: int) -> npt.NDArray[np.int8]:
    r"""Returns the operation ids ``[3 ** (size - 2), size]`` of all labellings, in official order."""
    interior = np.array(list(itertools.product((2, 3, 4), repeat=size - 2)), dtype=np.int8)
    return np.pad(interior, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))


def enumerate_cells() -> tuple[Digests, npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    r"""Enumerates the space: the first of all isomorphic cells in official order, sorted by hash.

    Returns:
        The hashes ``[N]``, the adjacency ``[N, 7, 7]`` and the operation ids ``[N, 7]``, padded with False and -1.
    """
    parts = []
    for size in range(2, MAX_VERTICES + 1):
        matrices, labels = full_dags(size), labellings(size)
        found = np.concatenate(
            [
                signatures(matrices[i : i + _MATRICES_PER_CHUNK], labels)
                for i in range(0, len(matrices), _MATRICES_PER_CHUNK)
            ]
        )
        matrix, labelling = np.divmod(np.unique(found, return_index=True)[1], len(labels))
        adjacency = np.zeros((len(matrix), MAX_VERTICES, MAX_VERTICES), dtype=np.bool_)
        adjacency[:, :size, :size] = matrices[matrix]
        ops = np.full((len(matrix), MAX_VERTICES), -1, dtype=np.int8)
        ops[:, :size] = labels[labelling]
        parts.append((batch_hash(adjacency[:, :size, :size], ops[:, :size]), adjacency, ops))
    digests, adjacencies, operations = zip(*parts, strict=True)
    digest = Digests.concat(digests)
    order = np.lexsort((digest.low, digest.high))
    return digest.take(order), np.concatenate(adjacencies)[order], np.concatenate(operations)[order]


def signatures(matrices: npt.NDArray[np.bool_], ops: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    r"""Returns a 64-bit surrogate of the official hash of every matrix with every labelling.

    It iterates over the neighbourhoods as the official hash does, with sums of mixed integers instead of sorted
    strings. It is an order of magnitude faster, and equal for two cells if and only if the official hash is, up to
    64-bit collisions. It finds the distinct cells, for which the official hash is then computed.

    Args:
        matrices: ``[M, V, V]``.
        ops: ``[L, V]``, or ``[M, L, V]`` for labellings of each matrix.

    Returns:
        ``[M * L]``, matrices outermost.
    """
    forward = matrices.astype(np.uint64)
    backward = np.ascontiguousarray(forward.transpose(0, 2, 1))
    degrees = forward.sum(2) * np.uint64(8) + forward.sum(1)
    state = _mix(degrees[:, None, :] * np.uint64(8) + ops.astype(np.uint64))
    for _ in range(ops.shape[-1]):
        above = _mix(state @ forward + np.uint64(1))
        below = _mix(state @ backward + np.uint64(2))
        state = _mix(state + np.uint64(3) * above + np.uint64(5) * below)
    return _mix(state.sum(2)).reshape(-1)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # The finaliser of the SplitMix64 generator.
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
