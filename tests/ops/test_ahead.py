"""The Triton kernels compile for real devices without one, and keep everything in registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

_PROGRAM = """
import json, sys
from pyg_nas_np.ops.ahead import compile_ahead
rows = compile_ahead([int(sys.argv[1])], dtypes=["fp32"], radials=["rbf"], widths=[(8, 8), (16, 64)], once=True)
print(json.dumps([row._asdict() for row in rows]))
"""

# All configurations: benchmarks/set_conv_cuda.py.
KERNELS = {
    *("pack", "convolve", "pull", "combine", "convolve_wide", "pull_wide", "gradient_of_density"),
    *("locate", "scatter", "scatter_sorted", "gather", "gradient"),
}


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_every_kernel_compiles_and_fits(architecture: int):
    # Another process, because this one may have loaded Triton as an interpreter.
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(architecture)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert {row["kernel"] for row in rows} == KERNELS
    assert len(rows) == len(KERNELS)
    for row in rows:
        assert 0 < row["registers"] <= 255, row
        assert row["spilled_bytes"] == 0, row
        assert row["shared_bytes"] <= 48 * 1024, row


def test_an_interpreted_kernel_cannot_be_compiled():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    program = "from pyg_nas_np.ops.ahead import compile_ahead; next(compile_ahead())"
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "Unset TRITON_INTERPRET" in result.stderr
