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
def validation(enabled: bool) -> Iterator[None]:
    r"""Switches the checks of argument *values* (sorted ``ptr``, positive length scales) on or off.

    Shapes, types and devices are always checked. On a CUDA device each value check synchronises with the device: switch
    them off in training loops whose inputs are known to be valid.

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


def resolve(name: str, device: torch.device) -> str:
    r"""Returns the back end that runs a call on :obj:`device`: ``"reference"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        BackendUnavailableError: If the requested back end cannot run on this device or is not installed.
    """
    if name == "auto":
        if device.type == "cpu" and cpu.is_available():
            return "cpu"
        return "cuda" if device.type == "cuda" and cuda.is_available() else "reference"
    if name == "cpu":
        if device.type != "cpu":
            raise BackendUnavailableError(f"The back end 'cpu' was asked for, but the tensors are on '{device}'.")
        cpu.kernels()
    elif name == "cuda":
        cuda.require_device(device)
    return name
