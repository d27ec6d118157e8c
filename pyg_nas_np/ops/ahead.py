r"""Compiles the Triton kernels ahead of time, without a GPU, and reads the resource usage of the machine code."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyg_nas_np.ops.radial import KERNELS
from pyg_nas_np.utils import NASError

ARCHITECTURES = (80, 90, 100)

# Element types of pointer arguments; numbers without a type of their own are 32-bit integers. Those of inputs, and of
# what has their type where it is not added later, are the types of the inputs.
_POINTERS = {
    **dict.fromkeys(("ptr", "ptr_own", "ptr_other", "order", "starts", "key"), "*i64"),
    **dict.fromkeys(("first", "batch"), "*i32"),
    **dict.fromkeys(("lengthscale", "offset", "step", "packed", "constant"), "*fp32"),
    **dict.fromkeys(("densities", "signals", "grad_x", "grad_v", "grad_scale", "force", "square"), "*fp32"),
}
_INPUTS = {
    *("x", "origin", "y", "u", "u_density", "v", "v_density", "values", "density", "signal", "grad_density"),
    *("grad_signal", "own", "own_values", "other", "other_values", "other_density"),
}
# Kernels of narrow rows read float32 only: others are packed.
_SINGLE = {"convolve", "pull"}


class Compiled(NamedTuple):
    r"""One kernel in one configuration for one architecture."""

    kernel: str
    configuration: str
    architecture: int
    registers: int
    spilled_bytes: int  # stored to local memory per thread
    shared_bytes: int


def compile_ahead(
    architectures: Sequence[int] = ARCHITECTURES,
    dtypes: Sequence[str] = ("fp32", "bf16", "fp16"),
    kernels: Sequence[str] | None = None,
    radials: Sequence[str] = KERNELS,
    widths: Sequence[tuple[int, int]] | None = None,
    once: bool = False,
) -> Iterator[Compiled]:
    r"""Compiles kernels to machine code for CUDA architectures.

    Args:
        architectures: Compute capabilities, 90 for 9.0.
        dtypes: Types of the inputs.
        kernels: Names of kernels. (default: all)
        radials: Kernels of the convolution.
        widths: Numbers of dimensions and channels of the kernels off the grid. (default: the extremes of every plan)
        once: Whether to compile only the last configuration of every kernel. (default: :obj:`False`)

    Raises:
        RuntimeError: If Triton is in interpreter mode, which cannot compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    from pyg_nas_np.ops import triton_kernels

    rows = list(triton_kernels.configurations(widths or triton_kernels.WIDTHS))
    if once:
        rows = list({row[0]: row for row in rows}.values())
    for name, kernel, constants, own_options in rows:
        if kernels is not None and name not in kernels:
            continue
        if not hasattr(kernel, "params"):
            raise RuntimeError("Unset TRITON_INTERPRET: interpreted kernels cannot be compiled.")
        has_inputs = name not in _SINGLE and any(p.name in _INPUTS for p in kernel.params)
        has_radial = "KERNEL" in constants
        precision = constants.get("PRECISION")
        able = [dtype for dtype in dtypes if precision is None or (dtype == "fp32") == (precision != "half")]
        shown = " ".join(
            f"{key.removeprefix('BLOCK_').lower()}={value if isinstance(value, str) else int(value)}"
            for key, value in constants.items()
            if key != "KERNEL"
        )
        for architecture in architectures:
            target = GPUTarget("cuda", architecture, 32)
            for radial in radials if has_radial else radials[:1]:
                chosen = {"KERNEL": KERNELS.index(radial)} if has_radial else {}
                for dtype in able if has_inputs else ["fp32"]:
                    source = _source(kernel, {**constants, **chosen}, dtype)
                    options = {**own_options, "num_stages": 1, "enable_fp_fusion": True}
                    result = triton.compile(source, target=target, options=options)
                    registers, spilled = _resources(result.asm["ptx"], architecture)
                    yield Compiled(
                        name,
                        " ".join([*([dtype] if has_inputs else []), *([radial] if has_radial else []), shown]),
                        architecture,
                        registers,
                        spilled,
                        int(result.metadata.shared),
                    )


def _source(kernel: Any, constants: Mapping[str, int | bool | str], dtype: str) -> Any:
    from triton.compiler import ASTSource

    signature = {p.name: "constexpr" if p.name in constants else _type(p, dtype) for p in kernel.params}
    # Tensors are aligned to 16 bytes, as the launcher would detect.
    aligned = {(k,): [["tt.divisibility", 16]] for k, kind in enumerate(signature.values()) if kind.startswith("*")}
    return ASTSource(kernel, signature, constants, aligned)


def _type(parameter: Any, dtype: str) -> str:
    if parameter.annotation_type:
        return str(parameter.annotation_type)
    return f"*{dtype}" if parameter.name in _INPUTS else _POINTERS.get(parameter.name, "i32")


def _resources(ptx: str, architecture: int) -> tuple[int, int]:
    r"""Assembles again with Triton's assembler in verbose mode; returns registers and spilled bytes.

    The resource table of a cubin contains only the size of the stack, which includes more than spills.
    """
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        # The same options as Triton, so that the numbers are those of the code that runs.
        command = [
            get_ptxas(architecture).path,
            "-v",
            "--regAllocOptLevel=2",
            f"--gpu-name={target[1] if target else f'sm_{architecture}'}",
            path,
            "-o",
            Path(folder) / "kernel.cubin",
        ]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = re.search(r"Used (\d+) registers", listing), re.search(r"(\d+) bytes spill stores", listing)
    if registers is None or spilled is None:
        raise NASError(f"ptxas printed no resource usage: {listing!r}")
    return int(registers[1]), int(spilled[1])
