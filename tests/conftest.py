r"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Triton reads this once, when it is first imported: its kernels are interpreted on the CPU. On a machine with a GPU,
# TRITON_INTERPRET=0 tests them on the device.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

SHARED = Path(os.environ.get("PYG_NAS_NP_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"

# Workers of pytest-xdist share the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of measured tables that are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"measured tables are absent ({SHARED}); set PYG_NAS_NP_SHARED to the folder above 'data'")
    return SHARED
