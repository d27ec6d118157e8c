r"""Graphs of described operations: what architectures of any space with an operation graph look like to predictors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_nas_np.spaces.base import Archs, ArchT, SearchSpace

INPUT, OUTPUT, ZERO, IDENTITY, ADD, POOL = "input", "output", "zero", "identity", "add", "pool"
"""Kinds of operations with a meaning: the ends of a graph, no information, the input unchanged, the sum of several, an
average or maximum.

Any other kind is a name under which operations are compared.
"""

_KINDS = {
    "input": INPUT,
    "in": INPUT,
    "output": OUTPUT,
    "out": OUTPUT,
    "none": ZERO,
    "zeroize": ZERO,
    "identity": IDENTITY,
    "skip": IDENTITY,
    "skip_connect": IDENTITY,
    "avg_pool": POOL,
    "max_pool": POOL,
}


@dataclass(frozen=True, init=False)
class Operation:
    r"""What an operation is: a name, a kind, and numbers that hold for every node that carries the name.

    Args:
        name: The name that nodes carry.
        kind: What it is, by which operations are compared. (default: the meaning of common names such as
            ``skip_connect``, else the name)
        attributes: Numbers, such as ``kernel=3`` or ``stride=2``. A node's own ones go before them.

    Raises:
        ValueError: If the name is empty, or an attribute is not a finite number.

    Example:
        >>> Operation("conv3x3", kind="conv", kernel=3)
        Operation('conv3x3', kind='conv', kernel=3.0)
        >>> Operation("skip_connect").kind
        'identity'
    """

    name: str
    kind: str
    items: tuple[tuple[str, float], ...]
    """The attributes, sorted by name."""

    def __init__(self, name: str, kind: str | None = None, **attributes: float) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"an operation needs a name, got {name!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "kind", _KINDS.get(name.lower(), name) if kind is None else kind)
        object.__setattr__(self, "items", numbers_of(attributes, f"operation {name!r}"))

    @property
    def attributes(self) -> Mapping[str, float]:
        r"""The attributes by name."""
        return dict(self.items)

    def __repr__(self) -> str:
        return f"Operation({self.name!r}, kind={self.kind!r}{''.join(f', {k}={v}' for k, v in self.items)})"


def numbers_of(attributes: Mapping[str, float], owner: str) -> tuple[tuple[str, float], ...]:
    r"""Returns attributes as pairs, sorted by name.

    Raises:
        ValueError: If one is not a finite number; the message names :obj:`owner`.

    Example:
        >>> numbers_of({"stride": 2, "kernel": 3}, "node 'conv'")
        (('kernel', 3.0), ('stride', 2.0))
    """
    pairs = []
    for name, value in sorted(attributes.items()):
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{name}={value!r} of {owner} is not a finite number; leave absent attributes out")
        pairs.append((name, number))
    return tuple(pairs)


class OperationGraphs(NamedTuple):
    r"""A batch of ``B`` attributed directed graphs as flat tensors, ``N`` nodes and ``E`` edges together.

    Nodes of a graph follow each other in topological order: every edge points to a later node. Parallel edges are
    repeated columns.

    Shapes:
        - **operations:** What ids stand for; begins with the vocabulary of the space, unknown names follow.
        - **attribute_names:** Names of the ``A`` attributes, those of the space first.
        - **op:** ``[N]`` int64, position in :attr:`operations`.
        - **attributes:** ``[N, A]`` float64; NaN where a node has none.
        - **edge_index:** ``[2, E]`` int64, positions in the whole batch, sorted by target, then source.
        - **recurrent_index:** ``[2, R]`` int64, edges that carry the source's value of the step before, and may
          thus close cycles; sorted as the others.
        - **ptr:** ``[B + 1]`` int64; graph ``b`` has the nodes ``ptr[b]`` to ``ptr[b + 1] - 1``.
    """

    operations: tuple[Operation, ...]
    attribute_names: tuple[str, ...]
    op: Tensor
    attributes: Tensor
    edge_index: Tensor
    recurrent_index: Tensor
    ptr: Tensor

    @property
    def num_graphs(self) -> int:
        r"""Number ``B`` of graphs."""
        return self.ptr.numel() - 1

    @property
    def batch(self) -> Tensor:
        r"""Graph of each node, int64 ``[N]``."""
        return torch.repeat_interleave(torch.arange(self.num_graphs, device="cpu"), self.ptr.diff())

    def select(self, index: Tensor) -> OperationGraphs:
        r"""Returns the graphs at positions :obj:`index` (int64 ``[K]``), in that order.

        Example:
            >>> ends = (Operation("input"), Operation("output"))
            >>> op, edges = torch.tensor([0, 1, 0, 1]), torch.tensor([[0, 2], [1, 3]])
            >>> none = torch.empty(2, 0, dtype=torch.long)
            >>> pair = OperationGraphs(ends, (), op, torch.empty(4, 0), edges, none, torch.tensor([0, 2, 4]))
            >>> pair.select(torch.tensor([1])).edge_index.tolist()
            [[0], [1]]
        """
        sizes = self.ptr.diff()[index]
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        nodes = _ranges(self.ptr[index], sizes)

        def moved(edges: Tensor) -> Tensor:
            ends = torch.searchsorted(edges[1].contiguous(), self.ptr)
            count = ends.diff()[index]
            shift = torch.repeat_interleave(ptr[:-1] - self.ptr[index], count)
            return edges[:, _ranges(ends[index], count)] + shift

        return self._replace(
            op=self.op[nodes],
            attributes=self.attributes[nodes],
            edge_index=moved(self.edge_index),
            recurrent_index=moved(self.recurrent_index),
            ptr=ptr,
        )

    def of_kind(self, *kinds: str) -> Tensor:
        r"""Which nodes have an operation of one of the kinds, bool ``[N]``."""
        member = torch.tensor([op.kind in kinds for op in self.operations], dtype=torch.bool, device="cpu")
        return member[self.op]


def _ranges(start: Tensor, count: Tensor) -> Tensor:
    """``start[0], start[0] + 1, ...``, ``count[0]`` numbers, and so on."""
    offset = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
    return offset + torch.arange(offset.numel(), device="cpu")


class OperationView(SearchSpace[ArchT]):
    r"""A space whose architectures are graphs of described operations, of any size and vocabulary.

    Nodes of kind :data:`INPUT` and :data:`OUTPUT` are the ends of a graph; where it has none, nodes without
    predecessors and without successors are.
    """

    @property
    @abstractmethod
    def operations(self) -> tuple[Operation, ...]:
        r"""The vocabulary: operations that are known beforehand. Graphs may carry others."""

    @property
    @abstractmethod
    def attribute_names(self) -> tuple[str, ...]:
        r"""Names of the numeric attributes of nodes."""

    @abstractmethod
    def operation_graphs(self, archs: Archs = None) -> OperationGraphs:
        r"""Returns the graphs of many architectures.

        Args:
            archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.
        """
