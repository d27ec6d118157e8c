r"""The protocol that every search space implements."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_nas_np.spaces.dense import DenseGraphs, collate, to_batch
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.errors import InvalidArchitectureError, SpaceTooLargeError

ArchT = TypeVar("ArchT", bound=Hashable)
"""An architecture of a space: an immutable, hashable value."""


Archs: TypeAlias = Sequence[Any] | Tensor | None
"""Many architectures: a sequence of them, a one-dimensional integer tensor of official indices, or the whole space."""


KeptT = TypeVar("KeptT")

_KEPT = "_kept"

_LARGEST = torch.iinfo(torch.long).max

_TABULATED = 1 << 20
"""Up to this size, sampling uses a permutation of the whole space."""

_MODULO = 1 << 48
"""Up to this size, the modulo bias of :func:`torch.randint`, which reduces 64 random bits, is below 2e-5."""


def draw_indices(size: int, n: int, generator: torch.Generator | None = None, *, replace: bool = False) -> list[int]:
    r"""Draws :obj:`n` numbers below :obj:`size` uniformly, in the order drawn, distinct unless :obj:`replace`.

    Memory is proportional to :obj:`n` beyond a million; numbers may exceed 64 bits.

    Raises:
        ValueError: If :obj:`n` is negative, or larger than :obj:`size` without replacement.

    Example:
        >>> draw = draw_indices(10**20, 1000, torch.Generator().manual_seed(0))
        >>> len(set(draw)), max(draw) < 10**20
        (1000, True)
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    if replace:
        return _independent(size, n, generator)
    if n > size:
        raise ValueError(f"cannot draw n={n} distinct architectures from a space of {size}; pass replace=True")
    if size <= max(_TABULATED, 2 * n):
        permutation: list[int] = torch.randperm(size, generator=generator, device="cpu")[:n].tolist()
        return permutation
    # Independent draws without their repetitions are a draw without replacement; at most half are repetitions.
    drawn: dict[int, None] = {}
    while len(drawn) < n:
        drawn.update(dict.fromkeys(_independent(size, n - len(drawn), generator)))
    return list(drawn)


def _independent(size: int, n: int, generator: torch.Generator | None) -> list[int]:
    if size <= _MODULO:
        below: list[int] = torch.randint(size, (n,), generator=generator, device="cpu").tolist()
        return below
    # As many random bits as the largest number has; numbers that are too large are redrawn.
    bits = (size - 1).bit_length()
    found: list[int] = []
    while len(found) < n:
        shape = (n - len(found), math.ceil(bits / 32))
        limbs = torch.randint(1 << 32, shape, generator=generator, device="cpu").tolist()
        numbers = (sum(limb << 32 * k for k, limb in enumerate(row)) & ((1 << bits) - 1) for row in limbs)
        found += [number for number in numbers if number < size]
    return found


