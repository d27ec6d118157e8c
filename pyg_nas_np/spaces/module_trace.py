r"""What a network computes, as a graph of operations, without allocating it.

The network runs once on the meta device, which has shapes and no values. Every call of a PyTorch function on a tensor
that depends on the inputs becomes a node; views, copies and dropout become none. Python control flow is followed, so
that nothing has to be exported: :func:`torch.export.export` takes ten times as long for a ResNet-50, and
:func:`torch.fx.symbolic_trace` fails where a shape decides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from pyg_nas_np.spaces.operation_graph import OperationGraph
from pyg_nas_np.spaces.operations import ADD, IDENTITY, POOL, Operation
from pyg_nas_np.utils import InvalidArchitectureError

ExampleInputs: TypeAlias = "Tensor | Sequence[Any] | Mapping[str, Any]"
"""One tensor, positional arguments, or arguments by name."""

ATTRIBUTES = (
    "kernel", "stride", "dilation", "groups", "heads", "in_channels", "channels", "elements", "parameters", "macs",
)  # fmt: skip
"""Attributes of nodes; ``elements`` are those of the output for one example, ``macs`` multiply-accumulates of all."""

_KINDS: Mapping[str, tuple[str, ...]] = {
    "conv": ("conv1d", "conv2d", "conv3d"),
    "conv_transpose": ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "linear": ("linear", "bilinear"),
    "matmul": ("matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "tensordot"),
    "norm": ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize"),
    "activation": (
        "relu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "prelu", "rrelu", "hardswish",
        "hardsigmoid", "hardtanh", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "glu", "threshold",
    ),
    "softmax": ("softmax", "log_softmax"),
    POOL: (
        "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
        "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
        "adaptive_max_pool3d", "lp_pool2d", "mean", "amax",
    ),
    "attention": ("scaled_dot_product_attention", "multi_head_attention_forward"),
    "recurrent": ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    "embedding": ("embedding", "embedding_bag"),
    "upsample": ("interpolate", "upsample", "pixel_shuffle"),
    ADD: ("add", "sub"),
    "mul": ("mul", "div"),
    "concat": ("cat", "stack"),
    IDENTITY: (
        "reshape", "view", "view_as", "flatten", "unflatten", "transpose", "t", "permute", "swapaxes", "movedim",
        "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "roll", "pad", "contiguous", "clone", "detach", "to",
        "float", "half", "type", "type_as", "chunk", "split", "unbind", "getitem", "get", "narrow", "select",
        "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "requires_grad",
    ),
}  # fmt: skip

_ALIASES = {
    "iadd": "add", "radd": "add", "rsub": "sub", "isub": "sub", "imul": "mul", "rmul": "mul", "truediv": "div",
    "itruediv": "div", "rtruediv": "div", "rmatmul": "matmul", "concat": "cat", "concatenate": "cat", "multiply": "mul",
    "true_divide": "div", "divide": "div", "subtract": "sub",
}  # fmt: skip

OPERATIONS = tuple(
    Operation(name, kind) for kind, names in _KINDS.items() if kind != IDENTITY for name in sorted(names)
)
"""The operations that are known; any other function is an operation of its own kind."""

_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}

_ARGUMENTS = {
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv_transpose": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    "linear": ("input", "weight", "bias"),
    POOL: ("input", "kernel_size", "stride"),
    "multi_head_attention_forward": ("query", "key", "value", "embed_dim", "heads"),
    "group_norm": ("input", "groups"),
}


@dataclass(frozen=True)
class Traced:
    r"""What is known of a network without running it.

    Args:
        graph: Its operations.
        num_parameters: Number of its parameters; shared ones count once.
        macs: Multiply-accumulates of one forward pass of the example inputs.
    """

    graph: OperationGraph
    num_parameters: int
    macs: int

    def to_json(self) -> str:
        r"""Returns it as a line of JSON."""
        return json.dumps({"num_parameters": self.num_parameters, "macs": self.macs, "graph": self.graph.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Traced:
        r"""Reads what :meth:`to_json` wrote.

        Raises:
            InvalidArchitectureError: If the text is not of this form.
        """
        try:
            content = json.loads(text)
            return cls(OperationGraph.from_json(content["graph"]), int(content["num_parameters"]), int(content["macs"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArchitectureError(f"{text[:80]!r} is not a traced network") from error


def trace(module: nn.Module, example_inputs: ExampleInputs) -> Traced:
    r"""Returns the graph of operations of a network, its parameters and its multiply-accumulates.

    The network is run in evaluation mode on the meta device, wherever it lives; its weights are neither read nor
    copied.

    Args:
        module: The network.
        example_inputs: What it is called with, as the user would: a tensor, a tuple of arguments, or a dictionary of
            arguments by name. Only shapes and types matter.

    Raises:
        InvalidArchitectureError: If the network cannot be run on these inputs without values; the message names the
            submodule and the cure.

    Example:
        >>> traced = trace(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), torch.empty(1, 8))
        >>> [node.op for node in traced.graph.nodes], traced.num_parameters, traced.macs
        (['input', 'linear', 'relu', 'linear', 'output'], 178, 160)
    """
    if not isinstance(module, nn.Module):
        raise InvalidArchitectureError(f"a {type(module).__name__} is not a torch.nn.Module")
    args, kwargs = _arguments(example_inputs)
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not inputs:
        raise InvalidArchitectureError("example_inputs hold no tensor; give what the network is called with")
    tensors = {name: _on_meta(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    parameters = {id(tensors[name]): tensors[name].numel() for name, _ in module.named_parameters()}
    recorder = _Recorder(inputs, parameters)
    try:
        with _evaluating(module), torch.no_grad(), torch.device("meta"), recorder.counter, recorder:
            outputs = torch.func.functional_call(module, tensors, args, kwargs)
    except Exception as error:
        raise InvalidArchitectureError(_reason(module, error)) from error
    graph = recorder.graph([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)], module)
    return Traced(graph, sum(parameters.values()), recorder.counter.macs)


def _arguments(given: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    moved = tree_map(lambda leaf: _on_meta(leaf) if isinstance(leaf, Tensor) else leaf, given)
    if isinstance(moved, Mapping):
        return (), dict(moved)
    return ((moved,) if isinstance(moved, Tensor) else tuple(moved)), {}


def _on_meta(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.is_meta else torch.empty_like(tensor, device="meta")


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def _reason(module: nn.Module, error: Exception) -> str:
    """What failed where: the innermost submodule that was running."""
    names = {id(part): name for name, part in module.named_modules()}
    where, trail = "", error.__traceback__
    while isinstance(trail, TracebackType):
        where = names.get(id(trail.tb_frame.f_locals.get("self")), where)
        trail = trail.tb_next
    place = f"submodule {where!r} of " if where else ""
    problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    cure = (
        "its values, not shapes alone, decide what it computes; trace a part of it, or give its graph to GraphSpace"
        if "meta" in problem.lower() or isinstance(error, NotImplementedError)
        else "check that example_inputs are what the network is called with"
    )
    return f"{place}{type(module).__name__} cannot be traced ({problem}); {cure}"


class _MACs(TorchDispatchMode):
    """Counts multiply-accumulates as :mod:`torch.utils.flop_counter` does, which counts two operations for each."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.macs += int(count(*args, **kwargs, out_val=out)) // 2
        return out


