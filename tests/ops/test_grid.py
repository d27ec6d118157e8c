"""The grid operators as citizens of PyTorch: registration, gradients, compilation, export, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import library

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu
from pyg_nas_np.ops.testing import pointers

BACKENDS = ["reference", *(["cpu"] if cpu.is_available() else [])]
SHAPES = {1: [9], 2: [4, 5], 3: [3, 2, 4]}


def problem(dim: int = 2, sizes=(2, 0, 3), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    n = sum(sizes)
    x = (torch.rand(n, dim, generator=generator, dtype=dtype) * 2).requires_grad_()
    y = torch.randn(n, 2, generator=generator, dtype=dtype, requires_grad=True)
    grid = torch.randn(len(sizes), *SHAPES[dim], 2, generator=generator, dtype=dtype, requires_grad=True)
    lengthscale = torch.full((dim,), 0.7, dtype=dtype, requires_grad=True)
    return x, y, grid, lengthscale, pointers(sizes), torch.zeros(dim, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dim", "kernel"), [(1, "rbf"), (2, "rbf"), (3, "rbf"), (2, "matern32"), (2, "matern52")])
def test_gradients(backend: str, dim: int, kernel: str):
    x, y, grid, lengthscale, ptr, origin = problem(dim)
    options = {"kernel": kernel, "tolerance": None, "normalize": True, "eps": 1e-2}

    def scatter(x, y, lengthscale):
        return ops.set_conv_to_grid(x, y, lengthscale, ptr, origin, 0.5, SHAPES[dim], 3, **options)

    def gather(grid, x, lengthscale):
        return ops.set_conv_from_grid(grid, x, lengthscale, ptr, origin, 0.5, 3, **options)

    with ops.backend(backend):
        assert torch.autograd.gradcheck(scatter, (x, y, lengthscale))
        assert torch.autograd.gradcheck(gather, (grid, x, lengthscale))
        if dim == 1:
            assert torch.autograd.gradgradcheck(scatter, (x, y, lengthscale))
            assert torch.autograd.gradgradcheck(gather, (grid, x, lengthscale))


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str):
    x, y, grid, lengthscale, ptr, origin = problem()
    geometry = ([0.5, 0.5], SHAPES[2], [3, 3])
    origin = origin.expand(3, 2).contiguous()
    scatter, gather = torch.ops.pyg_nas_np.set_conv_to_grid, torch.ops.pyg_nas_np.set_conv_from_grid
    library.opcheck(scatter.default, (x, y, lengthscale, ptr, origin, *geometry, "rbf", math.inf, backend))
    library.opcheck(gather.default, (grid, x, lengthscale, ptr, origin, [0.5, 0.5], [3, 3], "rbf", math.inf, backend))
    for u_density, v_density in ((None, grid[..., 0].detach()), (y[:, 0].detach(), None)):
        library.opcheck(
            torch.ops.pyg_nas_np.set_conv_grid_gradient.default,
            (
                *(y.detach(), u_density, grid.detach(), v_density),
                *(x.detach(), lengthscale.detach(), ptr, origin, [0.5, 0.5], [3, 3], "rbf", backend),
            ),
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph_with_dynamic_shapes(backend: str):
    def function(x, y, lengthscale, ptr, origin):
        density, signal = ops.set_conv_to_grid(x, y, lengthscale, ptr, origin, 0.5, [4, 5], 9, normalize=True)
        fields = signal.tanh() * density.unsqueeze(-1)
        return ops.set_conv_from_grid(fields, x, lengthscale, ptr, origin, 0.5, 9)[1].square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    with ops.backend(backend):
        for sizes in ((2, 0, 3), (4, 1, 6), (7, 3)):
            x, y, _, lengthscale, ptr, origin = problem(sizes=sizes)
            expected, actual = (f(x, y, lengthscale, ptr, origin) for f in (function, compiled))
            torch.testing.assert_close(actual, expected)
            inputs = (x, y, lengthscale)
            for a, e in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True):
                torch.testing.assert_close(a, e)


def test_exports():
    class Model(torch.nn.Module):
        def forward(self, x, y, lengthscale, ptr, origin):
            density, signal = ops.set_conv_to_grid(x, y, lengthscale, ptr, origin, 0.5, [4, 5], 9)
            return density, ops.set_conv_from_grid(signal, x, lengthscale, ptr, origin, 0.5, 9)[1]

    x, y, _, lengthscale, ptr, origin = (value.detach() for value in problem())
    args = (x, y, lengthscale, ptr, origin)
    n, b = torch.export.Dim("n", min=2), torch.export.Dim("b", min=3)
    program = torch.export.export(Model(), args, dynamic_shapes=({0: n}, {0: n}, None, {0: b}, None))
    for a, e in zip(program.module()(*args), Model()(*args), strict=True):
        torch.testing.assert_close(a, e)


def test_autocast_computes_in_single_precision():
    x, y, _, lengthscale, ptr, origin = problem(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        density, signal = ops.set_conv_to_grid(x, y.bfloat16(), lengthscale, ptr, origin, 0.5, [4, 5], 9)
    assert density.dtype == signal.dtype == torch.float32


def test_a_long_grid_keeps_the_place_inside_a_cell():
    # A float32 position of 3,000,000.25 cells cannot be told from 3,000,000; the difference to a near origin can.
    x = torch.tensor([[8192.125]])
    origin, ptr = torch.tensor([8192.0]), pointers([1])
    near, _ = ops.set_conv_to_grid(x, torch.ones(1, 1), 1.0, ptr, origin, 1.0, [3], 8)
    far, _ = ops.set_conv_to_grid(x, torch.ones(1, 1), 1.0, ptr, origin * 0, 1.0, [8200], 8)
    torch.testing.assert_close(far[0, 8192:8195], near[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(5)}, ValueError, r"'x' must have shape \[N, D\] but has shape \[5\]"),
        ({"x": torch.zeros(5, 4)}, ValueError, "'x' must have 1 to 3 dimensions but has 4"),
        ({"y": torch.zeros(4, 2)}, ValueError, r"'y' must have shape \[5, C\] but has shape \[4, 2\]"),
        ({"y": torch.zeros(5, 2).double()}, TypeError, "'y' is torch.float64 but 'x' is torch.float32"),
        ({"lengthscale": torch.ones(3)}, ValueError, r"'lengthscale' must .* \[2\] but has shape \[3\]"),
        ({"lengthscale": -1.0}, ValueError, "'lengthscale' must be positive and finite but contains -1.0"),
        ({"ptr": torch.tensor([0, 3, 2, 5])}, ValueError, "'ptr' must not decrease"),
        ({"origin": torch.zeros(3)}, ValueError, r"'origin' must have shape \[2\] or \[3, 2\] but has shape \[3\]"),
        ({"origin": 0.0}, TypeError, "'origin' must be a floating tensor but is float"),
        ({"spacing": 0.0}, ValueError, r"'spacing' must be positive and finite but is \[0.0, 0.0\]"),
        ({"spacing": [1.0, 1.0, 1.0]}, ValueError, r"'spacing' must be a number or one per axis, 2"),
        ({"shape": [4]}, ValueError, r"'shape' must have 2 non-negative entries but is \[4\]"),
        ({"shape": [4, -1]}, ValueError, r"'shape' must .* \[4, -1\]"),
        ({"window": 0}, ValueError, r"'window' must be at least one cell per axis but is \[0, 0\]"),
        ({"window": 3}, ValueError, "'window' = 3 on axis 0 drops weights of up to 0.75 > tolerance = 0.01"),
        ({"kernel": "cubic"}, ValueError, "'kernel' must be one of .* but is 'cubic'"),
        ({"tolerance": -1.0}, ValueError, "'tolerance' must be positive or None but is -1.0"),
        ({"normalize": True, "eps": 0.0}, ValueError, "'eps' must be positive but is 0.0"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, object], error: type[Exception], message: str):
    x, y, _, _, ptr, origin = (value.detach() for value in problem(dtype=torch.float32))
    arguments = {
        **{"x": x, "y": y, "lengthscale": 1.0, "ptr": ptr, "origin": origin},
        **{"spacing": 0.5, "shape": [12, 12], "window": 13},
    }
    with pytest.raises(error, match=message):
        ops.set_conv_to_grid(**(arguments | changes))


def test_bad_grids_are_named():
    x, _, grid, _, ptr, origin = (value.detach() for value in problem())
    with pytest.raises(ValueError, match=r"'y' must have shape \[B, \*shape, C\] with 2 axes but has shape \[3, 4\]"):
        ops.set_conv_from_grid(grid[:, :, 0, 0], x, 1.0, ptr, origin, 0.5, 13)
    with pytest.raises(ValueError, match="'y' holds 2 grids but 'ptr' describes 3 sets"):
        ops.set_conv_from_grid(grid[:2], x, 1.0, ptr, origin, 0.5, 13)
    with pytest.raises(ValueError, match="'window' = 3 on axis 0 drops"):
        ops.set_conv_from_grid(grid, x, 1.0, ptr, origin, 0.5, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_dtype_and_device_change_nothing(backend: str, foreign_defaults):
    x, y, grid, _, ptr, origin = problem(dtype=torch.float32)
    leaves = [x.detach().requires_grad_(), y, grid]
    grads = [torch.ones(3, 4, 5), torch.ones(3, 4, 5, 2), torch.ones(5), torch.ones(5, 2)]

    def run() -> list[torch.Tensor]:
        there = ops.set_conv_to_grid(leaves[0], y, 0.7, ptr, origin, 0.5, SHAPES[2], 9, normalize=True)
        back = ops.set_conv_from_grid(grid, leaves[0], 0.7, ptr, origin, 0.5, 9)
        return [*there, *back, *torch.autograd.grad([*there, *back], leaves, grads)]

    with ops.backend(backend):
        expected = run()
        with foreign_defaults():
            actual = run()
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)  # dtype and device included
