r"""Where networks run: names of devices, and copies of modules there."""

from __future__ import annotations

import copy
import re
from typing import TypeVar

import torch
from torch import nn

from pyg_nas_np.utils.errors import DeviceUnavailableError

M = TypeVar("M", bound=nn.Module)


def as_device(name: str | torch.device = "auto") -> torch.device:
    r"""Returns a device that exists.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for CUDA where there is a device and the CPU elsewhere.

    Raises:
        ValueError: If it is none of these.
        DeviceUnavailableError: If this machine has no such CUDA device.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(0|[1-9]\d*))?", str(name))
    if match is None:
        raise ValueError(f"a device must be 'auto', 'cpu', 'cuda' or one like 'cuda:1', got {name!r}")
    if str(name) != "cpu" and int(match[1] or 0) >= count:
        found = f"PyTorch finds {count} CUDA devices, numbered from 0" if count else "PyTorch finds no CUDA device"
        raise DeviceUnavailableError(f"'{name}' was asked for, but {found}; use 'auto' or 'cpu'")
    return torch.device(name)


def on_device(module: M, device: torch.device) -> M:
    r"""Returns a module of the CPU for use on a device: itself on the CPU, a copy elsewhere.

    The original may be shared, and is what is saved, so it never moves.
    """
    return module if device.type == "cpu" else copy.deepcopy(module).to(device)