class _Recorder(TorchFunctionMode):
    """Makes a node of every call on tensors that depend on the inputs."""

    def __init__(self, inputs: Sequence[Tensor], parameters: Mapping[int, int]) -> None:
        super().__init__()
        self.counter = _MACs()
        self.parameters = parameters
        self.nodes: list[tuple[str, dict[str, float]]] = []
        self.edges: list[tuple[int, int]] = []
        # Tensors are held, because another one could get the identity of one that is gone.
        self.made: dict[int, tuple[int, Tensor]] = {}
        for tensor in inputs:
            self._add("input", {"elements": tensor.numel() / max(_batch(tensor), 1)}, [], [tensor])

    def _add(self, op: str, attributes: dict[str, float], sources: Sequence[int], outputs: Sequence[Tensor]) -> None:
        self.edges += [(source, len(self.nodes)) for source in sources]
        self.made.update({id(tensor): (len(self.nodes), tensor) for tensor in outputs})
        self.nodes.append((op, attributes))

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = self.counter.macs
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        name = _ALIASES.get(name, name)
        written = name == "setitem"
        outputs = [args[0]] if written else [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not outputs:
            return out
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        sources = [self.made[id(tensor)][0] for tensor in given if id(tensor) in self.made]
        if not sources:
            return out
        if _KIND_OF.get(name) == IDENTITY and len(set(sources)) == 1:
            self.made.update({id(tensor): (sources[0], tensor) for tensor in outputs})
            return out
        attributes = _attributes(name, args, kwargs, outputs[0])
        held = sum(self.parameters.get(id(tensor), 0) for tensor in given)
        costs = {"parameters": held, "macs": self.counter.macs - before}
        attributes |= {cost: float(value) for cost, value in costs.items() if value}
        self._add(name, attributes, sources, outputs)
        return out

    def graph(self, outputs: Sequence[Tensor], module: nn.Module) -> OperationGraph:
        """Returns the graph, with a node behind all outputs."""
        sources = [self.made[id(tensor)][0] for tensor in outputs if id(tensor) in self.made]
        if not sources:
            raise InvalidArchitectureError(
                f"no output of {type(module).__name__} depends on example_inputs; return a tensor, or a tuple or "
                f"dictionary of tensors, that is computed from them"
            )
        self._add("output", {}, sources, [])
        return OperationGraph.of(self.nodes, self.edges)


def _attributes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> dict[str, float]:
    kind = _KIND_OF.get(name, name)
    names = _ARGUMENTS.get(name, _ARGUMENTS.get(kind, ()))
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    channels_first = out.dim() >= 4 or kind in ("conv", "conv_transpose")
    found: dict[str, Any] = {"elements": out.numel() / max(_batch(out), 1)}
    if out.dim() > 1:
        found["channels"] = out.size(1 if channels_first else -1)
    weight = given.get("weight")
    if kind in ("conv", "conv_transpose") and isinstance(weight, Tensor):
        found |= {"kernel": tuple(weight.shape[2:]), "in_channels": given["input"].size(1)}
        found |= {key: given.get(key, 1) for key in ("stride", "dilation", "groups")}
    elif kind == "linear" and isinstance(weight, Tensor):
        found["in_channels"] = weight.size(-1)
    elif kind == POOL and "kernel_size" in given and not name.startswith("adaptive") and name not in ("mean", "amax"):
        found |= {"kernel": given["kernel_size"], "stride": given.get("stride") or given["kernel_size"]}
    elif name == "scaled_dot_product_attention" and args and args[0].dim() == 4:
        found["heads"] = args[0].size(1)
    elif name == "multi_head_attention_forward":
        found["heads"] = given.get("num_heads", given.get("heads"))
    elif name == "group_norm":
        found["groups"] = given.get("num_groups", given.get("groups"))
    return {key: number for key, value in found.items() if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    """One number for a size in every direction: their geometric mean."""
    if isinstance(value, tuple | list):
        return math.prod(value) ** (1 / len(value)) if value and all(isinstance(v, int) for v in value) else None
    return float(value) if isinstance(value, int | float) else None


def _batch(tensor: Tensor) -> int:
    return tensor.size(0) if tensor.dim() else 1
