r"""What a network sees that reads graphs of operations of any space: roles, attributes and sizes in common words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyg_nas_np.features.operation_dag import LiveGraphs, live_graphs, mixed, path_sums
from pyg_nas_np.features.tables import space_sample
from pyg_nas_np.spaces.base import Archs, Costs, GraphView, SearchSpace
from pyg_nas_np.spaces.described import described_graphs, has_graphs
from pyg_nas_np.spaces.operations import ADD, IDENTITY, INPUT, OUTPUT, POOL, OperationGraphs, OperationView
from pyg_nas_np.utils import InvalidArchitectureError, fixed_defaults

REFERENCE = 1 << 11
"""Architectures that give the scale of attributes and sizes."""

OTHER = "other"
"""The role of kinds that nobody knows."""

ROLES = (
    INPUT, OUTPUT, IDENTITY, ADD, "concat", "mul", POOL, "conv", "separable_conv", "mbconv", "linear", "attention",
    "mixing", "norm", "activation", "message", "recurrent", "embedding", OTHER,
)  # fmt: skip
"""What an operation is for, in the words of all spaces."""

_ROLE_OF: Mapping[str, str] = {
    "sum": ADD, "cat": "concat", "concatenate": "concat", "multiply": "mul", "matmul": "linear",
    "avgpool": POOL, "maxpool": POOL, "pooling": POOL, "global_pool": POOL,
    "conv1d": "conv", "conv2d": "conv", "conv3d": "conv", "conv_transpose": "conv", "projection": "conv",
    "stem": "conv", "dsc": "separable_conv", "sepconv": "separable_conv", "sep_conv": "separable_conv",
    "dil_conv": "separable_conv", "depthwise": "separable_conv", "dwconv": "separable_conv",
    "inverted_residual": "mbconv", "mb": "mbconv",
    "ffn": "linear", "fc": "linear", "dense": "linear", "mlp": "linear", "gemm": "linear", "pre": "linear",
    "post": "linear", "feed_forward": "linear", "sa": "attention", "mha": "attention", "self_attention": "attention",
    "lt": "mixing", "fourier": "mixing", "dft": "mixing", "fft": "mixing", "mixer": "mixing",
    "batch_norm": "norm", "layer_norm": "norm", "bn": "norm", "softmax": "activation", "relu": "activation",
    "gelu": "activation", "sigmoid": "activation", "tanh": "activation", "silu": "activation",
    "lstm": "recurrent", "gru": "recurrent", "rnn": "recurrent", "gnn": "message", "graph_conv": "message",
}  # fmt: skip

ATTRIBUTES = ("kernel", "width", "inner", "heads", "expansion", "stride", "groups", "excited")
"""Attributes in the words of all spaces."""

_ATTRIBUTE_OF: Mapping[str, str] = {
    "kernel_size": "kernel", "k": "kernel", "channels": "width", "out_channels": "width", "hidden": "width",
    "hidden_size": "width", "d_model": "width", "dim": "width", "units": "width", "inner_size": "inner",
    "d_inner": "inner", "d_ff": "inner", "num_heads": "heads", "n_head": "heads", "expand": "expansion",
    "expand_ratio": "expansion", "e": "expansion", "strides": "stride", "se": "excited",
}  # fmt: skip

SIZES = ("parameters", "multiply-accumulates", "depth", "operations")
"""Sizes of a graph in the words of all spaces."""

_SIZE_OF: Mapping[str, str] = {
    "params": SIZES[0], "num_parameters": SIZES[0], "parameters": SIZES[0], "model_size": SIZES[0], "size": SIZES[0],
    "macs": SIZES[1], "flops": SIZES[1], "madds": SIZES[1], "mult_adds": SIZES[1],
}  # fmt: skip


class EncoderInputs(NamedTuple):
    r"""Graphs of ``B`` architectures as inputs of a network.

    Shapes:
        - **x:** ``[N, NODE_CHANNELS]`` float32, role and attributes of each node.
        - **edge_index:** ``[2, E]`` int64, recurrent edges included; those of a graph follow each other.
        - **batch:** ``[N]`` int64, graph of each node, ascending.
        - **sizes:** ``[B, GRAPH_CHANNELS]`` float32.
    """

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    sizes: Tensor

    def to(self, device: torch.device | str) -> EncoderInputs:
        r"""Returns the graphs on a device."""
        return EncoderInputs._make(value.to(device) for value in self)

    def select(self, index: Tensor) -> EncoderInputs:
        r"""Returns the graphs at positions :obj:`index` (int64 ``[K]``), in that order.

        Example:
            >>> edges, batch = torch.tensor([[0, 2], [1, 3]]), torch.tensor([0, 0, 1, 1])
            >>> pair = EncoderInputs(torch.arange(4.0).unsqueeze(1), edges, batch, torch.zeros(2, 1))
            >>> pair.select(torch.tensor([1])).x.flatten().tolist(), pair.select(torch.tensor([1])).edge_index.tolist()
            ([2.0, 3.0], [[0], [1]])
        """
        count = self.sizes.size(0)
        ptr = _starts(self.batch, count)
        owner = self.batch[self.edge_index[1]]
        edge_ptr = _starts(owner, count)
        nodes, new = _ranges(ptr, index)
        edges, of_edge = _ranges(edge_ptr, index)
        begin = _starts(new, index.numel())[:-1]
        shift = (begin - ptr[index])[of_edge]
        return EncoderInputs(self.x[nodes], self.edge_index[:, edges] + shift, new, self.sizes[index])


def _starts(owner: Tensor, count: int) -> Tensor:
    return torch.cat([owner.new_zeros(1), torch.bincount(owner, minlength=count).cumsum(0)])


def _ranges(ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the members of chosen parts, and to which choice each belongs."""
    count = ptr.diff()[index]
    owner = torch.repeat_interleave(torch.arange(index.numel(), device="cpu"), count)
    offset = torch.arange(owner.numel(), device="cpu") - (count.cumsum(0) - count)[owner]
    return ptr[index][owner] + offset, owner


