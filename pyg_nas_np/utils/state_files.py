r"""States and weights on disk: one reader with one guard for the files of PyTorch, one for those of safetensors."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save_file
from torch import Tensor, nn

from pyg_nas_np.utils.errors import DataFileError
from pyg_nas_np.utils.files import atomic_path, foreign_file, open_regular, read_bytes

PathLike: TypeAlias = "str | os.PathLike[str]"
Kinds: TypeAlias = "Mapping[str, type | tuple[type, ...]]"
"""What a state must hold: key → type."""

DIGEST = "sha256"
"""Entry of a safetensors file's metadata: digest of its tensors."""


# -- files of torch.save ----------------------------------------------------------------------------------------------


def write_state(path: PathLike, state: Mapping[str, Any]) -> None:
    r"""Writes tensors and plain types with :func:`torch.save`, atomically.

    Raises:
        UnwritableFileError: If the disk is full, or the folder cannot be written.
    """
    with atomic_path(path) as tmp, open(tmp, "wb") as file:
        torch.save(dict(state), file)


def read_state(
    path: PathLike, what: str, required: Kinds, *, form: str = "", finite: bool = True, cure: str = "write it again"
) -> dict[str, Any]:
    r"""Reads a state of tensors and plain types; runs no code from the file.

    Args:
        path: The file.
        what: What it should be, ``"a saved predictor"``.
        required: Keys that it must have, and their types.
        form: What it must have as ``format``. (default: anything)
        finite: Whether NaN and infinite values of tensors are refused.
        cure: What the user can do about a damaged file.

    Raises:
        DataFileError: If the file is missing, damaged (its checksums are verified) or something else, a key is missing
            or of another type, or a tensor is not finite. The message names the file, the entry and the cure.
    """
    data = read_bytes(path)
    with foreign_file(path, what, cure):
        state = load_torch(data)
    return check_state(state, path, what, required, form=form, finite=finite, cure=cure)


def load_torch(data: bytes, *, verify: bool = True) -> Any:
    r"""Returns what :func:`torch.save` wrote, tensors and plain types only, on the CPU.

    Args:
        data: The file's content.
        verify: Whether the checksums of its parts are verified, which :func:`torch.load` does not do.

    Raises:
        Exception: Anything, if the content is damaged; see :func:`~pyg_nas_np.utils.files.foreign_file`.
    """
    # Older formats of torch.save have no checksums and other unpicklers.
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(info.file_size for info in archive.infolist()) > len(data):
            raise DataFileError("a part of the file claims more bytes than there are")
        if verify and (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"bad checksum of {damaged}")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's message tells how to load the file all the same, which would run its code.
        found = re.search(r"GLOBAL (\S+)", str(error))
        name = f", and this asks for {found[1]}" if found else ""
        raise pickle.UnpicklingError(f"only tensors and plain types are read{name}") from error


def check_state(
    state: Any, path: PathLike, what: str, required: Kinds, *, form: str = "", finite: bool = True, cure: str = ""
) -> dict[str, Any]:
    r"""Checks format, keys, types and tensors of a state, as :func:`read_state` does, and returns it.

    Raises:
        DataFileError: If one is wrong.
    """
    name, end = os.fspath(path), f"; {cure}" if cure else ""
    if not isinstance(state, dict):
        raise DataFileError(f"{name} is not {what} but holds a {type(state).__name__}{end}")
    if form and state.get("format") != form:
        raise DataFileError(f"{name} is not {what}: its format is {state.get('format')!r:.80}, expected {form!r}{end}")
    for key, kind in required.items():
        if key not in state:
            raise DataFileError(f"{name} is not {what}: '{key}' is missing{end}")
        if not isinstance(state[key], kind):
            names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise DataFileError(f"{name}: '{key}' is a {type(state[key]).__name__}, expected {names}{end}")
    for where, tensor in _tensors(state, ""):
        if problem := _tensor_problem(tensor, finite):
            raise DataFileError(f"{name}: '{where}' {problem}{end}")
    return state


