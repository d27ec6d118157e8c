r"""Late imports of a package's public names (:pep:`562`), so that its ``__init__`` stays a table of contents."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
import sys
from typing import Any


def attach(package: str) -> None:
    r"""Imports a package's names and modules when they are first asked for.

    The names are those that ``__init__`` imports under ``if TYPE_CHECKING:``, where type checkers and editors see them
    too: one list serves everybody, as in the stub files of ``lazy_loader``. A name that is also a module of the package
    has to be imported at once, because Python sets the package's attribute when it loads that module.

    Args:
        package: The ``__name__`` of the calling ``__init__``.

    Example:
        >>> import pyg_nas_np
        >>> pyg_nas_np.metrics.KendallTau.__module__
        'pyg_nas_np.metrics.ranking'
    """
    module = sys.modules[package]

    def __getattr__(name: str) -> Any:
        if name in (sources := _sources(package)):
            value = getattr(importlib.import_module(sources[name]), name)
            setattr(module, name, value)
            return value
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*vars(module), *module.__all__})

    # Set here, not returned: a type checker that sees ``__getattr__`` in a module lets every misspelt name pass.
    vars(module).update(__getattr__=__getattr__, __dir__=__dir__)


@functools.cache
def _sources(package: str) -> dict[str, str]:
    """The modules of the names that a package imports for type checkers."""
    try:
        source = pkgutil.get_data(package, "__init__.py")
    except FileNotFoundError:
        source = None
    if source is None:
        raise ImportError(f"the source of {package} is missing, which says where its names live; ship its .py files")
    sources: dict[str, str] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for line in statement.body:
                if isinstance(line, ast.ImportFrom) and line.module is not None:
                    sources |= {alias.name: line.module for alias in line.names}
    return sources
