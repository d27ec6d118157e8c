r"""The C++ back end: a plain C library, loaded with :mod:`ctypes` and called with raw pointers.

The library does not depend on Python or PyTorch, so one build works with all versions of both. It is looked up in
``$PYG_NAS_NP_CPU_LIBRARY``, in the folder of this file, and in the installed copy of the package (for editable
installs). It uses the widest vectors of the processor; ``$PYG_NAS_NP_CPU_ISA`` restricts it to ``avx512``, ``avx2`` or
``baseline``.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pyg_nas_np.ops.radial import KERNELS
from pyg_nas_np.ops.reference import accumulation_dtype
from pyg_nas_np.utils import BackendUnavailableError

logger = logging.getLogger(__name__)

_ABI_VERSION = 3

# Constants folded into the scale, so that squared distances become r^2 log2(e) / 2 for the RBF kernel and 3 r^2 or 5
# r^2 for the Matérn kernels.
_FOLD = (math.sqrt(0.5 * math.log2(math.e)), math.sqrt(3.0), math.sqrt(5.0))

_pointer = ctypes.c_void_p
_int = ctypes.c_int64


class _SetConv(ctypes.Structure):
    r"""``PnnSetConv`` of ``csrc/abi.h``."""

    _fields_ = (
        *((name, _pointer) for name in ("x_src", "y_src", "x_dst", "ptr_src", "ptr_dst", "scale", "unscale")),
        *((f"{name}_{axis}", _int) for name in ("x_src", "y_src", "x_dst") for axis in ("row", "head")),
        *((name, _int) for name in ("num_src", "num_dst", "num_sets", "heads", "dim", "channels")),
        *((name, ctypes.c_int32) for name in ("kernel", "normalize", "is_double", "threads")),
        ("eps", ctypes.c_double),
        *((name, _pointer) for name in ("density", "signal", "grad_density", "grad_signal")),
        *((name, _pointer) for name in ("grad_x_src", "grad_y_src", "grad_x_dst", "grad_scale")),
    )


class _Grid(ctypes.Structure):
    r"""``PnnGrid`` of ``csrc/abi.h``."""

    _fields_ = (
        *((name, _pointer) for name in ("x", "ptr", "origin", "spacing", "scale", "shape", "window")),
        ("unscale", ctypes.c_double),
        *((name, _int) for name in ("num_points", "num_sets", "dim", "channels")),
        *((name, ctypes.c_int32) for name in ("kernel", "is_double", "threads", "reserved")),
        *((name, _pointer) for name in ("u", "u_density", "v", "v_density", "out_density", "out_signal")),
        *((name, _pointer) for name in ("grad_x", "grad_scale")),
    )


class _Trees(ctypes.Structure):
    r"""``PnnTrees`` of ``csrc/abi.h``."""

    _fields_ = (
        *((name, _pointer) for name in ("x", "threshold", "feature", "child", "value", "root", "depth")),
        *((name, _int) for name in ("num_rows", "num_columns", "num_nodes", "num_trees", "threads")),
        ("sum", _pointer),
    )


def _candidates() -> Iterator[Path]:
    if override := os.environ.get("PYG_NAS_NP_CPU_LIBRARY"):
        yield Path(override)
        return
    suffix = "dylib" if sys.platform == "darwin" else "so"
    name = f"libpyg_nas_np_cpu.{suffix}"
    yield Path(__file__).with_name(name)
    yield from (Path(folder) / "pyg_nas_np" / "ops" / name for folder in sys.path if folder)


@cache
def kernels() -> ctypes.CDLL:
    r"""Loads the compiled kernels.

    Raises:
        BackendUnavailableError: If the package was installed without a compiler, or with kernels of another version.
        ValueError: If ``$PYG_NAS_NP_CPU_ISA`` names an instruction set that the processor or the library lacks.
    """
    for path in _candidates():
        if not path.is_file():
            continue
        try:
            lib = ctypes.CDLL(os.fspath(path))
            lib.pnn_instruction_set.restype = ctypes.c_char_p
            lib.pnn_measure.restype = ctypes.c_double
            lib.pnn_measure.argtypes = (ctypes.c_int32, _int, ctypes.POINTER(ctypes.c_int32))
            version = lib.pnn_abi_version()
        except (OSError, AttributeError) as error:
            raise BackendUnavailableError(
                f"The CPU kernels at {path} cannot be loaded ({error}). Install the package again."
            ) from error
        if version != _ABI_VERSION:
            raise BackendUnavailableError(
                f"The CPU kernels at {path} have interface version {version}, this package needs {_ABI_VERSION}. "
                f"Install the package again."
            )
        wanted = os.environ.get("PYG_NAS_NP_CPU_ISA") or "best"
        if not lib.pnn_force_instruction_set(wanted.encode()):
            raise ValueError(
                f"PYG_NAS_NP_CPU_ISA must be best, avx512, avx2 or baseline, and one that this processor has, but is "
                f"{wanted!r}. Unset it for the best one."
            )
        return lib
    raise BackendUnavailableError(
        "The compiled CPU kernels are not installed: no C++ compiler was found when the package was installed. Install "
        "one (for example 'apt-get install g++') and run: pip install --force-reinstall --no-deps pyg-nas-np"
    )


def is_available() -> bool:
    r"""Returns whether the compiled kernels can be used."""
    try:
        kernels()
    except BackendUnavailableError:
        return False
    return True


def announce() -> None:
    r"""Logs a warning, at import, if the slow fallback will be used."""
    try:
        kernels()
    except BackendUnavailableError as error:
        logger.warning("%s Until then set convolutions on the CPU run in plain PyTorch, many times slower.", error)


def instruction_set() -> str:
    r"""Returns the instruction set in use: ``"avx512"``, ``"avx2"`` or ``"baseline"``."""
    return str(kernels().pnn_instruction_set().decode())


def _call(function: str, problem: ctypes.Structure) -> None:
    if getattr(kernels(), function)(ctypes.byref(problem)) != 0:
        raise MemoryError("The CPU kernels could not allocate their buffers.")


def _rows(value: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Makes the innermost axis of [N, H, D] contiguous; other strides are kept."""
    value = value.detach().to(dtype)
    return value if value.stride(-1) == 1 or value.size(-1) <= 1 else value.contiguous()


