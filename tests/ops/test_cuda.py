"""The Triton back end: interpreted against the reference, and what its host does without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, library

from pyg_nas_np import ops
from pyg_nas_np.ops import cuda
from pyg_nas_np.ops.testing import Dispatched, GridTestCase, SetConvTestCase, pointers, rounding

triton_kernels = pytest.importorskip("pyg_nas_np.ops.triton_kernels", exc_type=ImportError)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("neither a CUDA device nor TRITON_INTERPRET=1", allow_module_level=True)
DEVICE = "cpu" if INTERPRETED else "cuda"


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Sets how PyTorch multiplies matrices of float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class TestSetConv(SetConvTestCase):
    backend = "cuda"
    device = DEVICE
    tolerances: ClassVar = {torch.float32: 1e-5}
    size = 24

    @pytest.mark.parametrize("heads", [None, 2])
    @pytest.mark.parametrize("channels", [5, 33])
    def test_programs_share_the_other_side(
        self, heads: int | None, channels: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # So small a problem is one program's otherwise.
        monkeypatch.setattr(triton_kernels, "LEAST_SHARE", 4)
        for name in ("PROGRAMS", "WIDE_PROGRAMS"):
            monkeypatch.setattr(triton_kernels, name, 8)
        p = self.problem([21, 0, 9], [14, 3, 8], channels=channels, heads=heads)
        self.compare(p, torch.float32, normalize=True)

    @pytest.mark.parametrize("kernel", ops.KERNELS)
    @pytest.mark.parametrize("allow_tf32", [False, True])
    def test_wide_rows(self, kernel: str, allow_tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if allow_tf32 and not INTERPRETED:
            monkeypatch.setitem(self.tolerances, torch.float32, 5e-3)
        # More than one tile of either side, and two blocks of channels, of which one is not full.
        p = self.problem([70, 0, 5], [3, 9, 66], dim=3, channels=70)
        with precision("high" if allow_tf32 else "highest"):
            self.compare(p, torch.float32, kernel=kernel, normalize=allow_tf32, eps=1e-3)

    @pytest.mark.parametrize("channels", [32, 40])
    def test_wide_rows_with_one_lengthscale(self, channels: int) -> None:
        p = self.problem([33, 2], [5, 34], dim=5, channels=channels, heads=2)
        q = p._replace(lengthscale=p.lengthscale[:, :1].contiguous())
        self.compare(q, torch.float32)

    @pytest.mark.parametrize("ard", [False, True])
    def test_wide_gradients_of_points_far_apart(self, ard: bool) -> None:
        # Two clusters, in one tile.
        p = self.problem([8, 6], [7, 5], channels=32)
        away = torch.tensor([0.0, 1e5], dtype=torch.float64, device=self.device)
        x_src, x_dst = (
            torch.round(x * 64) / 64 + away[: x.size(0)].repeat(7)[: x.size(0), None] for x in (p.x_src, p.x_dst)
        )
        scale = p.lengthscale if ard else p.lengthscale[:1].clone()
        self.compare(p._replace(x_src=x_src, x_dst=x_dst, lengthscale=scale), torch.float32)

    def test_a_wide_row_that_is_no_number_spoils_itself(self) -> None:
        p = self.problem([8], [6], channels=32, dtype=torch.float32)
        x_dst = p.x_dst.clone()
        x_dst[0, 1] = float("nan")
        x_dst.requires_grad_()
        density, signal = ops.set_conv(p.x_src, p.y_src, x_dst, *p[3:])
        (grad,) = torch.autograd.grad(density.sum() + signal.sum(), x_dst)
        assert grad.isnan().any(1).tolist() == [True, *[False] * 5]

    def test_wide_gradients_of_moved_points(self) -> None:
        # Multiples of 1/64 remain exact when shifted by 4096, and so must differences to a point near by.
        p = self.problem([40], [9], channels=32, dtype=torch.float32)
        x_src, x_dst = (torch.round(value * 64) / 64 for value in (p.x_src, p.x_dst))

        def function(x_src: Tensor, y_src: Tensor, x_dst: Tensor, lengthscale: Tensor) -> tuple[Tensor, Tensor]:
            return ops.set_conv(x_src, y_src, x_dst, lengthscale, p.ptr_src, p.ptr_dst)

        here = self.outputs_and_gradients(function, [x_src, p.y_src, x_dst, p.lengthscale])
        there = self.outputs_and_gradients(function, [x_src + 4096, p.y_src, x_dst + 4096, p.lengthscale])
        for a, b in zip(here, there, strict=True):
            self.assert_near(b, a, rounding(torch.float32, 40), "moved")

    @settings(max_examples=8, deadline=None)
    @given(
        sizes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
        dim=st.integers(1, 5),
        channels=st.integers(32, 80),
        normalize=st.booleans(),
    )
    def test_wide_rows_of_any_sets(
        self, sizes: list[tuple[int, int]], dim: int, channels: int, normalize: bool
    ) -> None:
        p = self.problem([n for n, _ in sizes], [m for _, m in sizes], dim, channels)
        self.compare(p, torch.float32, normalize=normalize, eps=1e-3)

    @pytest.mark.parametrize("channels", [4, 40])
    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize("share", [4, 128])
    def test_the_gradient_of_values_alone(
        self, channels: int, normalize: bool, share: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(triton_kernels, "LEAST_SHARE", share)
        p = self.problem([9, 4], [12, 5], dim=2, channels=channels)

        def function(y_src: Tensor) -> tuple[Tensor, Tensor]:
            x_src, _, x_dst, lengthscale = (value.to(y_src.dtype) for value in p.tensors)
            density, signal = ops.set_conv(x_src, y_src, x_dst, lengthscale, p.ptr_src, p.ptr_dst, normalize=normalize)
            return density + 0 * signal.sum(-1), signal

        self.check(function, [p.y_src], torch.float32)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("channels", [4, 40])
    def test_half_precision(self, dtype: torch.dtype, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(self.tolerances, dtype, 0.02)
        p = self.problem([30, 0, 7], [5, 4, 20], dim=2, channels=channels)
        self.compare(p, dtype, normalize=True, eps=1e-2)

    @pytest.mark.parametrize("channels", [3, 32])
    def test_opcheck(self, channels: int) -> None:
        p = self.problem([5, 0, 3], [2, 4, 1], dim=2, channels=channels, dtype=torch.float32)
        options = (p.ptr_src, p.ptr_dst, "rbf", True, 1e-8)
        checks = ("test_schema", "test_faketensor")
        library.opcheck(torch.ops.pyg_nas_np.set_conv.default, (*p.tensors, *options, "cuda"), test_utils=checks)
        density, signal = torch.ops.pyg_nas_np.set_conv(*p.tensors, *options, "cuda")
        for needed in ((True, True), (False, True), (True, False), (False, False)):
            arguments = (density, signal, density, signal, *p.tensors, *options, *needed, "cuda")
            library.opcheck(torch.ops.pyg_nas_np.set_conv_backward.default, arguments, test_utils=checks)

    def test_coordinates_that_are_not_aligned(self) -> None:
        x = torch.empty(2 * 9 + 1, device=self.device)[1:].view(9, 2)
        x.copy_(self.randn(9, 2, dtype=torch.float32))
        y, ptr = self.randn(9, 4, dtype=torch.float32), pointers([9], self.device)
        expected = ops.set_conv(x.clone(), y, x.clone(), 1.0, ptr, ptr)
        for a, e in zip(ops.set_conv(x, y, x, 1.0, ptr, ptr), expected, strict=True):
            self.assert_near(a, e, 1e-6, "not aligned")


class TestGrid(GridTestCase):
    backend = "cuda"
    device = DEVICE
    tolerances: ClassVar = {torch.float32: 1e-5}
    shapes: ClassVar = {1: ([37], [9]), 2: ([5, 9], [3, 4]), 3: ([4, 3, 4], [2, 3, 2])}
    channels = (3, 33)  # within one block of channels, and just over one
    sizes = (12, 0, 21)  # just over the largest block of points

    def widths(self, dim: int) -> tuple[int, ...]:
        return self.channels if dim == 1 else self.channels[1:]


# ---------------------------------------------------------------------------------------------------------------------
# The host: what a call costs before a kernel runs, and that nothing waits for the device.
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(enabled)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that would be launched; none is."""
    names: list[str] = []

    def record(kernel: Any, grid: tuple[int, ...], *args: object, **options: object) -> None:
        names.append(kernel.__name__ if hasattr(kernel, "__name__") else kernel.fn.__name__)

    monkeypatch.setattr(cuda, "_launch", record)
    with ops.backend("cuda"), ops.validation(False):
        yield names