def _tensors(value: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    # A state may contain itself; no state of this package is nested so deeply.
    if where.count("/") > 32:
        raise DataFileError(f"'{where[:60]}…' is nested too deeply for a state of this package")
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{where}/{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{where}/{i}")


def _tensor_problem(tensor: Tensor, finite: bool) -> str:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return f"is not a plain tensor ({tensor.layout}, {tensor.device})"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"claims the shape {list(tensor.shape)}, for which there are not enough bytes"
    if finite and (tensor.is_floating_point() or tensor.is_complex()) and not bool(tensor.isfinite().all()):
        return "has values that are NaN or infinite"
    return ""


# -- safetensors ------------------------------------------------------------------------------------------------------


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    r"""Writes a safetensors file atomically, with a digest of its tensors that :func:`read_tensors` verifies.

    Raises:
        UnwritableFileError: If the disk is full, or the folder cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as tmp:
        save_file(plain, tmp, {**metadata, DIGEST: _digest(plain)})


def read_tensors(
    path: PathLike, form: str = "", required: Sequence[str] = (), *, infinite: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, Tensor]]:
    r"""Reads a safetensors file.

    Args:
        path: The file.
        form: What its metadata must have as ``format``. (default: anything)
        required: Further entries that its metadata must have.
        infinite: Names of tensors that may hold NaN or infinite values. (default: none)

    Returns:
        The metadata, and the tensors by name.

    Raises:
        DataFileError: If the file is missing, corrupt or of another format, an entry is missing, or a tensor is NaN
            or infinite.
    """
    data = read_bytes(path)
    with foreign_file(path, "a safetensors file"):
        tensors = load_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata: dict[str, str] = header.get("__metadata__") or {}
    name = os.fspath(path)
    _check_metadata(metadata, name, form, required)
    for key, tensor in tensors.items():
        if problem := _tensor_problem(tensor, key not in infinite):
            raise DataFileError(f"{name}: tensor '{key}' {problem}; get the file again")
    if metadata.get(DIGEST, "") not in ("", _digest(tensors)):
        raise DataFileError(f"{name} is corrupt: its tensors do not have the digest that it states; get it again")
    return metadata, tensors


def read_metadata(path: PathLike, form: str = "", required: Sequence[str] = ()) -> dict[str, str]:
    r"""Returns the metadata of a safetensors file, whatever values its tensors have.

    Args:
        path: The file.
        form: What it must have as ``format``. (default: anything)
        required: Further entries that it must have.

    Raises:
        DataFileError: If the file is missing, cut or of another format, or an entry is missing.
    """
    with open_regular(path), foreign_file(path, "a safetensors file"), safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    _check_metadata(metadata, os.fspath(path), form, required)
    return metadata


def _check_metadata(metadata: Mapping[str, str], name: str, form: str, required: Sequence[str]) -> None:
    if form and metadata.get("format") != form:
        raise DataFileError(f"{name} has format {metadata.get('format')!r:.80}, expected {form!r}")
    for entry in required:
        if entry not in metadata:
            raise DataFileError(f"{name} lacks the entry '{entry}' in its metadata; it is not a file of this package")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], path: PathLike) -> None:
    r"""Puts tensors of a file into a module.

    The module may lie on the ``meta`` device, so that nothing is allocated or drawn for weights that are replaced.

    Args:
        module: The module.
        tensors: Its state by name.
        path: How messages call the file.

    Raises:
        DataFileError: If a tensor is missing, has another shape or kind, or there is one more. The module is unchanged.
    """
    own, name = module.state_dict(), os.fspath(path)
    if missing := sorted(own.keys() - tensors.keys()):
        raise DataFileError(f"{name} lacks the tensor '{missing[0]}'; it was written for another network")
    if extra := sorted(tensors.keys() - own.keys()):
        raise DataFileError(f"{name} holds the tensor '{extra[0]}', which the network does not have")
    for key, tensor in own.items():
        given = tensors[key]
        if not isinstance(given, Tensor) or given.shape != tensor.shape:
            raise DataFileError(f"{name}: tensor '{key}' must have shape {list(tensor.shape)}, not {_shape(given)}")
        if given.is_floating_point() != tensor.is_floating_point():
            raise DataFileError(f"{name}: tensor '{key}' is {given.dtype}, the network has {tensor.dtype}")
    module.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in own.values()))


def _shape(given: Any) -> str:
    return str(list(given.shape)) if isinstance(given, Tensor) else type(given).__name__


def read_json(metadata: Mapping[str, str], entry: str, kind: type, path: PathLike) -> Any:
    r"""Returns an entry of the metadata that is JSON.

    Raises:
        DataFileError: If it is missing, not JSON, or not of the type :obj:`kind`.
    """
    with foreign_file(path, "a file of this package"):
        value = json.loads(metadata[entry])
    if not isinstance(value, kind):
        raise DataFileError(f"{os.fspath(path)}: '{entry}' is a {type(value).__name__}, expected {kind.__name__}")
    return value
