r"""Compiles the Triton kernels ahead of time, without a GPU, and reads what the compiler made of them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pyg_nas_np.ops.radial import KERNELS
from pyg_nas_np.utils import NASError

ARCHITECTURES = (80, 90, 100)

# Element types of the arguments that are pointers; every other run-time argument is a 32-bit integer. `x`, `y`, `u` and
# `v` tensors have the type of the inputs.
_INTEGER_POINTERS = {"tile_set", "tile_start", "ptr_own", "ptr_other", "first", "batch", "order", "starts"}
_FLOAT_POINTERS = {"inverse", "offset", "step", "grad_own", "grad_scale", "force", "square"}
_INPUT_POINTERS = {"x_own", "x_other", "y_other", "v_own", "v_other", "y", "u", "u_density", "v", "v_density"}
_OUTPUT_POINTERS = {"density", "signal", "grad_density"}

class Compiled(NamedTuple):
    r"""One kernel in one configuration for one architecture."""

    kernel: str
    configuration: str
    architecture: int
    registers: int
    spilled_bytes: int  # local memory per thread
    shared_bytes: int


def compile_ahead(
    architectures: Sequence[int] = ARCHITECTURES,
    dtypes: Sequence[str] = ("fp32", "bf16", "fp16"),
    kernels: Sequence[str] | None = None,
    radials: Sequence[str] = KERNELS,
    tuned: int | None = None,
) -> Iterator[Compiled]:
    r"""Compiles kernels to machine code for CUDA architectures.

    Args:
        architectures: Compute capabilities, 90 for 9.0.
        dtypes: Types of the inputs.
        kernels: Names of kernels. (default: all)
        radials: Kernels of the convolution.
        tuned: How many of the configurations of each kernel. (default: all)

    Raises:
        RuntimeError: If Triton is in interpreter mode, where there is nothing to compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pyg_nas_np.ops import triton_kernels

    for name, (kernel, configs, widths) in triton_kernels.configurations().items():
        if kernels is not None and name not in kernels:
            continue
        function = kernel.fn
        if not hasattr(function, "params"):
            raise RuntimeError("Unset TRITON_INTERPRET: interpreted kernels cannot be compiled.")
        for architecture in architectures:
            target = GPUTarget("cuda", architecture, 32)
            for radial in radials:
                for dtype in dtypes:
                    for width in widths:
                        for config in configs[:tuned]:
                            constants = {"KERNEL": KERNELS.index(radial), **width, **config.kwargs}
                            signature = {
                                p.name: "constexpr" if p.name in constants else _type(p.name, dtype)
                                for p in function.params
                            }
                            source = ASTSource(function, signature, constants)
                            options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
                            result = triton.compile(source, target=target, options=options)
                            registers, spilled = _resources(result.asm["cubin"])
                            shown = " ".join(f"{k.removeprefix('BLOCK_').lower()}={v}" for k, v in constants.items())
                            yield Compiled(
                                name,
                                f"{dtype} {shown} warps={config.num_warps} stages={config.num_stages}",
                                architecture,
                                registers,
                                spilled,
                                int(result.metadata.shared),
                            )


def _type(name: str, dtype: str) -> str:
    if name in _INTEGER_POINTERS:
        return "*i64"
    if name in _FLOAT_POINTERS or name in _OUTPUT_POINTERS:
        return "*fp32"
    return f"*{dtype}" if name in _INPUT_POINTERS else "i32"


def _resources(cubin: bytes) -> tuple[int, int]:
    r"""Reads registers and local memory per thread with the tool that ships with Triton."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        listing = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+).*?LOCAL:(\d+)", listing) or re.search(r"REG:(\d+).*?STACK:(\d+)", listing)
    if found is None:
        raise NASError(f"cuobjdump printed no resource usage: {listing!r}")
    stack = re.search(r"STACK:(\d+)", listing)
    return int(found[1]), max(int(found[2]), int(stack[1]) if stack else 0)
