r"""The spaces of the package by name."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from pyg_nas_np.spaces.base import CellSpace, SearchSpace
from pyg_nas_np.spaces.inference import InferredSpace
from pyg_nas_np.spaces.mobilenetv3 import MobileNetV3Space
from pyg_nas_np.spaces.nasbench101 import NASBench101Space
from pyg_nas_np.spaces.nasbench201 import NASBench201Space
from pyg_nas_np.spaces.nasbenchgraph import NASBenchGraphSpace
from pyg_nas_np.spaces.parameter_space import ParameterSpace
from pyg_nas_np.utils.errors import InvalidSpaceError

SPACES: dict[str, type[CellSpace[Any]]] = {
    space.name: space for space in (NASBench201Space, NASBench101Space, NASBenchGraphSpace, MobileNetV3Space)
}
"""Classes by :attr:`CellSpace.name`."""


SpaceT = TypeVar("SpaceT", bound=SearchSpace[Any])


def space_by_name(name: str) -> CellSpace[Any]:
    r"""Returns the space of a name, by :func:`shared_space`.

    Args:
        name: Key of :data:`SPACES`; hyphens and case are ignored (``"NAS-Bench-201"``).

    Raises:
        ValueError: If there is no such space.

    Example:
        >>> space_by_name("nasbench201")
        NASBench201Space(15625, dataset='cifar10')
    """
    key = name.replace("-", "").lower()
    if key not in SPACES:
        raise ValueError(f"no search space is called {name!r}; there are {', '.join(SPACES)}")
    return shared_space(SPACES[key])


def shared_space(kind: type[SpaceT], **arguments: Any) -> SpaceT:
    r"""Returns the space of a class and arguments; the same object as long as it is in use.

    Tables of descriptors are kept with their space: data sets and predictors of one space then compute them once.

    Args:
        kind: The class.
        arguments: Of its constructor.

    Example:
        >>> shared_space(NASBench201Space, dataset="cifar10") is space_by_name("nasbench201")
        True
    """
    made = kind(**arguments)
    bound = signature(kind).bind(**arguments)
    bound.apply_defaults()
    shared = _SHARED.setdefault((kind, *map(repr, bound.arguments.values())), made)
    return cast("SpaceT", shared)


def declared_space(declaration: Mapping[str, Any]) -> ParameterSpace:
    r"""Makes a space again, the inverse of :meth:`SearchSpace.declaration <pyg_nas_np.spaces.SearchSpace.declaration>`.

    Raises:
        InvalidSpaceError: If it is not such a declaration.

    Example:
        >>> space = ParameterSpace.from_records([{"depth": 2, "act": "relu"}, {"depth": 4, "act": "gelu"}])
        >>> declared_space(space.declaration()).pool == space.pool
        True
    """
    try:
        kind, space, pool = DECLARED[declaration["kind"]], declaration["space"], list(declaration["pool"])
        known = {key: dict(declaration[key]) for key in ("costs", "scores")}
    except (LookupError, TypeError, ValueError) as error:
        raise InvalidSpaceError(f"a declared space has a kind, a space, costs, scores and a pool; {error!r}") from error
    return kind.from_dict(space, **known, pool=pool)


DECLARED: dict[str, type[ParameterSpace]] = {kind.__name__: kind for kind in (ParameterSpace, InferredSpace)}
"""Classes of spaces that a file can declare, by name."""

_SHARED: WeakValueDictionary[tuple[object, ...], SearchSpace[Any]] = WeakValueDictionary()
