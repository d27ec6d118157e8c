r"""The test suite of a set-convolution back end, as classes to subclass.

A subclass names its back end and inherits all checks: agreement with the double-precision reference, invariances,
ragged batches, empty sets, gradients. pytest collects only the subclasses.

Example:
    >>> class TestReference(SetConvTestCase):
    ...     backend = "reference"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_nas_np import ops

Function = Callable[..., tuple[Tensor, Tensor]]

# Called with lists of tensors, whose number a type checker cannot know.
_set_conv: Function = ops.set_conv
_to_grid: Function = ops.set_conv_to_grid


class Problem(NamedTuple):
    r"""Random arguments of :func:`pyg_nas_np.ops.set_conv`."""

    x_src: Tensor
    y_src: Tensor
    x_dst: Tensor
    lengthscale: Tensor
    ptr_src: Tensor
    ptr_dst: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""The differentiable arguments."""
        return self.x_src, self.y_src, self.x_dst, self.lengthscale


def pointers(sizes: Sequence[int], device: str = "cpu") -> Tensor:
    r"""Returns the offsets of sets of the given sizes.

    Example:
        >>> pointers([2, 0, 3])
        tensor([0, 2, 2, 5])
    """
    return torch.tensor([0, *sizes], dtype=torch.int64, device=device).cumsum(0)


def rounding(dtype: torch.dtype, terms: int) -> float:
    r"""Returns a tolerance for the difference between two sums of the same terms in different orders.

    The tolerance is relative to the largest entry of the result. Rounding errors accumulate like a random walk, so it
    grows with the root of the number of terms; each term has a few rounding errors itself. The order of a sum depends
    on vector width, memory layout and number of threads, so equal bits can be expected only of repeated calls.

    Args:
        dtype: The type in which the sums are formed.
        terms: Number of terms, in a batch of sets that of the largest.

    Example:
        >>> rounding(torch.float32, 100) < 1e-5
        True
    """
    return 8 * torch.finfo(dtype).eps * math.sqrt(max(1, terms))


class Dispatched(TorchDispatchMode):
    r"""Records the names of PyTorch's operators that run inside a ``with`` block, also inside of those of this package.

    Example:
        >>> with Dispatched() as dispatched:
        ...     total = torch.ones(2).sum()
        >>> dispatched.names
        ['aten::ones', 'aten::sum']
    """

    # They launch no kernel: views, and memory that is not filled.
    FREE: ClassVar = frozenset(
        {
            *("alias", "as_strided", "detach", "empty", "empty_like", "empty_strided", "expand", "lift_fresh"),
            *("new_empty", "permute", "select", "slice", "split", "squeeze", "t", "transpose", "unsqueeze", "view"),
            *("_unsafe_view", "new_empty_strided"),
        }
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.startswith("pyg_nas_np::"):
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **(kwargs or {}))
        with self:  # such as conversions to the type that a tensor has already
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        self.names.append(name.split(".")[0])
        return func(*args, **(kwargs or {}))

    @property
    def launched(self) -> list[str]:
        r"""Those that launch a kernel on a device."""
        return [name for name in self.names if name.removeprefix("aten::") not in self.FREE]


