r"""Choice of the back end of the operators, and of whether argument values are checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyg_nas_np.ops import cpu, cuda
from pyg_nas_np.utils import BackendUnavailableError

BACKENDS = ("auto", "reference", "cpu", "cuda")

# Plain module globals: torch.compile guards on them, and the autograd threads of a CUDA device see them.
_backend = "auto"
_validate = True
_used: list[set[str]] = []


@contextmanager
def backend(name: str) -> Iterator[None]:
    r"""Sets the back end of the operators of :mod:`pyg_nas_np.ops` inside a ``with`` block.

    ``"auto"`` uses the compiled kernels of the tensors' device if they exist, otherwise the reference. The choice
    applies to all threads. The backward pass of a call uses the back end of its forward pass.

    Args:
        name: ``"auto"``, ``"reference"`` (plain PyTorch), ``"cpu"`` (C++) or ``"cuda"`` (Triton).

    Raises:
        ValueError: If there is no such back end.

    Example:
        >>> with backend("reference"):
        ...     active_backend()
        'reference'
    """
    global _backend
    if name not in BACKENDS:
        raise ValueError(f"'name' must be one of {', '.join(BACKENDS)} but is {name!r}.")
    previous, _backend = _backend, name
    try:
        yield
    finally:
        _backend = previous


def active_backend() -> str:
    r"""Returns the name given to the innermost :func:`backend` block, ``"auto"`` outside of any."""
    return _backend


@contextmanager
def used_backends() -> Iterator[set[str]]:
    r"""Records which back ends run inside a ``with`` block, in any thread: ``"reference"``, ``"cpu"``, ``"cuda"``.

    Example:
        >>> from pyg_nas_np.ops import set_conv
        >>> x, ptr = torch.zeros(3, 1), torch.tensor([0, 3])
        >>> with backend("reference"), used_backends() as used:
        ...     density, signal = set_conv(x, x, x, 1.0, ptr, ptr)
        >>> used
        {'reference'}
    """
    used: set[str] = set()
    _used.append(used)
    try:
        yield used
    finally:
        # By identity: sets of nested blocks may be equal.
        _used[:] = [other for other in _used if other is not used]


@contextmanager
def validation(enabled: bool) -> Iterator[None]:
    r"""Switches the checks of argument *values* (sorted ``ptr``, positive length scales) on or off.

    Shapes, types and devices are always checked. On a CUDA device the check of values waits for the device, once a
    call: switch it off in training loops whose inputs are known to be valid. While a CUDA graph is captured, values are
    not checked.

    Example:
        >>> with validation(False):
        ...     validation_enabled()
        False
    """
    global _validate
    previous, _validate = _validate, enabled
    try:
        yield
    finally:
        _validate = previous


def validation_enabled() -> bool:
    r"""Returns whether argument values are checked."""
    return _validate


def checks_values(device: torch.device) -> bool:
    r"""Returns whether a call on :obj:`device` checks argument values.

    It does not where there are none to read: on the device ``"meta"``, while a CUDA graph is captured, and while
    PyTorch compiles.
    """
    if not _validate or device.type == "meta" or torch.compiler.is_compiling():
        return False
    return not (device.type == "cuda" and torch.cuda.is_current_stream_capturing())


def resolve(name: str, device: torch.device) -> str:
    r"""Returns the back end that runs a call on :obj:`device`: ``"reference"``, ``"cpu"`` or ``"cuda"``; records it.

    Raises:
        BackendUnavailableError: If the requested back end cannot run on this device or is not installed.
    """
    if name == "auto":
        compiled = {"cpu": cpu, "cuda": cuda}.get(device.type)
        name = device.type if compiled is not None and compiled.is_available() else "reference"
    elif name == "cpu":
        if device.type != "cpu":
            raise BackendUnavailableError(f"The back end 'cpu' was asked for, but the tensors are on '{device}'.")
        cpu.kernels()
    elif name == "cuda":
        cuda.require_device(device)
    for used in _used:
        used.add(name)
    return name
