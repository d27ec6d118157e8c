"""The C++ back end on every instruction set of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu
from pyg_nas_np.ops.testing import GridTestCase, SetConvTestCase, pointers

needs_library = pytest.mark.skipif(not cpu.is_available(), reason="installed without a C++ compiler")


class _OneInstructionSet:
    backend = "cpu"
    instruction_set: str

    @pytest.fixture(autouse=True)
    def _force(self) -> Iterator[None]:
        before = cpu.instruction_set()
        if not cpu.kernels().pnn_force_instruction_set(self.instruction_set.encode()):
            pytest.skip(f"this machine has no {self.instruction_set}")
        yield
        cpu.kernels().pnn_force_instruction_set(before.encode())


@needs_library
class TestSetConvAVX512(_OneInstructionSet, SetConvTestCase):
    instruction_set = "avx512"


@needs_library
class TestSetConvAVX2(_OneInstructionSet, SetConvTestCase):
    instruction_set = "avx2"


@needs_library
class TestSetConvBaseline(_OneInstructionSet, SetConvTestCase):
    instruction_set = "baseline"


@needs_library
class TestGridAVX512(_OneInstructionSet, GridTestCase):
    instruction_set = "avx512"


@needs_library
class TestGridAVX2(_OneInstructionSet, GridTestCase):
    instruction_set = "avx2"


@needs_library
class TestGridBaseline(_OneInstructionSet, GridTestCase):
    instruction_set = "baseline"


def _problem(n: int, m: int, dim: int = 3, channels: int = 4, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(*s, generator=generator, dtype=dtype) for s in ((n, dim), (n, channels), (m, dim)))
    return x, y, z, torch.full((dim,), 1.3, dtype=dtype), pointers([n]), pointers([m])


def _everything(args: tuple[torch.Tensor, ...], **options: bool) -> list[torch.Tensor]:
    leaves = [value.detach().clone().requires_grad_() for value in args[:4]]
    outputs = ops.set_conv(*leaves, *args[4:], **options)
    return [*outputs, *torch.autograd.grad([output.square().sum() for output in outputs], leaves)]


@needs_library
@pytest.mark.parametrize(
    ("n", "m"),
    [(1500, 700), (300, 900), (1 << 16, 5)],
    ids=["latin square", "sums of their own for the sources", "parts of the sources"],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_every_schedule_agrees_with_the_reference(n: int, m: int, normalize: bool):
    args = _problem(n, m, dtype=torch.float64)
    with ops.backend("cpu"):
        actual = _everything(args, normalize=normalize)
    with ops.backend("reference"):
        expected = _everything(args, normalize=normalize)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10 * float(e.detach().abs().max()))


def _assert_equal_with_any_threads(run: Callable[[], Sequence[Tensor]]) -> None:
    """A promise of the library, whose blocks follow from the problem alone; nothing else may stand between calls."""
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with ops.backend("cpu"):
                results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@needs_library
def test_results_do_not_depend_on_the_number_of_threads():
    args = _problem(1500, 1200, channels=16)
    leaves = [value.clone().requires_grad_() for value in args[:4]]
    grads = [torch.ones(1200), torch.ones(1200, 16)]

    def run() -> list[Tensor]:
        outputs = ops.set_conv(*leaves, *args[4:])
        return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]

    _assert_equal_with_any_threads(run)


@needs_library
def test_a_million_sources():
    x, y, z, scale, _, _ = _problem(1_000_000, 3, channels=2)
    with ops.backend("cpu"):
        density, signal = ops.set_conv(x, y, z, scale, pointers([1_000_000]), pointers([3]))
    weights = torch.exp(-0.5 * torch.cdist(z.double() / 1.3, x.double() / 1.3).square())
    torch.testing.assert_close(density.double(), weights.sum(1), rtol=1e-6, atol=0)
    expected = weights @ y.double()
    assert (signal.double() - expected).abs().max() <= 1e-5 * expected.abs().max()


@needs_library
def test_memory_is_linear_in_the_points():
    # 20,000 x 20,000 float32 weights would be 1.6 GB, far above the limit of a process whose outputs are 1 MB.
    x, y, z, scale, _, _ = _problem(20_000, 20_000, channels=2)
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ops.backend("cpu"):
        _everything((x, y, z, scale, pointers([20_000]), pointers([20_000])))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # kB


INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


def _grid_outputs_and_gradients(x, y, values, scale, geometry, shape, windows, kernel):
    options = {"kernel": kernel, "tolerance": None}
    leaves = [value.detach().clone().requires_grad_() for value in (x, y, values, scale)]
    there = ops.set_conv_to_grid(leaves[0], leaves[1], leaves[3], *geometry, shape, windows, **options)
    back = ops.set_conv_from_grid(leaves[2], leaves[0], leaves[3], *geometry, windows, **options)
    outputs = [*there, *back]
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]


@needs_library
@given(st.data())
@settings(max_examples=40)
def test_grids_of_any_size_agree_with_the_reference(data: st.DataObject):
    # Channels that fill no vector or many, windows over the edges and wider than the grid, empty sets, cells that no
    # point reaches and points that reach no cell: every output must be written, whatever its memory held before.
    dim = data.draw(st.integers(1, 3), "dim")
    shape = data.draw(st.lists(st.integers(1, (90, 19, 7)[dim - 1]), min_size=dim, max_size=dim), "shape")
    windows = data.draw(st.lists(st.integers(1, (40, 11, 6)[dim - 1]), min_size=dim, max_size=dim), "window")
    sizes = data.draw(st.lists(st.integers(0, 70), min_size=1, max_size=3), "sizes")
    channels = data.draw(st.sampled_from([1, 2, 5, 8, 16, 19, 40, 300]), "channels")
    kernel = data.draw(st.sampled_from(ops.KERNELS), "kernel")
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), "dtype")
    spread = data.draw(st.sampled_from([0.05, 1.0, 1.6]), "spread")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000), "seed"))
    place = (torch.rand(sum(sizes), dim, generator=generator, dtype=torch.float64) - 0.5) * spread + 0.5
    x = (place * torch.tensor(shape, dtype=torch.float64) * 0.5).to(dtype)
    y, values = (
        torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)
        for size in ((sum(sizes), channels), (len(sizes), *shape, channels))
    )
    origin = torch.rand(len(sizes), dim, generator=generator, dtype=torch.float64)
    arguments = (y, values, torch.full((dim,), 0.7, dtype=dtype), (pointers(sizes), origin, 0.5))
    with ops.backend("reference"):
        y64, values64, scale64 = (value.double() for value in arguments[:3])
        expected = _grid_outputs_and_gradients(x.double(), y64, values64, scale64, arguments[3], shape, windows, kernel)
    before = cpu.instruction_set()
    try:
        for name in INSTRUCTION_SETS:
            if not cpu.kernels().pnn_force_instruction_set(name.encode()):
                continue
            with ops.backend("cpu"):
                actual = _grid_outputs_and_gradients(x, *arguments, shape, windows, kernel)
            for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
                # Sums over channels, cells and points of both signs, the last one over all of them.
                tolerance = (1e-10 if dtype == torch.float64 else 1e-5) * (1 if number < 4 else 40)
                size = float(e.detach().abs().max()) if e.numel() else 0.0
                torch.testing.assert_close(
                    a.double(), e, rtol=0, atol=tolerance * max(size, 1.0), msg=f"{name} {number}"
                )
    finally:
        cpu.kernels().pnn_force_instruction_set(before.encode())


@needs_library
@pytest.mark.parametrize("kernel", ["rbf", "matern32"])
@pytest.mark.parametrize("shape", [[5000], [150, 70], [40, 30, 20]], ids=["1", "2", "3"])
def test_sums_on_grids_do_not_depend_on_the_number_of_threads(shape: list[int], kernel: str):
    generator = torch.Generator().manual_seed(0)
    n, dim = 70_000 if len(shape) == 1 else 5000, len(shape)
    x = torch.rand(n, dim, generator=generator) * torch.tensor(shape)
    y, values = torch.randn(n, 5, generator=generator), torch.randn(2, *shape, 5, generator=generator)
    geometry = (pointers([n // 3, n - n // 3]), torch.zeros(dim), 1.0)
    scale = torch.full((dim,), 0.8)
    _assert_equal_with_any_threads(lambda: _grid_outputs_and_gradients(x, y, values, scale, geometry, shape, 5, kernel))


def _density_in_child(queue: multiprocessing.Queue[list[float]]) -> None:
    with ops.backend("cpu"):
        queue.put(ops.set_conv(*_problem(2000, 3))[0].tolist())


@needs_library
def test_works_in_a_forked_child():
    args = _problem(2000, 3)
    with ops.backend("cpu"):
        expected = ops.set_conv(*args)[0].tolist()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_density_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(timeout=60)


def test_a_missing_library_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog):
    monkeypatch.setenv("PYG_NAS_NP_CPU_LIBRARY", str(tmp_path / "absent.so"))
    cpu.kernels.cache_clear()
    try:
        assert not cpu.is_available()
        with pytest.raises(ops.BackendUnavailableError, match="no C\\+\\+ compiler was found"), ops.backend("cpu"):
            ops.set_conv(*_problem(2, 2))
        cpu.announce()
        assert "plain PyTorch" in caplog.text
        density, _ = ops.set_conv(*_problem(2, 2))  # automatic: the reference
        assert density.shape == (2,)
    finally:
        cpu.kernels.cache_clear()


def test_a_damaged_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "damaged.so"
    path.write_bytes(b"no library")
    monkeypatch.setenv("PYG_NAS_NP_CPU_LIBRARY", str(path))
    cpu.kernels.cache_clear()
    try:
        with pytest.raises(ops.BackendUnavailableError, match=r"damaged\.so cannot be loaded"):
            cpu.kernels()
    finally:
        cpu.kernels.cache_clear()


@needs_library
def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch):
    before = cpu.instruction_set()
    cpu.kernels.cache_clear()
    try:
        monkeypatch.setenv("PYG_NAS_NP_CPU_ISA", "baseline")
        assert cpu.instruction_set() == "baseline"
        cpu.kernels.cache_clear()
        monkeypatch.setenv("PYG_NAS_NP_CPU_ISA", "mmx")
        with pytest.raises(ValueError, match=r"PYG_NAS_NP_CPU_ISA must be best, avx512, avx2 or baseline.* 'mmx'"):
            cpu.kernels()
    finally:
        monkeypatch.setenv("PYG_NAS_NP_CPU_ISA", before)
        cpu.kernels.cache_clear()
        cpu.kernels()


@needs_library
def test_rates_are_measured():
    assert cpu.measure("fma", 100_000) > cpu.measure("exp", 100_000) > 0