class _BackendTestCase:
    backend: ClassVar[str]
    device: ClassVar[str] = "cpu"
    # Relative to the largest entry of each result.
    tolerances: ClassVar[dict[torch.dtype, float]] = {torch.float64: 1e-10, torch.float32: 1e-5}
    # Largest number of points per set; small for interpreted back ends.
    size: ClassVar[int] = 150

    @pytest.fixture(autouse=True)
    def _use_backend(self) -> Iterator[None]:
        with ops.backend(self.backend):
            yield

    @classmethod
    def dtypes(cls) -> list[torch.dtype]:
        return list(cls.tolerances)

    def generator(self, seed: int = 0) -> torch.Generator:
        return torch.Generator("cpu").manual_seed(seed)

    def randn(self, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=self.generator(seed), dtype=torch.float64, device="cpu").to(
            self.device, dtype
        )

    def assert_near(self, actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
        assert actual.shape == expected.shape, f"{what}: {list(actual.shape)} instead of {list(expected.shape)}"
        if actual.numel() == 0:
            return
        error = (actual.double() - expected.double()).abs().max()
        scale = expected.double().abs().max().clamp_min(1e-300)
        assert error <= tolerance * scale, f"{what}: error {error:.2e} at scale {scale:.2e}, tolerance {tolerance:.0e}"

    def outputs_and_gradients(self, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
        leaves = [value.detach().clone().requires_grad_() for value in inputs]
        outputs = function(*leaves)
        grads = [
            self.randn(*output.shape, seed=7 + number, dtype=output.dtype) for number, output in enumerate(outputs)
        ]
        return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]

    def check(self, function: Function, inputs: Sequence[Tensor], dtype: torch.dtype) -> None:
        r"""Compares outputs and gradients with those of the reference on the same numbers in double precision."""
        inputs = [value.to(dtype) for value in inputs]
        actual = self.outputs_and_gradients(function, inputs)
        with ops.backend("reference"):
            expected = self.outputs_and_gradients(function, [value.double() for value in inputs])
        for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
            name = ("density", "signal")[number] if number < 2 else f"gradient {number - 2}"
            # The gradient of a length scale is one number summed over all pairs, with terms of both signs.
            cancelling = number - 2 >= 0 and inputs[number - 2].dim() <= 2 and inputs[number - 2].numel() <= 64
            self.assert_near(a, e, self.tolerances[dtype] * (20 if cancelling else 1), name)


class SetConvTestCase(_BackendTestCase):
    r"""Checks :func:`pyg_nas_np.ops.set_conv`."""

    def problem(
        self,
        sources: Sequence[int],
        targets: Sequence[int],
        dim: int = 3,
        channels: int = 5,
        heads: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> Problem:
        head = () if heads is None else (heads,)
        n, m = sum(sources), sum(targets)
        return Problem(
            self.randn(n, *head, dim, seed=seed, dtype=dtype),
            self.randn(n, *head, channels, seed=seed + 1, dtype=dtype),
            self.randn(m, *head, dim, seed=seed + 2, dtype=dtype),
            (self.randn(*head, dim, seed=seed + 3, dtype=dtype).abs() + 0.5 * dim**0.5),
            pointers(sources, self.device),
            pointers(targets, self.device),
        )

    def compare(self, p: Problem, dtype: torch.dtype, **options: object) -> None:
        def function(x_src: Tensor, y_src: Tensor, x_dst: Tensor, lengthscale: Tensor) -> tuple[Tensor, Tensor]:
            return _set_conv(x_src, y_src, x_dst, lengthscale, p.ptr_src, p.ptr_dst, **options)

        self.check(function, p.tensors, dtype)

    @pytest.mark.parametrize("kernel", ops.KERNELS)
    @pytest.mark.parametrize("normalize", [False, True])
    def test_agrees_with_the_reference(self, kernel: str, normalize: bool) -> None:
        for dtype in self.dtypes():
            p = self.problem([self.size, 0, 7], [11, 4, self.size // 2])
            self.compare(p, dtype, kernel=kernel, normalize=normalize, eps=1e-3)

    @pytest.mark.parametrize(
        ("dim", "channels"), [(1, 1), (2, 16), (3, 0), (4, 70), (8, 8), (17, 21), (33, 3), (64, 18)]
    )
    def test_all_widths(self, dim: int, channels: int) -> None:
        # An interpreted back end takes minutes for many wide rows.
        count = self.size // (2 if dim * channels < 1000 else 12)
        for dtype in self.dtypes():
            self.compare(self.problem([count + 1, 3], [5, count], dim, channels), dtype)

    def test_heads(self) -> None:
        for dtype in self.dtypes():
            self.compare(self.problem([self.size // 4, 5], [6, self.size // 4], heads=3), dtype, normalize=True)

    def test_an_argument_without_heads_is_shared(self) -> None:
        p = self.problem([9, 4], [3, 6], dim=2, channels=3)
        q = self.problem([9, 4], [3, 6], dim=2, channels=3, heads=2, seed=4)
        combinations: list[tuple[Tensor, Tensor, Tensor, Tensor]] = [
            (p.x_src, p.y_src, p.x_dst, q.lengthscale),
            (p.x_src, p.y_src, p.x_dst, q.lengthscale[:, :1]),
            (p.x_src, q.y_src, p.x_dst, p.lengthscale),
            (q.x_src, p.y_src, q.x_dst, p.lengthscale),
            (q.x_src, p.y_src, q.x_dst, p.lengthscale[:1].squeeze()),
        ]
        for x_src, y_src, x_dst, lengthscale in combinations:
            args = [value.to(self.dtypes()[-1]) for value in (x_src, y_src, x_dst, lengthscale)]
            density, signal = _set_conv(*args, p.ptr_src, p.ptr_dst)
            assert density.shape == (9, 2)
            assert signal.shape == (9, 2, 3)
            for head in range(2):
                one = [
                    v[:, head] if v.dim() == 3 else v[head] if v.dim() == 2 and k == 3 else v
                    for k, v in enumerate(args)
                ]
                one[3] = one[3].squeeze() if one[3].numel() == 1 else one[3]
                alone = _set_conv(*one, p.ptr_src, p.ptr_dst)
                self.assert_near(density[:, head], alone[0], rounding(density.dtype, 9), "density")
                self.assert_near(signal[:, head], alone[1], rounding(density.dtype, 9), "signal")

    @pytest.mark.parametrize("heads", [None, 2])
    def test_one_lengthscale_for_all_dimensions(self, heads: int | None) -> None:
        for dtype in self.dtypes():
            p = self.problem([self.size // 4, 5], [6, self.size // 4], heads=heads)
            scale = p.lengthscale[..., 0].clone() if heads is None else p.lengthscale[:, :1].clone()

            def function(
                x_src: Tensor, y_src: Tensor, x_dst: Tensor, scale: Tensor, p: Problem = p
            ) -> tuple[Tensor, Tensor]:
                return _set_conv(x_src, y_src, x_dst, scale, p.ptr_src, p.ptr_dst)

            self.check(function, [p.x_src, p.y_src, p.x_dst, scale], dtype)

    @pytest.mark.parametrize("sizes", [([1], [1]), ([1], [70]), ([70], [1]), ([65], [64]), ([0], [5]), ([5], [0])])
    def test_small_and_odd_sizes(self, sizes: tuple[list[int], list[int]]) -> None:
        for dtype in self.dtypes():
            self.compare(self.problem(*sizes), dtype)

    def test_no_points_at_all(self) -> None:
        p = self.problem([], [], dtype=self.dtypes()[-1])
        density, signal = _set_conv(*p)
        assert density.shape == (0,)
        assert signal.shape == (0, 5)

    def test_empty_sets_give_zero(self) -> None:
        p = self.problem([0, 4, 0], [3, 0, 2], dtype=self.dtypes()[-1])
        density, signal = _set_conv(*p, normalize=True)
        assert torch.equal(density, torch.zeros_like(density))
        assert torch.equal(signal, torch.zeros_like(signal))
        leaves = [value.clone().requires_grad_() for value in p.tensors]
        outputs = _set_conv(*leaves, p.ptr_src, p.ptr_dst, normalize=True)
        for grad in torch.autograd.grad([output.sum() for output in outputs], leaves):
            assert torch.equal(grad, torch.zeros_like(grad))

    def test_a_ragged_batch_is_its_sets_one_at_a_time(self) -> None:
        sources, targets = [5, 0, 40, 1], [3, 2, 17, 30]
        p = self.problem(sources, targets, dtype=self.dtypes()[-1])
        density, signal = _set_conv(*p, normalize=True)
        for s, (n, m) in enumerate(zip(sources, targets, strict=True)):
            i, j = int(p.ptr_src[s]), int(p.ptr_dst[s])
            alone = _set_conv(
                p.x_src[i : i + n],
                p.y_src[i : i + n],
                p.x_dst[j : j + m],
                p.lengthscale,
                pointers([n], self.device),
                pointers([m], self.device),
                normalize=True,
            )
            self.assert_near(density[j : j + m], alone[0], rounding(density.dtype, n), "density")
            self.assert_near(signal[j : j + m], alone[1], rounding(density.dtype, n), "signal")

    def test_permuting_the_sources_changes_nothing(self) -> None:
        p = self.problem([60], [20], dtype=self.dtypes()[-1])
        order = torch.randperm(60, generator=self.generator(3)).to(self.device)
        expected = _set_conv(*p)
        actual = _set_conv(p.x_src[order], p.y_src[order], *p[2:])
        for a, e in zip(actual, expected, strict=True):
            self.assert_near(a, e, rounding(e.dtype, 60), "permuted")

    def test_moving_all_points_changes_nothing(self) -> None:
        # Multiples of 1/64 remain exact when shifted by 4096, so only the arithmetic of the operator can differ.
        p = self.problem([60], [20], dtype=self.dtypes()[-1])
        x_src, x_dst = (torch.round(value * 64) / 64 for value in (p.x_src, p.x_dst))
        expected = _set_conv(x_src, p.y_src, x_dst, *p[3:])
        actual = _set_conv(x_src + 4096, p.y_src, x_dst + 4096, *p[3:])
        for a, e in zip(actual, expected, strict=True):
            self.assert_near(a, e, rounding(e.dtype, 60), "moved")

    def test_the_signal_is_linear_in_the_values(self) -> None:
        p = self.problem([50], [20], dtype=self.dtypes()[-1])
        other = self.randn(50, 5, seed=9, dtype=self.dtypes()[-1])
        both = _set_conv(p.x_src, 2 * p.y_src + other, *p[2:])[1]
        apart = 2 * _set_conv(*p)[1] + _set_conv(p.x_src, other, *p[2:])[1]
        self.assert_near(both, apart, rounding(both.dtype, 50), "signal")

    def test_limits_of_the_lengthscale(self) -> None:
        p = self.problem([30], [1], dtype=self.dtypes()[-1])
        _, nearest = _set_conv(p.x_src, p.y_src, p.x_src[4:5], 1e-3, *p[4:], normalize=True)
        self.assert_near(nearest, p.y_src[4:5], 1e-6, "a short length scale interpolates")
        _, mean = _set_conv(p.x_src, p.y_src, p.x_dst, 1e4, *p[4:], normalize=True)
        self.assert_near(mean, p.y_src.mean(0, keepdim=True), 1e-5, "a long one averages")

    def test_far_targets_get_exactly_zero(self) -> None:
        p = self.problem([30], [1], dtype=self.dtypes()[-1])
        density, signal = _set_conv(p.x_src, p.y_src, p.x_dst + 1e6, 1.0, *p[4:], normalize=True)
        assert density.item() == 0
        assert torch.equal(signal, torch.zeros_like(signal))

    def test_nan_stays_visible(self) -> None:
        p = self.problem([8], [4], dtype=self.dtypes()[-1])
        x_dst = p.x_dst.clone()
        x_dst[2, 1] = float("nan")
        density, _ = _set_conv(p.x_src, p.y_src, x_dst, *p[3:])
        assert density.isnan().tolist() == [False, False, True, False]

    def test_non_contiguous_inputs(self) -> None:
        for dtype in self.dtypes():
            p = self.problem([20, 11], [9, 8], dtype=dtype)
            expected = _set_conv(*p)
            strided = [torch.stack([v, v], dim=-1)[..., 0] for v in p.tensors]
            transposed = [v.t().contiguous().t() if v.dim() == 2 else v for v in p.tensors]
            for inputs in (strided, transposed):
                for a, e in zip(_set_conv(*inputs, p.ptr_src, p.ptr_dst), expected, strict=True):
                    self.assert_near(a, e, rounding(dtype, 20), "other strides")

    def test_repeated_calls_agree_to_the_last_bit(self) -> None:
        p = self.problem([self.size], [self.size], dtype=self.dtypes()[-1])

        def function(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            return _set_conv(*inputs, p.ptr_src, p.ptr_dst)

        first = self.outputs_and_gradients(function, p.tensors)
        second = self.outputs_and_gradients(function, p.tensors)
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b)

    def test_gradients_of_some_arguments_only(self) -> None:
        p = self.problem([12, 3], [4, 6], dtype=self.dtypes()[-1])

        def function(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            return _set_conv(*inputs, p.ptr_src, p.ptr_dst)

        everything = self.outputs_and_gradients(function, p.tensors)[2:]
        for wanted in range(4):
            leaves = [v.clone().requires_grad_(k == wanted) for k, v in enumerate(p.tensors)]
            outputs = function(*leaves)
            grads = [self.randn(*o.shape, seed=7 + k, dtype=o.dtype) for k, o in enumerate(outputs)]
            (grad,) = torch.autograd.grad(outputs, [leaves[wanted]], grads)
            # The gradient of the length scale sums over all pairs.
            terms = 12 if wanted < 3 else 12 * 4 + 3 * 6
            self.assert_near(grad, everything[wanted], rounding(grad.dtype, terms), f"gradient {wanted}")

    def test_second_derivatives_agree_with_the_reference(self) -> None:
        for dtype in self.dtypes():
            p = self.problem([7, 0, 3], [4, 2, 5], dim=2, channels=3)

            def gradients(*inputs: Tensor, p: Problem = p) -> tuple[Tensor, Tensor]:
                outputs = _set_conv(*inputs, p.ptr_src, p.ptr_dst, normalize=True, eps=1e-2)
                weights = [self.randn(*output.shape, seed=5, dtype=output.dtype) for output in outputs]
                x_grad, y_grad = torch.autograd.grad(outputs, inputs[:2], weights, create_graph=True)
                return x_grad, y_grad

            self.check(gradients, p.tensors, dtype)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_sums_in_single(self, dtype: torch.dtype) -> None:
        p = self.problem([self.size], [9], dtype=dtype)
        density, signal = _set_conv(*p[:3], p.lengthscale.float(), *p[4:])
        assert density.dtype == signal.dtype == dtype
        with ops.backend("reference"):
            exact = _set_conv(*(value.double() for value in p.tensors), *p[4:])
        self.assert_near(density, exact[0], torch.finfo(dtype).eps, "density")
        self.assert_near(signal, exact[1], torch.finfo(dtype).eps, "signal")


class GridTestCase(_BackendTestCase):
    r"""Checks :func:`pyg_nas_np.ops.set_conv_to_grid` and :func:`pyg_nas_np.ops.set_conv_from_grid`."""

    shapes: ClassVar[dict[int, tuple[list[int], list[int]]]] = {
        1: ([37], [9]),
        2: ([12, 21], [5, 8]),
        3: ([6, 5, 9], [3, 4, 6]),
    }

    channels: ClassVar[tuple[int, ...]] = (1, 3, 16, 21)
    # Numbers of points of three sets.
    sizes: ClassVar[tuple[int, int, int]] = (23, 0, 40)

    def points(self, dim: int, channels: int, sizes: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns points in and around the grids, their values and the offsets of their sets."""
        sizes = self.sizes if sizes is None else sizes
        shape = torch.tensor(self.shapes[dim][0], dtype=torch.float64, device=self.device)
        count = sum(sizes)
        x = torch.rand(count, dim, generator=self.generator(1), dtype=torch.float64, device="cpu").to(self.device)
        return (x * 1.4 - 0.2) * shape * 0.5, self.randn(count, channels, seed=2), pointers(sizes, self.device)

    def widths(self, dim: int) -> tuple[int, ...]:
        r"""Returns the numbers of channels to try on grids of a dimension; fewer where kernels are interpreted."""
        return self.channels

    def origins(self, dim: int) -> Tensor:
        return self.randn(3, dim, seed=3).abs()

    @pytest.mark.parametrize("kernel", ops.KERNELS)
    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_to_grid_agrees_with_the_reference(self, dim: int, kernel: str) -> None:
        shape, window = self.shapes[dim]
        origin, scale = self.origins(dim), torch.full((dim,), 0.6, dtype=torch.float64, device=self.device)
        for dtype in self.dtypes():
            for channels in self.widths(dim):
                x, y, ptr = self.points(dim, channels)

                def function(x: Tensor, y: Tensor, scale: Tensor, ptr: Tensor = ptr) -> tuple[Tensor, Tensor]:
                    return _to_grid(x, y, scale, ptr, origin, 0.5, shape, window, kernel=kernel, tolerance=None)

                self.check(function, [x, y, scale], dtype)

    @pytest.mark.parametrize("kernel", ops.KERNELS)
    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_from_grid_agrees_with_the_reference(self, dim: int, kernel: str) -> None:
        shape, window = self.shapes[dim]
        origin, scale = self.origins(dim), torch.full((dim,), 0.6, dtype=torch.float64, device=self.device)
        for dtype in self.dtypes():
            for channels in self.widths(dim):
                x, _, ptr = self.points(dim, channels)
                values = self.randn(3, *shape, channels, seed=5)

                def function(values: Tensor, x: Tensor, scale: Tensor, ptr: Tensor = ptr) -> tuple[Tensor, Tensor]:
                    return ops.set_conv_from_grid(
                        values, x, scale, ptr, origin, 0.5, window, kernel=kernel, tolerance=None
                    )

                self.check(function, [values, x, scale], dtype)

    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_each_is_the_adjoint_of_the_other(self, dim: int) -> None:
        shape, window = self.shapes[dim]
        dtype = self.dtypes()[-1]
        x, y, ptr = self.points(dim, 4)
        x, y, values = x.to(dtype), y.to(dtype), self.randn(3, *shape, 4, seed=5, dtype=dtype)
        origin = self.origins(dim)
        there = _to_grid(x, y, 0.6, ptr, origin, 0.5, shape, window, tolerance=None)[1]
        back = ops.set_conv_from_grid(values, x, 0.6, ptr, origin, 0.5, window, tolerance=None)[1]
        left, right = (there * values).double(), (y * back).double()
        # Terms of both signs cancel.
        scale = float(torch.maximum(left.abs().sum(), right.abs().sum()))
        assert float(left.sum()) == pytest.approx(float(right.sum()), abs=rounding(dtype, x.size(0)) * scale)

    def test_a_wide_window_agrees_with_the_dense_convolution(self) -> None:
        dtype = self.dtypes()[-1]
        x, y, ptr = self.points(1, 3)
        x, y, origin = x.to(dtype), y.to(dtype), self.origins(1)
        error = 1e-6
        window = ops.window_for(0.3, 0.5, error)
        density, signal = _to_grid(x, y, 0.3, ptr, origin, 0.5, [37], window)
        cells = origin[:, None].to(dtype) + 0.5 * torch.arange(37, device=self.device, dtype=dtype)[:, None]
        dense = _set_conv(x, y, cells.reshape(-1, 1), 0.3, ptr, pointers([37] * 3, self.device))
        assert (density.flatten() - dense[0]).abs().max() <= 40 * error + 1e-5
        assert (signal.flatten(0, 1) - dense[1]).abs().max() <= 40 * error * y.abs().max() + 1e-5

    def test_moving_points_and_grid_changes_nothing(self) -> None:
        dtype = self.dtypes()[-1]
        x, y, ptr = self.points(2, 3)
        x, y, origin = (torch.round(x * 64) / 64).to(dtype), y.to(dtype), torch.round(self.origins(2) * 64) / 64
        geometry = (0.5, *self.shapes[2])
        # Both for sums in a fixed order and for atomic additions in any order.
        deterministic = torch.are_deterministic_algorithms_enabled()
        for ordered in (True, False):
            torch.use_deterministic_algorithms(ordered)
            try:
                here = _to_grid(x, y, 0.6, ptr, origin, *geometry, tolerance=None)
                there = _to_grid(x + 4096, y, 0.6, ptr, origin + 4096, *geometry, tolerance=None)
            finally:
                torch.use_deterministic_algorithms(deterministic)
            for a, b in zip(here, there, strict=True):
                self.assert_near(b, a, rounding(dtype, 40), "moved")

    def test_one_set_at_a_time(self) -> None:
        dtype = self.dtypes()[-1]
        x, y, ptr = self.points(2, 3)
        x, y, origin = x.to(dtype), y.to(dtype), self.origins(2)
        options = {"normalize": True, "eps": 1e-3, "tolerance": None}
        density, signal = _to_grid(x, y, 0.6, ptr, origin, 0.5, *self.shapes[2], **options)
        for s in range(3):
            part = slice(int(ptr[s]), int(ptr[s + 1]))
            size = pointers([part.stop - part.start], self.device)
            alone = _to_grid(x[part], y[part], 0.6, size, origin[s], 0.5, *self.shapes[2], **options)
            self.assert_near(density[s : s + 1], alone[0], rounding(dtype, 40), "density")
            self.assert_near(signal[s : s + 1], alone[1], rounding(dtype, 40), "signal")
        assert not density[1].any()

    def test_points_off_the_grid_reach_nothing(self) -> None:
        dtype = self.dtypes()[-1]
        x = torch.tensor([[-100.0], [1e30], [float("nan")], [1.0]], device=self.device, dtype=dtype)
        y = torch.ones(4, 2, device=self.device, dtype=dtype)
        ptr, origin = pointers([4], self.device), torch.zeros(1, dtype=dtype, device=self.device)
        density, _ = _to_grid(x, y, 0.5, ptr, origin, 0.5, [6], 8)
        assert abs(float(density[0, 2]) - 1) < 1e-6
        values = torch.ones(1, 6, 2, device=self.device, dtype=dtype)
        density, signal = ops.set_conv_from_grid(values, x, 0.5, ptr, origin, 0.5, 8)
        assert density[:3].tolist() == [0, 0, 0]
        assert torch.equal(signal[:3], torch.zeros_like(signal[:3]))

    @pytest.mark.parametrize(("sizes", "shape"), [([0], [5]), ([3], [0]), ([], [4])])
    def test_nothing_to_do(self, sizes: list[int], shape: list[int]) -> None:
        count, dtype = sum(sizes), self.dtypes()[-1]
        x = torch.zeros(count, 1, device=self.device, dtype=dtype)
        y = torch.ones(count, 2, device=self.device, dtype=dtype)
        ptr, origin = pointers(sizes, self.device), torch.zeros(1, dtype=dtype, device=self.device)
        density, signal = _to_grid(x, y, 0.5, ptr, origin, 0.5, shape, 8, tolerance=None)
        assert density.shape == (len(sizes), *shape)
        assert signal.shape == (len(sizes), *shape, 2)
        assert not density.any()
        density, signal = ops.set_conv_from_grid(signal, x, 0.5, ptr, origin, 0.5, 8, tolerance=None)
        assert density.shape == (count,)
        assert signal.shape == (count, 2)

    def test_deterministic_sums_agree_to_the_last_bit(self) -> None:
        dtype = self.dtypes()[-1]
        x, y, ptr = self.points(2, 3, sizes=(90, 0, 60))
        x, y, origin = x.to(dtype), y.to(dtype), self.origins(2)
        geometry = (origin, 0.5, *self.shapes[2])
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            first, second = (_to_grid(x, y, 0.6, ptr, *geometry, tolerance=None) for _ in range(2))
        finally:
            torch.use_deterministic_algorithms(before)
        free = _to_grid(x, y, 0.6, ptr, *geometry, tolerance=None)
        for a, b, c in zip(first, second, free, strict=True):
            assert torch.equal(a, b)
            self.assert_near(a, c, rounding(dtype, 90), "deterministic sums")
