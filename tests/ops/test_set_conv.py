"""The ragged operator as a citizen of PyTorch: registration, gradients, compilation, export, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu
from pyg_nas_np.ops.testing import pointers

BACKENDS = ["reference", *(["cpu"] if cpu.is_available() else [])]


def problem(sources=(5, 0, 7), targets=(3, 2, 4), dim=2, channels=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, m = sum(sources), sum(targets)
    x_src, y_src, x_dst = (
        torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True)
        for shape in ((n, dim), (n, channels), (m, dim))
    )
    lengthscale = (torch.rand(dim, generator=generator, dtype=dtype) + 0.5).requires_grad_()
    return x_src, y_src, x_dst, lengthscale, pointers(sources), pointers(targets)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", ops.KERNELS)
@pytest.mark.parametrize("normalize", [False, True])
def test_gradients(backend: str, kernel: str, normalize: bool):
    *tensors, ptr_src, ptr_dst = problem((3, 0, 2), (2, 1, 1), channels=2)

    def function(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.set_conv(*inputs, ptr_src, ptr_dst, kernel=kernel, normalize=normalize, eps=1e-2)

    with ops.backend(backend):
        assert torch.autograd.gradcheck(function, tensors)
        assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel", ops.KERNELS)
def test_gradients_at_coincident_points(backend: str, kernel: str):
    x_src, y_src, _, lengthscale, ptr_src, _ = problem((4,), (4,))
    with ops.backend(backend):
        outputs = ops.set_conv(x_src, y_src, x_src, lengthscale, ptr_src, ptr_src, kernel=kernel)
        grads = torch.autograd.grad([output.sum() for output in outputs], [x_src, y_src, lengthscale])
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str):
    x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst = problem()
    heads = [value.unsqueeze(1) for value in (x_src, y_src, x_dst)]
    args = [value.detach().clone().requires_grad_() for value in (*heads, lengthscale.unsqueeze(0))]
    options = (ptr_src, ptr_dst, "rbf", True, 1e-8)
    library.opcheck(torch.ops.pyg_nas_np.set_conv.default, (*args, *options, backend))
    density, signal = torch.ops.pyg_nas_np.set_conv(*args, *options, backend)
    grads = torch.ones_like(density), torch.ones_like(signal)
    outputs = density.detach(), signal.detach()
    inputs = [value.detach() for value in args]
    for need_x, need_y in ((True, True), (False, True), (True, False)):
        library.opcheck(
            torch.ops.pyg_nas_np.set_conv_backward.default,
            (*grads, *outputs, *inputs, *options, need_x, need_y, backend),
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph_with_dynamic_shapes(backend: str):
    def function(x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst):
        density, signal = ops.set_conv(x_src, y_src, x_dst, lengthscale.exp(), ptr_src, ptr_dst, normalize=True)
        return (signal * density.unsqueeze(-1)).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    with ops.backend(backend):
        for sources, targets in (((5, 0, 7), (3, 2, 4)), ((9, 4, 3), (2, 8, 6)), ((1, 30), (40, 2))):
            args = problem(sources, targets)
            expected, actual = function(*args), compiled(*args)
            torch.testing.assert_close(actual, expected)
            for a, e in zip(
                torch.autograd.grad(actual, args[:4]), torch.autograd.grad(expected, args[:4]), strict=True
            ):
                torch.testing.assert_close(a, e)


def test_compiles_with_the_default_compiler():
    # No arithmetic around the call: the C++ that Inductor would generate for it takes a minute to compile.
    def function(*args: torch.Tensor) -> torch.Tensor:
        return ops.set_conv(*args)[1]

    torch._dynamo.reset()
    args = [value.detach() for value in problem()]
    torch.testing.assert_close(torch.compile(function, fullgraph=True)(*args), function(*args))


def test_exports():
    class Model(torch.nn.Module):
        def forward(self, x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst):
            return ops.set_conv(x_src, y_src, x_dst, lengthscale, ptr_src, ptr_dst)

    args = tuple(value.detach() for value in problem())
    n, m, b = (torch.export.Dim(name, min=2) for name in "nmb")
    shapes = ({0: n}, {0: n}, {0: m}, None, {0: b}, {0: b})
    program = torch.export.export(Model(), args, dynamic_shapes=shapes)
    other = tuple(value.detach() for value in problem((3, 3, 3, 3), (2, 1, 1, 9)))
    for a, e in zip(program.module()(*other), ops.set_conv(*other), strict=True):
        torch.testing.assert_close(a, e)


def test_autocast_computes_in_single_precision():
    args = [v.detach().float() if v.is_floating_point() else v for v in problem()]
    expected = ops.set_conv(*args)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = ops.set_conv(args[0], args[1].bfloat16(), *args[2:])
    assert mixed[0].dtype == torch.float32
    torch.testing.assert_close(mixed[0], expected[0])
    torch.testing.assert_close(mixed[1], expected[1], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=5),
    dim=st.integers(1, 5),
    channels=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_any_batch_is_its_sets_one_at_a_time(backend: str, sizes, dim: int, channels: int, seed: int):
    sources, targets = [n for n, _ in sizes], [m for _, m in sizes]
    args = problem(sources, targets, dim, channels, seed=seed)
    with ops.backend(backend):
        density, signal = ops.set_conv(*args)
        i = j = 0
        for n, m in sizes:
            one = (args[0][i : i + n], args[1][i : i + n], args[2][j : j + m], args[3], pointers([n]), pointers([m]))
            alone = ops.set_conv(*one)
            torch.testing.assert_close(density[j : j + m], alone[0])
            torch.testing.assert_close(signal[j : j + m], alone[1])
            i, j = i + n, j + m


def broken(**changes: object):
    names = ("x_src", "y_src", "x_dst", "lengthscale", "ptr_src", "ptr_dst")
    return tuple((dict(zip(names, problem(), strict=True)) | changes).values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x_src": torch.zeros(12)}, TypeError, "'x_dst' is torch.float64 but 'x_src' is torch.float32"),
        ({"x_src": torch.zeros(12, dtype=torch.float64)}, ValueError, r"'x_src' must have shape .* \[12\]"),
        ({"x_src": [1.0]}, TypeError, "'x_src' must be a tensor but is a list"),
        ({"x_src": torch.zeros(12, 2, dtype=torch.int64)}, TypeError, "'x_src' must be float64.*int64"),
        ({"x_dst": torch.zeros(9, 3, dtype=torch.float64)}, ValueError, r"'x_dst' has shape \[9, 3\]"),
        ({"y_src": torch.zeros(11, 3, dtype=torch.float64)}, ValueError, r"'y_src' must .* N = 12 .* \[11, 3\]"),
        ({"lengthscale": torch.ones(3)}, ValueError, r"'lengthscale' must .* \[3\]"),
        ({"lengthscale": torch.ones(2, dtype=torch.int64)}, TypeError, "'lengthscale' must be floating.*int64"),
        ({"lengthscale": "wide"}, TypeError, "'lengthscale' must be a tensor or a number but is a str"),
        ({"lengthscale": 0.0}, ValueError, "'lengthscale' must be positive and finite but contains 0.0"),
        ({"lengthscale": torch.tensor([1.0, -2.0])}, ValueError, "'lengthscale' .* -2.0"),
        ({"lengthscale": math.nan}, ValueError, "'lengthscale' .* nan"),
        ({"ptr_src": torch.tensor([0, 5, 4, 12])}, ValueError, r"'ptr_src' must not decrease .*\[1\] = 5 .* by 4"),
        ({"ptr_src": torch.tensor([0, 5, 5, 11])}, ValueError, "'ptr_src' must run from 0 .* 12, .* 0 to 11"),
        ({"ptr_dst": torch.tensor([1, 3, 5, 9])}, ValueError, "'ptr_dst' must run .* from 1 to 9"),
        ({"ptr_src": torch.tensor([0, 5, 12])}, ValueError, "'ptr_src' describes 2 sets but 'ptr_dst' describes 3"),
        ({"ptr_src": torch.tensor([0.0, 12.0])}, TypeError, "'ptr_src' must be an int64 tensor but is torch.float32"),
        ({"ptr_src": torch.zeros(1, 4, dtype=torch.int64)}, ValueError, r"'ptr_src' must have shape .* \[1, 4\]"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, object], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        ops.set_conv(*broken(**changes))


def test_bad_options_are_named():
    args = problem()
    with pytest.raises(ValueError, match="'kernel' must be one of rbf, matern32, matern52 but is 'linear'"):
        ops.set_conv(*args, kernel="linear")
    with pytest.raises(ValueError, match="'eps' must be positive but is 0"):
        ops.set_conv(*args, normalize=True, eps=0.0)
    with pytest.raises(ValueError, match="'x_src' must have 1 to 64 dimensions but has 65"):
        ops.set_conv(torch.zeros(2, 65), torch.zeros(2, 1), torch.zeros(1, 65), 1.0, pointers([2]), pointers([1]))
    with pytest.raises(ValueError, match="'lengthscale' has 2 heads but another argument has 3"):
        ops.set_conv(
            torch.zeros(2, 3, 1), torch.zeros(2, 1), torch.zeros(1, 3, 1), torch.ones(2, 1), *map(pointers, ([2], [1]))
        )


def test_bad_devices_are_named():
    args = broken(x_dst=torch.zeros(9, 2, dtype=torch.float64, device="meta"))
    with pytest.raises(ValueError, match="'x_dst' is on meta but 'x_src' is on cpu"):
        ops.set_conv(*args)


def test_value_checks_can_be_switched_off():
    with ops.validation(False), ops.backend("reference"):
        density, _ = ops.set_conv(*broken(lengthscale=math.nan))
    assert density.isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_dtype_and_device_change_nothing(backend: str, foreign_defaults):
    args = [v.detach().float() if v.is_floating_point() else v for v in problem()]
    leaves = [v.requires_grad_() for v in args[:3]]
    grads = [torch.ones(9), torch.ones(9, 3)]

    def run() -> list[torch.Tensor]:
        outputs = ops.set_conv(*leaves, 0.7, *args[4:], kernel="matern52", normalize=True)
        return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]

    with ops.backend(backend):
        expected = run()
        with foreign_defaults():
            actual = run()
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)  # dtype and device included
