r"""The spaces of the package by name."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from pyg_nas_np.spaces.base import CellSpace
from pyg_nas_np.spaces.mobilenetv3 import MobileNetV3Space
from pyg_nas_np.spaces.nasbench101 import NASBench101Space
from pyg_nas_np.spaces.nasbench201 import NASBench201Space
from pyg_nas_np.spaces.nasbenchgraph import NASBenchGraphSpace

SPACES: dict[str, type[CellSpace[Any]]] = {
    space.name: space for space in (NASBench201Space, NASBench101Space, NASBenchGraphSpace, MobileNetV3Space)
}
"""Classes by :attr:`CellSpace.name`."""


def space_by_name(name: str) -> CellSpace[Any]:
    r"""Returns the space of a name; the same object as long as it is in use, so that its cached values are shared.

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
    space = _SHARED.get(key)
    return _SHARED.setdefault(key, SPACES[key]()) if space is None else space


_SHARED: WeakValueDictionary[str, CellSpace[Any]] = WeakValueDictionary()
