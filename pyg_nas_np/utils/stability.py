r"""The mark of objects that may change without notice."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

DecoratedT = TypeVar("DecoratedT", bound=Callable[..., Any])

_NOTE = "Experimental: its arguments and results may change in any release."


class ExperimentalWarning(FutureWarning):
    r"""An object is used whose interface may change in any release."""


def experimental(decorated: DecoratedT) -> DecoratedT:
    r"""Marks a function or a class as experimental: its first call warns, and its documentation says so.

    A class stays the same class; its :meth:`__init__` warns. Calls of subclasses count.

    Example:
        >>> import warnings
        >>> @experimental
        ... def double(x):
        ...     return 2 * x
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     double(1), double(2)
        (2, 4)
        >>> [str(warning.message) for warning in caught]
        ['double is experimental: its arguments and results may change in any release']
    """
    is_class = isinstance(decorated, type)
    call = decorated.__init__ if is_class else decorated
    warned = False

    @functools.wraps(call)
    def marked(*args: Any, **kwargs: Any) -> Any:
        nonlocal warned
        if not warned:
            warned = True
            message = f"{decorated.__name__} is experimental: its arguments and results may change in any release"
            warnings.warn(message, ExperimentalWarning, stacklevel=2)
        return call(*args, **kwargs)

    documented = decorated if is_class else marked
    documented.__doc__ = f"{inspect.cleandoc(decorated.__doc__ or '')}\n\n.. note::\n    {_NOTE}"
    if is_class:
        setattr(decorated, "__init__", marked)  # noqa: B010 - mypy rejects the assignment
        return decorated
    return cast(DecoratedT, marked)