class Validity(NamedTuple):
    r"""The result of :meth:`SearchSpace.is_valid`: true or false, with the reason."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


class Layer(NamedTuple):
    r"""A layer of a chain: its description, its kind (:obj:`None` if all architectures share the layer), its size."""

    text: str
    kind: int | None
    size: int


class Stage(NamedTuple):
    r"""Consecutive layers, with a title and a note."""

    title: str
    note: str
    layers: tuple[Layer, ...]


class SearchSpace(ABC, Generic[ArchT]):
    r"""A set of architectures that can be sampled, edited and serialised: all that a search needs.

    Architectures are immutable, hashable values of type ``ArchT``. Everything else is a separate capability, a further
    base
    class: :class:`EnumerableSpace` adds an official index, :class:`GraphView` typed graphs, :class:`Costs` exact costs,
    :class:`Scores` zero-cost scores. Check for a capability (``isinstance(space, Costs)``), never for a space.

    Subclasses implement the abstract methods.
    """

    name: str
    """Short name used by messages, the command line, saved states and shipped weights."""

    # -- drawing and editing ----------------------------------------------------------------------------------------

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None, *, replace: bool = False) -> list[ArchT]:
        r"""Draws :obj:`n` architectures, distinct unless :obj:`replace`, at a cost independent of the space's size.

        Raises:
            ValueError: If :obj:`n` is negative, or larger than the space without replacement.
        """

    @abstractmethod
    def neighbors(self, arch: ArchT) -> list[ArchT]:
        r"""Returns the distinct architectures one edit away, in a deterministic order, without :obj:`arch` itself."""

    def mutate(self, arch: ArchT, generator: torch.Generator | None = None) -> ArchT:
        r"""Returns a uniformly drawn neighbor."""
        options = self.neighbors(arch)
        return options[int(torch.randint(len(options), (1,), generator=generator, device="cpu"))]

    def crossover(self, first: ArchT, second: ArchT, generator: torch.Generator | None = None) -> ArchT:
        r"""Combines two parents into a valid child, if the space has a natural crossover.

        Raises:
            NotImplementedError: If it has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no natural crossover; use mutate()")

    # -- representations --------------------------------------------------------------------------------------------

    @abstractmethod
    def to_str(self, arch: ArchT) -> str:
        r"""Returns the official (or documented) string form."""

    @abstractmethod
    def from_str(self, text: str) -> ArchT:
        r"""Parses the string form.

        Raises:
            InvalidArchitectureError: If :obj:`text` does not follow the format.
        """

    @abstractmethod
    def is_valid(self, arch: Any) -> Validity:
        r"""Returns whether :obj:`arch` is in the space and, if not, why."""

    def check(self, arch: Any) -> ArchT:
        r"""Returns :obj:`arch` if it is valid.

        Raises:
            InvalidArchitectureError: With the reason, if it is not.
        """
        validity = self.is_valid(arch)
        if not validity:
            raise InvalidArchitectureError(f"{arch!r} is not a valid {self.name} architecture: {validity.reason}")
        return arch  # type: ignore[no-any-return]

    def declaration(self) -> dict[str, Any] | None:
        r"""Returns what :func:`~pyg_nas_np.spaces.registry.declared_space` makes the space from, in plain types.

        :obj:`None` where that cannot be written down, which is the default.
        """
        return None

    # -- caching ----------------------------------------------------------------------------------------------------

    def keep(self, make: Callable[[Any], KeptT]) -> KeptT:
        r"""Returns ``make(self)``, computed once and cached for the lifetime of this space.

        Example:
            >>> from pyg_nas_np.spaces import NASBench201Space
            >>> space = NASBench201Space()
            >>> space.keep(NASBench201Space.batch_flops) is space.keep(NASBench201Space.batch_flops)
            True
        """
        kept: dict[Callable[..., Any], Any] = self.__dict__.setdefault(_KEPT, {})
        if make not in kept:
            kept.setdefault(make, make(self))
        made: KeptT = kept[make]
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _KEPT}

    # -- for subclasses ---------------------------------------------------------------------------------------------

    def resolve(self, archs: Archs) -> Sequence[ArchT]:
        r"""Converts the accepted representations of many architectures to a sequence.

        Raises:
            TypeError: If they are given by index, or not at all, and the space has no index.
        """
        if archs is None or isinstance(archs, Tensor):
            raise TypeError(f"{self.name} has no index; list the architectures that you mean")
        return archs

    def __contains__(self, arch: object) -> bool:
        return bool(self.is_valid(arch))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class EnumerableSpace(SearchSpace[ArchT]):
    r"""A finite space with an official index.

    Every vectorised method accepts a list of architectures, a one-dimensional integer tensor of official indices, or
    :obj:`None` for the whole space in index order.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> ArchT:
        r"""Returns the architecture at an official index.

        Raises:
            IndexError: If :obj:`index` is outside the space.
        """

    @abstractmethod
    def index(self, arch: ArchT) -> int:
        r"""Returns the official index of :obj:`arch` (of its isomorphic representative if the space has one).

        Raises:
            InvalidArchitectureError: If :obj:`arch` is not in the space.
        """

    def indices(self, archs: Sequence[ArchT]) -> list[int]:
        r"""Returns the official index of each of many architectures.

        Raises:
            InvalidArchitectureError: If one is not in the space.
        """
        return [self.index(arch) for arch in archs]

    @property
    def size(self) -> int:
        r"""Number of architectures; unlike that of ``len``, it may exceed 64 bits."""
        return len(self)

    def enumerate(self) -> Iterator[ArchT]:
        r"""Yields every architecture in index order."""
        return (self[i] for i in range(self.size))

    def sample(self, n: int, generator: torch.Generator | None = None, *, replace: bool = False) -> list[ArchT]:
        r"""Draws :obj:`n` architectures uniformly over indices, at a cost independent of the size of large spaces.

        Raises:
            ValueError: If :obj:`n` is negative, or larger than the space without replacement.
        """
        return [self[i] for i in draw_indices(self.size, n, generator, replace=replace)]

    def sample_indices(self, n: int, generator: torch.Generator | None = None, *, replace: bool = False) -> Tensor:
        r"""Draws :obj:`n` official indices uniformly, int64 ``[n]``; the same ones as :meth:`sample`.

        Raises:
            SpaceTooLargeError: If indices of the space do not fit into 64 bits.
            ValueError: If :obj:`n` is negative, or larger than the space without replacement.
        """
        if self.size - 1 > _LARGEST:
            raise SpaceTooLargeError(f"most indices of {self.name} do not fit into 64 bits; use sample()")
        return torch.tensor(draw_indices(self.size, n, generator, replace=replace), dtype=torch.long, device="cpu")

    def resolve(self, archs: Archs) -> Sequence[ArchT]:
        r"""Converts the three accepted representations of many architectures to a sequence."""
        if archs is None:
            return [self[i] for i in range(len(self))]
        if isinstance(archs, Tensor):
            return [self[i] for i in self.check_indices(archs).tolist()]
        return archs

    def check_indices(self, index: Tensor) -> Tensor:
        r"""Returns :obj:`index` if it is a one-dimensional integer tensor inside the space.

        Raises:
            IndexError: If an index is outside the space, naming it.
            TypeError: If the tensor is not a one-dimensional integer tensor.
        """
        if index.dim() != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(f"indices must be a one-dimensional integer tensor, got {index.dtype} {list(index.shape)}")
        outside = (index < 0) | (index > min(self.size - 1, _LARGEST))
        if bool(outside.any()):
            raise IndexError(f"index {int(index[outside][0])} is outside the {self.size} architectures of {self.name}")
        return index

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"


class GraphView(SearchSpace[ArchT]):
    r"""A space of small DAGs whose nodes have one operation from a fixed vocabulary."""

    op_names: ClassVar[tuple[str, ...]]
    """Node labels in the order of the one-hot ``x``; the first two are always ``input`` and ``output``."""

    zero_ops: ClassVar[tuple[str, ...]] = ()
    """Operations that output zero: no information flows through their nodes."""

    identity_ops: ClassVar[tuple[str, ...]] = ()
    """Operations that pass their input on unchanged."""

    averaging_ops: ClassVar[tuple[str, ...]] = ()
    """Operations without weights that average or pool their input."""

    described_ops: ClassVar[Mapping[str, tuple[str, Mapping[str, float]]]] = MappingProxyType({})
    """Kind and attributes of operations, by name, in the words of :class:`~pyg_nas_np.spaces.Operation`, for
    :func:`~pyg_nas_np.spaces.described.described_graphs`. Those of :attr:`zero_ops` and :attr:`identity_ops` need none.
    """

    shared_paths: ClassVar[Mapping[str, tuple[int, ...]]] = MappingProxyType({})
    """If all architectures share one topology: name of each input-output path → its inner nodes in :meth:`dense`."""

    @abstractmethod
    def canonical(self, arch: ArchT) -> str:
        r"""Returns the isomorphism key, equal for two architectures if and only if the benchmark considers them
        equal."""

    @abstractmethod
    def decode(self, data: Data) -> ArchT:
        r"""Reads an architecture back from the graph of :meth:`encode`, whatever the order of its nodes.

        Raises:
            InvalidArchitectureError: If the graph is not one of this space.
        """

    @abstractmethod
    def dense(self, archs: Archs = None) -> DenseGraphs:
        r"""Returns the node-view graphs as padded arrays; operation ids index :attr:`op_names`."""

    def encode(self, arch: ArchT) -> Data:
        r"""Returns the node-view graph: ``x`` ``[V, len(op_names)]`` one-hot float32, ``edge_index`` ``[2, E]``."""
        data, _ = collate(self.dense([arch]), len(self.op_names))
        return data

    @fixed_defaults
    def batch_encode(self, archs: Archs = None) -> Batch:
        r"""Returns the node-view graphs of many architectures as one :class:`~torch_geometric.data.Batch`.

        Architectures given by index carry it as ``arch_index`` ``[B]``, which predictors use to look up features.
        """
        batch = to_batch(self.dense(archs), len(self.op_names))
        if archs is None or isinstance(archs, Tensor):
            count = batch.num_graphs
            batch.arch_index = torch.arange(count) if archs is None else archs.to(torch.long, copy=True)
            batch._slice_dict["arch_index"] = torch.arange(count + 1)
            batch._inc_dict["arch_index"] = torch.zeros(count, dtype=torch.long)
        return batch

    def stages(self, arch: ArchT) -> tuple[Stage, ...]:
        r"""Returns the stages of an architecture that is a chain of layers; none if it is a graph."""
        return ()

    def batch_canonical(self, archs: Archs = None) -> list[str]:
        r"""Returns the isomorphism keys of many architectures."""
        return [self.canonical(arch) for arch in self.resolve(archs)]


class Costs(SearchSpace[ArchT]):
    r"""A space that can compute costs of its architectures without training."""

    @abstractmethod
    def costs(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns every cost by name, ``[B]`` each; sizes (``num_parameters``, ``flops``) come first."""


