r"""Unpickling of untrusted files without running anything that they name."""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from pyg_nas_np.utils.errors import DataFileError, ForbiddenPickleError
from pyg_nas_np.utils.files import foreign_file

Allowed = Mapping[tuple[str, str], Any]
"""Maps ``(module, name)`` to the replacement of that global: a function or a type."""

_CHECKED = 1 << 24
"""Bytes up to which the memo of a pickle is checked; beyond, and in streams, the check would take too long."""

_PLAIN = frozenset(f"{kind}{size}" for kind, sizes in {"f": "248", "i": "1248", "u": "1248"}.items() for size in sizes)


def load_pickle(file: IO[bytes], *, allowed: Allowed | None = None, label: str = "pickle") -> Any:
    r"""Unpickles an untrusted file, resolving only globals on an allow-list.

    The pickle can only call the replacements of globals; it cannot set their attributes.

    Args:
        file: The open binary file.
        allowed: Maps ``(module, name)`` to its replacement. (default: no global at all)
        label: Name of the file in messages.

    Raises:
        ForbiddenPickleError: If the pickle asks for any other global.
        DataFileError: If the pickle is truncated or corrupt.

    Example:
        >>> import io
        >>> load_pickle(io.BytesIO(pickle.dumps({"000000": [9.5]})))
        {'000000': [9.5]}
        >>> load_pickle(io.BytesIO(pickle.dumps(print)), label="table.pkl")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        pyg_nas_np.utils.errors.ForbiddenPickleError: table.pkl asks for the global 'builtins.print', ...
    """
    with foreign_file(label, "a pickle of its format"):
        if file.seekable():
            start = file.tell()
            head = file.read(_CHECKED + 1)
            # Several pickles may follow each other, so that this one is read from the file itself.
            file.seek(start)
            if len(head) <= _CHECKED:
                _check_memo(head)
        return _AllowListUnpickler(file, allowed or {}, label).load()


def _check_memo(content: bytes) -> None:
    """The unpickler allocates as much memory as a number in the memo says: 64 GB for ten bytes."""
    digits = np.frombuffer(content, dtype=np.uint8)
    long_puts = np.flatnonzero(digits[:-4] == ord("r")) if digits.size > 4 else np.empty(0, dtype=np.intp)
    numbers = sum(digits[long_puts + 1 + i].astype(np.int64) << 8 * i for i in range(4))
    if not np.any(numbers > len(content)) and re.search(rb"p\d{8}", content) is None:
        return
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int) and argument > len(content):
            raise pickle.UnpicklingError(f"object {argument} in a memo of {len(content)} bytes")


class _AllowListUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], allowed: Allowed, label: str) -> None:
        super().__init__(file)
        self._allowed = allowed
        self._label = label

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self._allowed[module, name]
        except KeyError:
            raise ForbiddenPickleError(
                f"{self._label} asks for the global '{module}.{name}', which is not part of its format. "
                f"The file was not loaded; get it from its official source."
            ) from None
        # Attributes of types that are part of the interpreter cannot be set.
        heap_type = 1 << 9
        return found if isinstance(found, type) and not found.__flags__ & heap_type else _Callable(found)


class _Callable:
    """A callable for pickles; any state for it is refused."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for a global")


def numpy_scalar_globals() -> dict[tuple[str, str], Any]:
    r"""Returns the allow-list entries for NumPy's numbers, under the module names of NumPy 1 and 2.

    NumPy's constructors trust the pickle: a forged object type makes them read any address.
    """
    return {
        ("numpy", "dtype"): _NumberType,
        ("numpy.core.multiarray", "scalar"): _number,
        ("numpy._core.multiarray", "scalar"): _number,
    }


class _NumberType:
    """Replaces the dtype of a plain number."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if code not in _PLAIN and code != "b1":
            raise DataFileError(f"a number has the type {code!r:.40}; only plain integers and floats are read")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, itemsize, alignment, flags)
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
            raise DataFileError("the type of a number has a state that NumPy does not write")
        if state[2:] != (None, None, None, -1, -1, 0):
            raise DataFileError("a number has a structured type; only plain integers and floats are read")
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: Any, data: Any) -> Any:
    if type(kind) is not _NumberType or type(data) is not bytes or len(data) != kind.dtype.itemsize:
        raise DataFileError("a number does not have the bytes of its type")
    return np.frombuffer(data, dtype=kind.dtype)[0]


class Ignored:
    r"""Replaces objects of a pickle that are not needed: it drops its arguments and its state."""

    __slots__ = ()

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    r"""Replaces ``_codecs.encode``, with which pickles of protocol 2 and below encode bytes."""
    if encoding != "latin1":
        raise DataFileError(f"bytes are spelled in {encoding!r:.40}; pickle writes latin1")
    return text.encode("latin1")
