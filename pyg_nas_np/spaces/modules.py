r"""Search spaces of PyTorch modules: a list of them, or a function that builds one from a configuration."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyg_nas_np.spaces.base import Archs
from pyg_nas_np.spaces.configuration import Configuration
from pyg_nas_np.spaces.graphs import CostLike, GraphSpace
from pyg_nas_np.spaces.module_trace import ATTRIBUTES, OPERATIONS, ExampleInputs, Traced, trace
from pyg_nas_np.spaces.operation_graph import pack
from pyg_nas_np.spaces.operations import Operation, OperationGraphs, OperationView
from pyg_nas_np.spaces.parameter_space import ParameterSpace
from pyg_nas_np.utils import InvalidArchitectureError, atomic_path, cache_dir

ModuleLike: TypeAlias = "nn.Module | Callable[[], nn.Module]"
"""A module, or a function without arguments that makes it, which is called on the meta device."""

NUM_REFERENCE = 256
"""How many configurations of a function that builds networks tell how features are scaled."""

_FORMAT = "modules-1"


def traced(module: ModuleLike, example_inputs: ExampleInputs, *, cache: bool = True) -> Traced:
    r"""Returns what :func:`~pyg_nas_np.spaces.module_trace.trace` does, and keeps it on disk.

    The key is the structure of the module: names, classes and settings of its parts, shapes of its parameters, the
    source files of its classes, and the inputs. A module with settings that have no plain text, with hooks, or without
    source files is traced each time.

    Args:
        module: The module, or a function that makes it.
        example_inputs: What it is called with.
        cache: Whether results are looked up and kept in :func:`~pyg_nas_np.utils.cache_dir`.

    Raises:
        InvalidArchitectureError: If it cannot be built or traced.
    """
    made = module if isinstance(module, nn.Module) else _built(module)
    key = _structure(made, example_inputs) if cache else None
    if key is None:
        return trace(made, example_inputs)
    path = cache_dir() / _FORMAT / key[:2] / f"{key}.json"
    try:
        return Traced.from_json(path.read_text())
    except (OSError, UnicodeDecodeError, InvalidArchitectureError):
        found = trace(made, example_inputs)
    with atomic_path(path) as tmp:
        Path(tmp).write_text(found.to_json())
    return found


def _built(build: Callable[..., nn.Module], **config: Any) -> nn.Module:
    function = build.func if isinstance(build, functools.partial) else build
    name = getattr(function, "__name__", type(function).__name__)
    if not callable(build):
        raise InvalidArchitectureError(f"a {name} is neither a torch.nn.Module nor a function that makes one")
    try:
        with torch.device("meta"):
            module = build(**config)
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InvalidArchitectureError(
            f"{name}({', '.join(f'{k}={v!r}' for k, v in config.items())}) failed on the meta device ({problem}); it "
            f"must only build layers, without reading their values"
        ) from error
    if not isinstance(module, nn.Module):
        raise InvalidArchitectureError(f"{name} returned a {type(module).__name__}, not a torch.nn.Module")
    return module


class ModuleSpace(GraphSpace):
    r"""A pool of networks, seen as their graphs of operations. For configurations of a function see :meth:`built`.

    Graphs are traced once, on the meta device: no weight is read, copied or allocated. Only the graphs are kept. Costs
    are ``num_parameters``, ``flops`` (multiply-accumulates of the example inputs), and those given.

    Args:
        modules: The candidates: modules, or functions without arguments that make them, such as
            ``functools.partial(build, depth=3)``, which allocate nothing.
        example_inputs: What they are called with: a tensor, a tuple of arguments, or a dictionary of arguments by name.
        operations: What is known of further operations beforehand.
        costs: Further costs by name: one number a candidate.
        scores: Zero-cost scores by name, of which larger ones are supposed to be better: one number a candidate, NaN
            where unknown.
        cache: Whether graphs are kept on disk, see :func:`traced`.
        name: Name of the space.

    Raises:
        InvalidArchitectureError: If there is no candidate, or one cannot be traced; the message names its position, the
            submodule and the cure.

    Example:
        >>> nets = [nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2)) for width in (4, 16)]
        >>> space = ModuleSpace(nets, torch.empty(1, 8), cache=False)
        >>> space.costs()["num_parameters"].tolist(), [node.op for node in space[0].nodes]
        ([46.0, 178.0], ['input', 'linear', 'relu', 'linear', 'output'])
    """

    def __init__(
        self,
        modules: Sequence[ModuleLike],
        example_inputs: ExampleInputs,
        *,
        operations: Sequence[Operation] = (),
        costs: Mapping[str, CostLike] | None = None,
        scores: Mapping[str, CostLike] | None = None,
        cache: bool = True,
        name: str = "modules",
    ) -> None:
        found = []
        for i, module in enumerate(modules):
            try:
                found.append(traced(module, example_inputs, cache=cache))
            except InvalidArchitectureError as error:
                raise InvalidArchitectureError(f"module {i}: {error}") from error
        sizes: dict[str, CostLike] = {
            "num_parameters": [one.num_parameters for one in found],
            "flops": [one.macs for one in found],
        }
        super().__init__(
            [one.graph for one in found],
            (*OPERATIONS, *operations),
            costs={**sizes, **(costs or {})},
            scores=scores,
            name=name,
        )

    @staticmethod
    def built(
        build: Callable[..., nn.Module],
        parameters: ParameterSpace | Mapping[str, Any],
        example_inputs: ExampleInputs,
        **options: Any,
    ) -> BuiltModuleSpace:
        r"""Returns the space of what a function builds from configurations: :class:`BuiltModuleSpace`."""
        return BuiltModuleSpace(build, parameters, example_inputs, **options)


class BuiltModuleSpace(ParameterSpace, OperationView[Configuration]):
    r"""Configurations of a function that builds networks, with the graphs, parameters and costs of what it builds.

    Args:
        build: ``build(**config)`` returns a module; it is called on the meta device.
        parameters: The parameters of :obj:`build`, as :class:`ParameterSpace` takes them, or such a space.
        example_inputs: What the networks are called with.
        cache: Whether graphs are kept on disk, see :func:`traced`.
        options: Further arguments of :class:`ParameterSpace`.

    Example:
        >>> def build(width, depth):
        ...     layers = [nn.Linear(8, width), *(nn.Linear(width, width) for _ in range(depth))]
        ...     return nn.Sequential(*layers)
        >>> space = BuiltModuleSpace(build, {"width": [4, 16], "depth": [1, 2]}, torch.empty(1, 8), cache=False)
        >>> space.costs([{"width": 16, "depth": 2}])["num_parameters"].tolist()
        [688.0]
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        parameters: ParameterSpace | Mapping[str, Any],
        example_inputs: ExampleInputs,
        *,
        cache: bool = True,
        **options: Any,
    ) -> None:
        if isinstance(parameters, ParameterSpace):
            options = {"name": parameters.name, "pool": parameters.records(parameters.pool), **options}
            parameters = parameters.parameters
        super().__init__(parameters, **options)
        self._build = build
        self._example_inputs = example_inputs
        self._cache = cache
        self._found: dict[Configuration, Traced] = {}

    @property
    def operations(self) -> tuple[Operation, ...]:
        r"""The functions of PyTorch that are known; any other is an operation of its own kind."""
        return OPERATIONS

    @property
    def attribute_names(self) -> tuple[str, ...]:
        r"""Names of the numeric attributes of nodes."""
        return ATTRIBUTES

    def traced(self, arch: Configuration | Mapping[str, Any]) -> Traced:
        r"""Returns graph, parameters and multiply-accumulates of one configuration, found once.

        Raises:
            InvalidArchitectureError: If its network cannot be built or traced; the message has the configuration.
        """
        config = self.check(arch)
        if config not in self._found:
            record = config.to_dict()
            try:
                build = functools.partial(_built, self._build, **record)
                self._found[config] = traced(build(), self._example_inputs, cache=self._cache)
            except InvalidArchitectureError as error:
                raise InvalidArchitectureError(f"configuration {record}: {error}") from error
        return self._found[config]

    def reference(self, n: int, generator: torch.Generator | None = None) -> list[Configuration]:
        r"""Returns at most :data:`NUM_REFERENCE` configurations, because each is built and traced."""
        return super().reference(min(n, NUM_REFERENCE), generator)

    def operation_graphs(self, archs: Archs = None) -> OperationGraphs:
        r"""Returns the graphs of what many configurations build."""
        return pack([self.traced(arch).graph for arch in self.resolve(archs)], OPERATIONS, ATTRIBUTES)

    def costs(self, archs: Archs = None) -> dict[str, Tensor]:
        r"""Returns ``num_parameters``, ``flops`` (multiply-accumulates), and declared costs, float64 ``[B]`` each."""
        found = [self.traced(arch) for arch in self.resolve(archs)]
        sizes = {"num_parameters": [one.num_parameters for one in found], "flops": [one.macs for one in found]}
        columns = {name: torch.tensor(column, dtype=torch.float64, device="cpu") for name, column in sizes.items()}
        return {**columns, **super().costs(archs)}


