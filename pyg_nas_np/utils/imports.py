r"""Import of optional dependencies, with errors that name the extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from pyg_nas_np.utils.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    r"""Imports :obj:`module`, an optional dependency.

    Args:
        module: Dotted name of the module.
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: If the module's top-level package is not installed. Any other failure of the import, such as
            a module that an installed package lacks or cannot load, is raised as it is.

    Example:
        >>> require("json", "data").loads("[1, 2]")
        [1, 2]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name != top:
            raise
        raise MissingExtraError(top, extra) from error