def ragged(channels: int, normalize: bool, device: str = DEVICE) -> tuple[Tensor, ...]:
    x, y, z = (torch.ones(8, width, device=device, requires_grad=True) for width in (4, channels, 4))
    scale = torch.ones((), device=device, requires_grad=True)
    ptr = torch.zeros(2, dtype=torch.int64, device=device)
    outputs = ops.set_conv(x, y, z, scale, ptr, ptr, normalize=normalize)
    return torch.autograd.grad(outputs, [x, y, z, scale], [torch.ones_like(output) for output in outputs])


@pytest.mark.parametrize(
    ("channels", "normalize", "kernels"),
    [
        (8, False, ["convolve", "pull", "pull"]),
        (8, True, ["convolve", "pack", "pull", "pull"]),
        (7, False, ["pack", "convolve", "pack", "pack", "pull", "pull"]),
        (64, False, ["convolve_wide", "convolve_wide", "pull_wide", "pull_wide"]),
        (64, True, ["convolve_wide", "convolve_wide", "gradient_of_density", "pull_wide", "pull_wide"]),
    ],
)
def test_a_call_launches_few_kernels_and_none_of_pytorch(
    channels: int, normalize: bool, kernels: list[str], launches: list[str]
) -> None:
    with Dispatched() as dispatched:
        ragged(channels, normalize)
    assert launches == kernels
    assert [name for name in dispatched.launched if name not in ("aten::ones", "aten::zeros", "aten::ones_like")] == []
    assert len([name for name in dispatched.names if "empty" in name]) <= 12


