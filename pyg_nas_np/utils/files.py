r"""Reading files from outside safely and writing our own atomically."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from pyg_nas_np.utils.errors import ChecksumError, DataFileError, NASError, UnwritableFileError

STALE_SECONDS = 86_400.0
"""Age from which a temporary file is assumed to be left over from a killed program."""


def cache_dir() -> Path:
    r"""Returns the folder of regenerable files, ``$PYG_NAS_NP_CACHE`` or the system's cache folder."""
    import pooch

    path = Path(os.environ.get("PYG_NAS_NP_CACHE") or pooch.os_cache("pyg_nas_np"))
    path.mkdir(parents=True, exist_ok=True)
    return path


# -- reading ----------------------------------------------------------------------------------------------------------


def max_bytes() -> int:
    r"""Returns the largest size of an unpacked file in memory, in bytes: ``$PYG_NAS_NP_MAX_BYTES``, or 4 GiB.

    Raises:
        ValueError: If the variable is not a positive whole number.
    """
    text = os.environ.get("PYG_NAS_NP_MAX_BYTES") or str(1 << 32)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"PYG_NAS_NP_MAX_BYTES must be a positive number of bytes, got {text!r}")
    return int(text)


@contextmanager
def foreign_file(path: str | os.PathLike[str], what: str, cure: str = "get it again") -> Iterator[None]:
    r"""Converts the exceptions of a reader of a damaged file to a :class:`DataFileError`.

    Readers of other packages raise many types of exceptions: pickle alone has a dozen for damaged input. The body
    should contain only the reading; errors of this package pass unchanged.

    Args:
        path: The file.
        what: What it should be, ``"a saved predictor"``.
        cure: What the user can do about it.

    Raises:
        DataFileError: With the name of the file, the problem and the cure.

    Example:
        >>> with foreign_file("x.pt", "a saved search"):
        ...     {}["index"]
        Traceback (most recent call last):
        pyg_nas_np.utils.errors.DataFileError: x.pt is corrupt or not a saved search (KeyError: 'index'); get it again
    """
    try:
        yield
    except NASError:
        raise
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".strip(": ").split())
        raise DataFileError(f"{os.fspath(path)} is corrupt or not {what} ({problem[:300]}); {cure}") from error


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    r"""Opens a file for reading, and refuses pipes and devices, which could block or never end.

    Raises:
        DataFileError: If there is no such file, it may not be read, or it is not a regular one.
    """
    name = os.fspath(path)

    def opener(given: str, flags: int) -> int:
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        handle = os.open(given, flags | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise DataFileError(f"{name} is not a regular file but a folder, pipe or device; name a file")
        return handle

    try:
        return open(path, "rb", opener=opener)
    except FileNotFoundError as error:
        raise DataFileError(f"{name} is missing; check the path") from error
    except OSError as error:
        raise DataFileError(f"{name} cannot be read ({error.strerror}); check its permissions") from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    r"""Returns the content of a regular file of at most :func:`max_bytes`.

    Raises:
        DataFileError: As :func:`open_regular`, or if the file is too large.
    """
    with open_regular(path) as file:
        check_size(path, os.fstat(file.fileno()).st_size)
        try:
            return file.read()
        except OSError as error:
            raise DataFileError(f"{os.fspath(path)} cannot be read ({error.strerror})") from error


def check_size(path: str | os.PathLike[str], size: int) -> None:
    r"""Refuses what would take more than :func:`max_bytes` of memory.

    Raises:
        DataFileError: If :obj:`size` is larger.
    """
    if size > max_bytes():
        raise DataFileError(
            f"{os.fspath(path)} holds or unpacks to {size} bytes or more, the limit is {max_bytes()}; if the file is "
            f"sound, raise the environment variable PYG_NAS_NP_MAX_BYTES"
        )


class LimitedReader(io.RawIOBase):
    r"""A stream of unpacked bytes with a size limit.

    Args:
        file: The stream.
        path: Its name in messages.
        limit: Number of bytes. (default: :func:`max_bytes`)
    """

    def __init__(self, file: IO[bytes], path: str | os.PathLike[str], limit: int | None = None) -> None:
        self._file, self._path = file, path
        self._limit = max_bytes() if limit is None else limit
        self._count = 0

    def readable(self) -> bool:
        r"""Whether bytes can be read: they can."""
        return True

    def readinto(self, buffer: Any) -> int:
        r"""Fills a buffer, and returns the number of bytes read."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if self._count > self._limit:
            check_size(self._path, self._count)
        return len(data)


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    r"""Returns the hexadecimal digest of a file, read in blocks of 1 MiB.

    Raises:
        DataFileError: If the file is missing, or not a regular one.

    Example:
        >>> from tempfile import NamedTemporaryFile
        >>> with NamedTemporaryFile() as file:
        ...     file_digest(file.name, "md5")
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    digest = hashlib.new(algorithm)
    with open_regular(path) as file:
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


# -- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def only_user(path: str | os.PathLike[str]) -> Iterator[None]:
    r"""Keeps other processes from the same block while the body runs; freed if this process is killed.

    For a file that is read, changed and written again. The lock is a hidden file beside it.

    Raises:
        DataFileError: If another process is in such a block.
        UnwritableFileError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, only_user(f"{folder}/s.pt"):
        ...     pass
    """
    from filelock import FileLock, Timeout

    place = Path(path)
    lock = FileLock(place.with_name(f".{place.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise DataFileError(
            f"{place} is in use by another process; wait until it has ended, or give another file"
        ) from None
    except OSError as error:
        raise UnwritableFileError(
            f"{place.parent} cannot be written to ({error.strerror}); give another file"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    r"""Yields a temporary path that is renamed to :obj:`path` on success and removed on failure.

    Temporary files of killed programs are removed after a day, when the same file is written again. Pipes and devices,
    such as ``/dev/stdout``, get the bytes of the finished file: a file in the place of a device would be there for all.

    Raises:
        UnwritableFileError: If the disk is full, or the folder cannot be written.

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
    # The suffix is kept because numpy.savez and matplotlib choose the format by it. A file of tempfile would be private
    # to the user; this one follows the umask, which cannot be read without changing it for all threads.
    stream = _is_stream(target)
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    tmp = folder / f".{target.stem}.{secrets.token_hex(8)}{target.suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not stream:
            _remove_stale(target)
        tmp.touch(exist_ok=False)
        yield tmp
        if stream:
            with tmp.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            os.replace(tmp, target)
    except Exception as error:
        if (cause := _write_error(error, (tmp, *tmp.parents, target))) is None:
            raise
        raise UnwritableFileError(
            cause.errno, f"{target} cannot be written ({cause.strerror}); free space or name another folder"
        ) from error
    finally:
        with suppress(OSError):
            tmp.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    # These links lead to a file where the output is redirected to one.
    if os.fspath(path) in ("/dev/stdout", "/dev/stderr"):
        return True
    with suppress(OSError):  # what cannot be looked at is told where it is written
        mode = path.stat().st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    return False


_DISK = frozenset(
    getattr(errno, name)
    for name in (
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EROFS",
        "EACCES",
        "EPERM",
        "ENOTDIR",
        "EISDIR",
        "EEXIST",
        "ENAMETOOLONG",
        "EIO",
    )
    if hasattr(errno, name)
)


def _write_error(error: BaseException, own: Sequence[Path]) -> OSError | None:
    """The operating system's error that caused that of a writer, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UnwritableFileError):
            return None
        ours = isinstance(seen, OSError) and (not isinstance(seen.filename, str) or Path(seen.filename) in own)
        if isinstance(seen, OSError) and ours and seen.errno in _DISK and not isinstance(error, NASError):
            return seen
        seen = seen.__cause__ or seen.__context__
    # torch.save reports a full disk only by the position of its stream, safetensors only by its message.
    text = str(error)
    if isinstance(error, SafetensorError) and (number := re.search(r"os error (\d+)", text)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if type(error) is RuntimeError and re.search(r"unexpected pos|PytorchStreamWriter|inline_container", text):
        return OSError(errno.ENOSPC, "the disk is full, or refuses to be written")
    return None


def _remove_stale(target: Path) -> None:
    """Removes temporary files of the target that are too old to be in use."""
    pattern = re.compile(rf"\.{re.escape(target.stem)}\.[0-9a-f]{{16}}{re.escape(target.suffix)}")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            # Another program may have removed the same file.
            if entry.name.startswith(".") and pattern.fullmatch(entry.name):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)