_ROUNDS = 4

NODE_CHANNELS = len(ROLES) + 2 * len(ATTRIBUTES) + 1
GRAPH_CHANNELS = 2 * len(SIZES)


class _Scale(NamedTuple):
    """Mean and standard deviation of each column over the reference; deviation 0 where it does not vary."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Scale:
        known = values.isfinite()
        count = known.sum(dim=0).clamp_min(1)
        mean = values.where(known, 0.0).sum(dim=0) / count
        std = ((values - mean).where(known, 0.0).square().sum(dim=0) / count).sqrt()
        return cls(mean, std.where(std > 1e-9 * (1 + mean.abs()), 0.0))

    def __call__(self, values: Tensor) -> Tensor:
        """Standardised values; 0 where one is unknown or nothing varies."""
        scaled = (values - self.mean) / self.std
        return scaled.where(values.isfinite() & (self.std > 0), 0.0)


class OperationInputs:
    r"""Describes the graphs of any space in the same words, so that one network can read all of them.

    A node has one of :data:`ROLES`, :data:`ATTRIBUTES` as logarithms standardised over the space with marks where they
    are present, and the logarithm of its kernel. A graph has :data:`SIZES`, standardised over the space, with marks.
    Only what lies on a way from an input to an output counts; identities are contracted.

    Args:
        space: A space whose architectures are graphs.

    Raises:
        InvalidArchitectureError: If they are not.

    Example:
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> inputs = OperationInputs(NASBench201Space())(torch.tensor([6111, 0]))
        >>> inputs.x.shape, inputs.edge_index.shape, inputs.sizes.shape
        (torch.Size([13, 36]), torch.Size([2, 17]), torch.Size([2, 8]))
    """

    def __init__(self, space: SearchSpace[Any]) -> None:
        if not has_graphs(space):
            raise InvalidArchitectureError(
                f"{space.name} has no graphs of operations; give it some (OperationView) or take its other features"
            )
        self.space: OperationView[Any] | GraphView[Any] = space

    @fixed_defaults
    def __call__(self, archs: Archs = None) -> EncoderInputs:
        r"""Inputs of many architectures.

        Args:
            archs: Architectures; where the space has an index also official indices, or :obj:`None` for all.
        """
        return self._inputs(archs, *self._scales)

    @fixed_defaults
    def fingerprints(self, archs: Archs = None) -> Tensor:
        r"""A number for each architecture, int64 ``[B]``, equal for equal graphs of operations, whatever the space.

        Roles and attributes count, names of operations do not: two spaces with the same cells under other names are
        told by it.
        """
        live = live_graphs(described_graphs(self.space, archs))
        graphs, place = live.graphs, live.kept.cumsum(0) - 1
        label = _roles(live)
        for column in _values(live).nan_to_num(-1.0).mul(1 << 10).round().long().T:
            label = mixed(label * 31 + column)
        own, (source, target) = label, place[graphs.edge_index]
        for _ in range(_ROUNDS):
            before = torch.zeros_like(label).index_add_(0, target, mixed(label[source] * 3 + 1))
            after = torch.zeros_like(label).index_add_(0, source, mixed(label[target] * 5 + 2))
            label = mixed(own + before * 7 + after * 11)
        return torch.zeros(graphs.num_graphs, dtype=torch.long).index_add_(0, graphs.batch[live.kept], label)

    @property
    def understood(self) -> float:
        r"""Share of the operations of the space, as often as they occur, whose role is known."""
        return self._reference[2]

    @property
    def _scales(self) -> tuple[_Scale, _Scale]:
        return self._reference[:2]

    @cached_property
    @fixed_defaults
    def _reference(self) -> tuple[_Scale, _Scale, float]:
        rows = space_sample(self.space, REFERENCE)
        live = live_graphs(described_graphs(self.space, rows))
        known = _roles(live) != ROLES.index(OTHER)
        share = float(known.double().mean()) if known.numel() else 0.0
        return _Scale.of(_values(live)), _Scale.of(self._sizes(rows, live)), share

    def _inputs(self, archs: Archs, attributes: _Scale, sizes: _Scale) -> EncoderInputs:
        live = live_graphs(described_graphs(self.space, archs))
        values, graphs = _values(live), live.graphs
        kernel = values[:, :1].nan_to_num(0.0)
        x = torch.cat([one_hot(_roles(live), len(ROLES)), attributes(values), values.isfinite(), kernel], dim=1)
        place = live.kept.cumsum(0) - 1
        between = torch.cat([graphs.edge_index, graphs.recurrent_index], dim=1)
        # A contracted node has no edges, but a recurrent one may end at it.
        edges = place[between[:, live.kept[between].all(dim=0)]]
        batch = graphs.batch[live.kept]
        edges = edges[:, batch[edges[1]].argsort(stable=True)]
        total = self._sizes(archs, live)
        marks = (total.isfinite() & (sizes.std > 0)).double()
        return EncoderInputs(x.float(), edges, batch, torch.cat([sizes(total), marks], dim=1).float())

    def _sizes(self, archs: Archs, live: LiveGraphs) -> Tensor:
        """Logarithms of costs that are known, depth and number of operations, ``[B, S]``."""
        count = live.graphs.num_graphs
        found = torch.full((count, len(SIZES)), torch.nan, dtype=torch.float64)
        for name, cost in (self.space.costs(archs) if isinstance(self.space, Costs) else {}).items():
            if (size := _SIZE_OF.get(name.lower())) is not None:
                found[:, SIZES.index(size)] = cost.double().clamp_min(1e-9).log()
        kept = live.kept.double().unsqueeze(1)
        found[:, 2] = path_sums(live, kept).maximum[:, 0]
        found[:, 3] = torch.bincount(live.graphs.batch[live.kept], minlength=count).double()
        return found


def role_of(kind: str) -> str:
    r"""Returns the role of a kind of operation; :data:`OTHER` if it is not known.

    Example:
        >>> role_of("ffn"), role_of("Conv2d"), role_of("teleport")
        ('linear', 'conv', 'other')
    """
    name = kind.lower()
    role = _ROLE_OF.get(name, name)
    return role if role in ROLES else OTHER


def shared_operation_inputs(space: SearchSpace[Any]) -> OperationInputs:
    r"""Returns the inputs of a space, kept with it, so that its scales are computed once.

    Raises:
        InvalidArchitectureError: If the space has no graphs.
    """
    return space.keep(OperationInputs)


def _roles(live: LiveGraphs) -> Tensor:
    """Position in :data:`ROLES` of each kept node, int64."""
    graphs = live.graphs
    return torch.tensor([ROLES.index(role_of(op.kind)) for op in graphs.operations])[graphs.op[live.kept]]


def _values(live: LiveGraphs) -> Tensor:
    """Attributes of the kept nodes in common words, as logarithms where they are positive; NaN where absent."""
    graphs: OperationGraphs = live.graphs
    own = graphs.attributes[live.kept]
    values = torch.full((own.size(0), len(ATTRIBUTES)), torch.nan, dtype=torch.float64)
    for column, name in enumerate(graphs.attribute_names):
        word = _ATTRIBUTE_OF.get(name.lower(), name.lower())
        if word in ATTRIBUTES:
            given = own[:, column]
            place = ATTRIBUTES.index(word)
            values[:, place] = torch.where(given.isnan(), values[:, place], given)
    return torch.where(values > 0, values.log(), values)