def test_a_grid_needs_few_kernels_of_pytorch(launches: list[str]) -> None:
    x, y = torch.zeros(5, 1, device=DEVICE, requires_grad=True), torch.zeros(5, 3, device=DEVICE, requires_grad=True)
    scale, origin = torch.ones((), device=DEVICE), torch.zeros(1, device=DEVICE)
    ptr = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    with Dispatched() as dispatched:
        _, signal = ops.set_conv_to_grid(x, y, scale, ptr, origin, 0.5, [9], 8)
    assert launches == ["locate", "scatter"]
    assert dispatched.launched == ["aten::zeros", "aten::zeros"]  # what atomic additions add to
    with Dispatched() as dispatched:
        ops.set_conv_from_grid(signal, x, scale, ptr, origin, 0.5, 8)
    assert launches == ["locate", "scatter", "locate", "gather"]
    assert dispatched.launched == []
    with Dispatched() as dispatched, deterministic(True):
        ops.set_conv_to_grid(x, y, scale, ptr, origin, 0.5, [9], 8)
    assert launches[4:] == ["locate", "scatter_sorted"]
    assert dispatched.launched == ["aten::sort", "aten::arange", "aten::searchsorted"]


@pytest.mark.parametrize("channels", [7, 8, 64])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("rows", [8, 2000])
def test_ragged_sets_need_no_value_on_the_host(channels: int, normalize: bool, rows: int, launches: list[str]) -> None:
    # A tensor on the meta device has no values: reading one fails, as it would wait for a GPU.
    def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    x, y, ptr, scale = meta(rows, 4), meta(rows, channels), meta(2, dtype=torch.int64), meta(1, 4)
    arguments = (x, y, x, scale, ptr, ptr, "rbf", normalize, 1e-8)
    density, signal = cuda.set_conv(*arguments)
    assert density.shape == (rows,)
    assert signal.shape == y.shape
    for need_x, need_y in ((True, True), (True, False), (False, True)):
        grads = cuda.set_conv_backward(density, signal, density, signal, *arguments, need_x, need_y)
        assert [grad.numel() > 0 for grad in grads] == [need_x, need_y, need_x, need_x]
    assert launches


@pytest.mark.parametrize("ordered", [False, True])
def test_grids_need_no_value_on_the_host(ordered: bool, launches: list[str]) -> None:
    def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    x, y, ptr = meta(50, 2), meta(50, 20), meta(3, dtype=torch.int64)
    grid = (meta(2), ptr, meta(2, 2), [0.5, 0.5])
    with deterministic(ordered):
        density, signal = cuda.set_conv_to_grid(x, y, *grid, [6, 7], [4, 4], "rbf")
    assert signal.shape == (2, 6, 7, 20)
    cuda.set_conv_from_grid(signal, x, *grid, [4, 4], "rbf")
    cuda.grid_gradient(y, None, signal, density, x, *grid, [4, 4], "rbf")
    assert launches == [
        *("locate", "scatter_sorted" if ordered else "scatter"),
        *("locate", "gather", "locate", "gradient"),
    ]