def _problem(
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
) -> tuple[_SetConv, list[Tensor]]:
    dtype = accumulation_dtype(y_src.dtype)
    fold = _FOLD[KERNELS.index(kernel)]
    rows = [_rows(value, dtype) for value in (x_src, y_src, x_dst)]
    scale = (fold / lengthscale.detach().double()).contiguous()
    unscale = scale / fold**2
    tensors = [*rows, ptr_src.contiguous(), ptr_dst.contiguous(), scale, unscale]
    problem = _SetConv(
        *(tensor.data_ptr() for tensor in tensors),
        *(stride for value in rows for stride in value.stride()[:2]),
        x_src.size(0),
        x_dst.size(0),
        ptr_src.numel() - 1,
        x_src.size(1),
        x_src.size(2),
        y_src.size(2),
        KERNELS.index(kernel),
        normalize,
        dtype == torch.float64,
        torch.get_num_threads(),
        eps,
    )
    return problem, tensors  # The tensors must outlive the call.


def set_conv(
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv`."""
    dtype = accumulation_dtype(y_src.dtype)
    problem, _keep = _problem(x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst, kernel, normalize, eps)
    density = y_src.new_empty(x_dst.shape[:2], dtype=dtype)
    signal = y_src.new_empty(*x_dst.shape[:2], y_src.size(2), dtype=dtype)
    problem.density, problem.signal = density.data_ptr(), signal.data_ptr()
    _call("pnn_set_conv_forward", problem)
    return density.to(y_src.dtype), signal.to(y_src.dtype)


def set_conv_backward(
    grad_density: Tensor,
    grad_signal: Tensor,
    density: Tensor,
    signal: Tensor,
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_backward`; gradients that are not needed are empty."""
    dtype = accumulation_dtype(y_src.dtype)
    problem, _keep = _problem(x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst, kernel, normalize, eps)
    inputs = [value.detach().to(dtype).contiguous() for value in (density, signal, grad_density, grad_signal)]
    problem.density, problem.signal, problem.grad_density, problem.grad_signal = (v.data_ptr() for v in inputs)

    def zeros(like: Tensor, needed: bool, kind: torch.dtype = dtype) -> Tensor:
        return like.new_zeros(like.shape if needed else (0,), dtype=kind)

    grad_x_src, grad_y_src, grad_x_dst = zeros(x_src, need_x), zeros(y_src, need_y), zeros(x_dst, need_x)
    grad_scale = zeros(lengthscale, need_x, torch.float64)
    if need_x:
        problem.grad_x_src, problem.grad_x_dst = grad_x_src.data_ptr(), grad_x_dst.data_ptr()
        problem.grad_scale = grad_scale.data_ptr()
        # An empty tensor has a null pointer, which would mean that its gradient is not needed.
        if x_src.numel() == 0 or x_dst.numel() == 0:
            need_x = False
    if need_y:
        problem.grad_y_src = grad_y_src.data_ptr()
    if x_src.numel() and x_dst.numel():
        _call("pnn_set_conv_backward", problem)
    fold = _FOLD[KERNELS.index(kernel)]
    if grad_scale.numel():
        grad_scale = grad_scale / (fold**2 * lengthscale.detach().double())
    return (
        grad_x_src.to(x_src.dtype),
        grad_y_src.to(y_src.dtype),
        grad_x_dst.to(x_dst.dtype),
        grad_scale.to(lengthscale.dtype),
    )


def _grid_call(
    function: str,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
    channels: int,
    dtype: torch.dtype,
    **values: Tensor | None,
) -> None:
    fold = _FOLD[KERNELS.index(kernel)]
    step = torch.tensor(list(spacing), dtype=torch.float64, device="cpu")
    tensors = [
        x.detach().to(dtype).contiguous(),
        ptr.contiguous(),
        origin.detach().double().contiguous(),
        step,
        fold * step / lengthscale.detach().double(),
        torch.tensor(list(shape), dtype=torch.int64, device="cpu"),
        torch.tensor(list(window), dtype=torch.int64, device="cpu"),
    ]
    problem = _Grid(
        *(tensor.data_ptr() for tensor in tensors),
        1 / fold**2,
        x.size(0),
        ptr.numel() - 1,
        x.size(1),
        channels,
        KERNELS.index(kernel),
        dtype == torch.float64,
        torch.get_num_threads(),
        0,
        **{name: value.data_ptr() for name, value in values.items() if value is not None},
    )
    _call(function, problem)


def _dense(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype).contiguous()


def set_conv_to_grid(
    x: Tensor,
    y: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    shape: Sequence[int],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_to_grid`, always in the same order of summation."""
    dtype = accumulation_dtype(y.dtype)
    density = y.new_empty(ptr.numel() - 1, *shape, dtype=dtype)
    signal = y.new_empty(*density.shape, y.size(1), dtype=dtype)
    grid = (x, lengthscale, ptr, origin, spacing, shape, window, kernel, y.size(1), dtype)
    _grid_call("pnn_grid_scatter", *grid, u=_dense(y, dtype), out_density=density, out_signal=signal)
    return density.to(y.dtype), signal.to(y.dtype)


def set_conv_from_grid(
    y: Tensor,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.set_conv_from_grid`."""
    dtype = accumulation_dtype(y.dtype)
    density = y.new_empty(x.size(0), dtype=dtype)
    signal = y.new_empty(x.size(0), y.size(-1), dtype=dtype)
    grid = (x, lengthscale, ptr, origin, spacing, y.shape[1:-1], window, kernel, y.size(-1), dtype)
    _grid_call("pnn_grid_gather", *grid, v=_dense(y, dtype), out_density=density, out_signal=signal)
    return density.to(y.dtype), signal.to(y.dtype)


def grid_gradient(
    u: Tensor,
    u_density: Tensor | None,
    v: Tensor,
    v_density: Tensor | None,
    x: Tensor,
    lengthscale: Tensor,
    ptr: Tensor,
    origin: Tensor,
    spacing: Sequence[float],
    window: Sequence[int],
    kernel: str,
) -> tuple[Tensor, Tensor]:
    r"""Computes :func:`pyg_nas_np.ops.reference.grid_gradient`."""
    dtype = accumulation_dtype(u.dtype)
    grad_x = x.new_zeros(x.shape, dtype=dtype)
    grad_scale = x.new_zeros(x.size(1), dtype=torch.float64)
    grid = (x, lengthscale, ptr, origin, spacing, v.shape[1:-1], window, kernel, u.size(1), dtype)
    _grid_call(
        "pnn_grid_gradient",
        *grid,
        u=_dense(u, dtype),
        u_density=None if u_density is None else _dense(u_density, dtype),
        v=_dense(v, dtype),
        v_density=None if v_density is None else _dense(v_density, dtype),
        grad_x=grad_x,
        grad_scale=grad_scale,
    )
    fold = _FOLD[KERNELS.index(kernel)]
    grad_scale = grad_scale / (fold**2 * lengthscale.detach().double())
    return grad_x.to(x.dtype), grad_scale.to(lengthscale.dtype)


def tree_sum(
    x: Tensor, threshold: Tensor, feature: Tensor, child: Tensor, value: Tensor, root: Tensor, depth: Tensor
) -> Tensor:
    r"""Computes :func:`pyg_nas_np.ops.reference.tree_sum`."""
    total = value.new_empty(x.size(0))
    tensors = [part.contiguous() for part in (x, threshold, feature, child, value, root, depth)]
    sizes = *x.shape, value.numel(), root.numel(), torch.get_num_threads()
    _call("pnn_tree_sum", _Trees(*(tensor.data_ptr() for tensor in tensors), *sizes, total.data_ptr()))
    return total


def measure(what: str, count: int) -> float:
    r"""Measures the rate of one core in 10^9 float32 operations per second, for rooflines.

    Args:
        what: ``"fma"`` for fused multiply-adds, ``"exp"`` for the exponentials of these kernels.
        count: Vector operations to time.
    """
    lanes = ctypes.c_int32()
    seconds = float(kernels().pnn_measure({"fma": 0, "exp": 1}[what], count, ctypes.byref(lanes)))
    return count * lanes.value / seconds / 1e9
