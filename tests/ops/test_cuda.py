"""The Triton back end: interpreted against the reference, and compiled ahead of time for real devices."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest
import torch

from pyg_nas_np.ops.testing import GridTestCase, SetConvTestCase

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("neither a CUDA device nor TRITON_INTERPRET=1", allow_module_level=True)
DEVICE = "cpu" if INTERPRETED else "cuda"


class TestSetConv(SetConvTestCase):
    backend = "cuda"
    device = DEVICE
    tolerances: ClassVar = {torch.float32: 1e-5}
    size = 40

    @pytest.mark.parametrize("heads", [None, 2])
    def test_programs_share_the_other_side(self, heads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
        from pyg_nas_np.ops import triton_kernels

        # So small a problem is one program's otherwise.
        monkeypatch.setattr(triton_kernels, "LEAST_SHARE", 4)
        monkeypatch.setattr(triton_kernels, "RAGGED_PROGRAMS", 30)
        self.compare(self.problem([21, 0, 9], [14, 3, 8], heads=heads), torch.float32, normalize=True)


class TestGrid(GridTestCase):
    backend = "cuda"
    device = DEVICE
    tolerances: ClassVar = {torch.float32: 1e-5}
    shapes: ClassVar = {1: ([37], [9]), 2: ([5, 9], [3, 4]), 3: ([4, 3, 4], [2, 3, 2])}
    channels = (3, 33)  # within one block of channels, and just over one