class Scores(SearchSpace[ArchT]):
    r"""A space that knows scores of its architectures without training: zero-cost scores, guesses of an expert."""

    @abstractmethod
    def scores(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns every score by name, float64 ``[B]`` each: larger is supposed to be better, NaN is unknown."""


class CellSpace(EnumerableSpace[ArchT], GraphView[ArchT], Costs[ArchT]):
    r"""A finite, indexed set of architectures that are small labelled DAGs with exact costs: a benchmark's cells."""

    def costs(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns parameters and multiply-accumulates, int64 ``[B]`` each."""
        return {"num_parameters": self.batch_num_parameters(archs), "flops": self.batch_flops(archs)}

    def num_parameters(self, arch: ArchT) -> int:
        r"""Returns the exact number of trainable parameters of the benchmark's network."""
        return int(self.batch_num_parameters([arch])[0])

    def flops(self, arch: ArchT) -> int:
        r"""Returns the multiply-accumulates of one forward pass (what the benchmarks call FLOPs)."""
        return int(self.batch_flops([arch])[0])

    @abstractmethod
    def batch_num_parameters(self, archs: Archs = None) -> Tensor:
        r"""Vectorised :meth:`num_parameters`: int64 ``[B]``."""

    @abstractmethod
    def batch_flops(self, archs: Archs = None) -> Tensor:
        r"""Vectorised :meth:`flops`: int64 ``[B]``."""


def require_index(space: SearchSpace[Any]) -> EnumerableSpace[Any]:
    r"""Returns a space that has an official index.

    Raises:
        InvalidArchitectureError: If it has none.
    """
    if not isinstance(space, EnumerableSpace):
        raise InvalidArchitectureError(f"{space.name} has no official index; give architectures by value")
    return space


def require_cells(space: SearchSpace[Any]) -> CellSpace[Any]:
    r"""Returns a space of cells.

    Raises:
        InvalidArchitectureError: If its architectures are not cells.
    """
    if not isinstance(space, CellSpace):
        raise InvalidArchitectureError(
            f"{space.name} gives no cells (graphs with one operation of a fixed vocabulary a node); take a predictor "
            f"that needs none, such as ConvNPPredictor or GPPredictor"
        )
    return space