class Kernel:
    """Stands for a kernel of Triton: the first launch compiles and returns what later ones may use."""

    arg_names: ClassVar = ["x", "y", "count", "WIDTH"]
    __name__ = "kernel"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: object, **options: object) -> Any:
            self.calls.append(f"compile {grid}")
            return Compiled(self)

        return launch


class Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args: self.kernel.calls.append(f"launch {grid} {args[2:]}")


def test_a_kernel_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_interpreted", lambda: False)
    monkeypatch.setattr(cuda, "_compiled", {})
    kernel: Any = Kernel()
    x, y = torch.zeros(8), torch.zeros(8)

    def launch(x: Tensor, y: Tensor, count: int, width: int, grid: tuple[int, ...] = (3,)) -> list[str]:
        kernel.calls.clear()
        cuda._launch(kernel, grid, (x, y), (count,), {"WIDTH": width}, num_warps=4)
        return kernel.calls

    assert launch(x, y, 8, 2) == ["compile (3,)"]
    assert launch(x, y, 9, 2, (4, 5)) == ["launch (4, 5, 1) (9, 2)"]
    assert launch(x, y, 9, 4) == ["compile (3,)"]  # another constant
    assert launch(x, y.half(), 9, 2) == ["compile (3,)"]  # another type
    for _ in range(2):  # not aligned: Triton decides every time
        assert launch(x[1:], y, 9, 2) == ["compile (3,)"]
    assert launch(x, y, 9, 2) == ["launch (3, 1, 1) (9, 2)"]
    assert launch(x, y, 9, 2, (0,)) == []
    monkeypatch.setattr(cuda, "_MOST_COMPILED", 3)
    assert launch(x, y, 9, 6) == ["compile (3,)"]
    assert launch(x, y, 9, 2) == ["compile (3,)"]


def test_tf32_is_for_those_who_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with precision("highest"):
        assert cuda._precision(torch.float32) == "tf32x3"
    with precision("high"):
        assert cuda._precision(torch.float32) == "tf32"
    monkeypatch.setattr(cuda, "_interpreted", lambda: False)
    assert cuda._precision(torch.bfloat16) == "half"


def test_compiled_kernels_take_the_arguments_of_the_host(tmp_path: Path) -> None:
    # In another process, because this one may have loaded Triton as an interpreter.
    script = Path(__file__).parents[2] / "benchmarks" / "host_overhead.py"
    command = [sys.executable, str(script), "--rounds", "1", "--calls", "1", "--out", str(tmp_path / "rows.csv")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "set_conv, forward and backward" in result.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that captures a graph")
@pytest.mark.parametrize("channels", [8, 64])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("window", [None, 4, 6])  # off the grid; atomic sums; sorted ones
def test_a_captured_graph_replays_on_new_values(channels: int, gradients: bool, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    ptr_src, ptr_dst = pointers([60, 0, 40], "cuda"), pointers([20, 7, 50], "cuda")
    shapes = [(100, 2), (100, channels), (77, 2), (2,)]
    leaves = [(torch.rand(*shape, generator=generator) + 0.5).cuda().requires_grad_() for shape in shapes]
    origin = torch.zeros(3, 2, device="cuda")

    def run(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        outputs = ops.set_conv(x, y, z, scale, ptr_src, ptr_dst, normalize=True)
        if window is not None:
            grid = (origin, 0.25, [9, 9], window)
            outputs = (*outputs, *ops.set_conv_to_grid(x, y, scale, ptr_src, *grid, tolerance=None))
        if not gradients:
            return outputs
        grads = torch.autograd.grad(outputs, [x, y, z, scale], [torch.ones_like(output) for output in outputs])
        return *outputs, *grads

    # Kernels are compiled and loaded before the capture, on another stream as PyTorch asks for.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(*leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(*leaves)
    for _ in range(2):
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(torch.rand(*leaf.shape, generator=generator) + 0.5)
        graph.replay()
        with ops.backend("reference"):
            expected = run(*leaves)
        for a, e in zip(results, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4 * float(e.detach().abs().max()))
