r"""Reading files from outside safely and writing our own atomically."""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyg_nas_np.utils.errors import ChecksumError, DataFileError, ForbiddenPickleError


def cache_dir() -> Path:
    r"""Returns the folder of regenerable files, ``$PYG_NAS_NP_CACHE`` or the system's cache folder."""
    import pooch

    path = Path(os.environ.get("PYG_NAS_NP_CACHE") or pooch.os_cache("pyg_nas_np"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    r"""Yields a temporary path that is renamed to :obj:`path` on success and removed on failure.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "x.txt") as tmp:
        ...         _ = tmp.write_text("done")
        ...     (Path(folder) / "x.txt").read_text()
        'done'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because numpy.savez and matplotlib choose the format by it. A file of tempfile would be private
    # to the user; this one follows the umask, which cannot be read without changing it for all threads.
    tmp = target.with_name(f".{target.stem}.{secrets.token_hex(8)}{target.suffix}")
    tmp.touch(exist_ok=False)
    try:
        yield tmp
        os.replace(tmp, target)
    finally:
        tmp.unlink(missing_ok=True)


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    r"""Returns the hexadecimal digest of a file, read in blocks of 1 MiB.

    Example:
        >>> from tempfile import NamedTemporaryFile
        >>> with NamedTemporaryFile() as file:
        ...     file_digest(file.name, "md5")
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: str | os.PathLike[str], expected: str) -> None:
    r"""Compares a file with its published SHA-256.

    Raises:
        ChecksumError: If they differ; the message names both digests.
    """
    actual = file_digest(path)
    if actual != expected:
        raise ChecksumError(
            f"{os.fspath(path)} has SHA-256 {actual}, expected {expected}: the file is damaged or another version. "
            f"Delete it and download it again."
        )


class _AllowListUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], allowed: Mapping[tuple[str, str], Any], label: str) -> None:
        super().__init__(file)
        self._allowed = allowed
        self._label = label

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise ForbiddenPickleError(
                f"{self._label} asks for the global '{module}.{name}', which is not part of its format. "
                f"The file was not loaded; get it from its official source."
            ) from None


def read_tensors(path: str | os.PathLike[str], form: str = "") -> tuple[dict[str, str], dict[str, Tensor]]:
    r"""Reads a safetensors file.

    Args:
        path: The file.
        form: What its metadata must have as ``format``. (default: anything)

    Returns:
        The metadata, and the tensors by name.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataFileError(f"{os.fspath(path)} is missing, corrupt or not a safetensors file ({error})") from error
    if form and metadata.get("format") != form:
        raise DataFileError(f"{os.fspath(path)} has format {metadata.get('format')!r}, expected {form!r}")
    return metadata, tensors


def load_pickle(file: IO[bytes], *, allowed: Mapping[tuple[str, str], Any] | None = None, label: str = "pickle") -> Any:
    r"""Unpickles a foreign file, resolving only globals on an allow-list.

    Args:
        file: The open binary file.
        allowed: Maps ``(module, name)`` to the object that stands for it. (default: no global at all)
        label: How messages call the file.

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
    try:
        return _AllowListUnpickler(file, allowed or {}, label).load()
    except ForbiddenPickleError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
        TypeError,
        OverflowError,
    ) as error:
        raise DataFileError(f"{label} is truncated or corrupt ({type(error).__name__}: {error}).") from error


def numpy_scalar_globals() -> dict[tuple[str, str], Any]:
    r"""Returns the allow-list entries for NumPy scalars, under the module names of NumPy 1 and 2."""
    import numpy as np

    scalar = np.float64(0.0).__reduce__()[0]
    return {
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy._core.multiarray", "scalar"): scalar,
    }