def _structure(module: nn.Module, example_inputs: ExampleInputs) -> str | None:
    """Digest of all that decides a trace; nothing where it cannot be told."""
    parts: list[Any] = [_FORMAT, torch.__version__]
    for name, part in module.named_modules():
        state = vars(part)
        hooks = [key for key, value in state.items() if key.endswith("_hooks") and value]
        plain = {key: value for key, value in state.items() if not key.startswith("_") and key != "training"}
        source = _source(type(part).__module__)
        if hooks or source is None or not all(_is_plain(value) for value in plain.values()):
            return None
        parts.append([name, type(part).__qualname__, source, sorted((key, _text(v)) for key, v in plain.items())])
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        parts.append([name, list(tensor.shape), str(tensor.dtype), isinstance(tensor, nn.Parameter)])
    leaves = tree_leaves(example_inputs)
    shapes = [(list(x.shape), str(x.dtype)) if isinstance(x, Tensor) else repr(x) for x in leaves]
    if not all(isinstance(x, Tensor) or _is_plain(x) for x in leaves):
        return None
    keys = list(example_inputs) if isinstance(example_inputs, Mapping) else type(example_inputs).__name__
    return hashlib.sha256(json.dumps([parts, shapes, keys]).encode()).hexdigest()


def _text(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if inspect.isfunction(value) else repr(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return True
    # Functions of PyTorch, such as an activation that a layer was given, are as fixed as its version.
    return inspect.isfunction(value) and value.__module__.partition(".")[0] == "torch"


@functools.lru_cache(maxsize=256)
def _source(module: str) -> str | None:
    """Digest of a Python file, read once a process; PyTorch's own are told by its version."""
    if module.partition(".")[0] == "torch":
        return ""
    try:
        return hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()
    except (OSError, TypeError, KeyError):
        return None
