r"""Set convolution of ragged sets: the public function and its registration as a PyTorch operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyg_nas_np.ops import cpu, cuda, reference
from pyg_nas_np.ops.backends import active_backend, checks_values, resolve
from pyg_nas_np.ops.checks import check_floating, check_kernel_width, check_ptr, check_values
from pyg_nas_np.ops.radial import check_kernel
from pyg_nas_np.ops.registration import register, register_autocast

# torch._check carries no types.
_check: Callable[[bool], None] = torch._check

_IMPLEMENTATIONS: dict[str, Any] = {"reference": reference, "cpu": cpu, "cuda": cuda}

MAX_DIM = 64


def set_conv(
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor | float,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    *,
    kernel: str = "rbf",
    normalize: bool = False,
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    r"""Convolves sets of sources with a kernel and evaluates the result at the targets of the same sets.

    For every target :math:`j`, over the sources :math:`i` of its set,

    .. math::
        \mathrm{density}_j = \sum_i k(r_{ji}), \qquad
        \mathrm{signal}_j = \sum_i k(r_{ji})\, y_i, \qquad
        r_{ji} = \Big\lVert \frac{x_j - x_i}{\ell} \Big\rVert,

    with one of the kernels of :mod:`pyg_nas_np.ops.radial`; :obj:`normalize` divides the signal by the density plus
    :obj:`eps`. It is the encoder of a ConvCNP (`Gordon et al., 2020 <https://arxiv.org/abs/1910.13556>`_) without the
    matrix of pairs: memory is linear in the number of points, also in the backward pass, which recomputes the weights.
    Gradients flow to ``x_src``, ``y_src``, ``x_dst`` and ``lengthscale``; second derivatives fall back to the dense
    reference. float16 and bfloat16 are summed in float32. A set without sources has density and signal 0.

    On a GPU rows of many channels are multiplied on tensor cores: float32 in three products of TF32 that keep its
    accuracy, or in one where :func:`torch.set_float32_matmul_precision` allows it; float16 and bfloat16 with weights of
    the same type. CUDA graphs capture all gradients; run the call once before, so that its kernels are compiled.

    **Heads.** With a head axis, :math:`H` kernels are evaluated in one call. Any of ``x`` ``[N, H, D]`` (both
    ``x_src`` and ``x_dst``), ``y_src`` ``[N, H, C]`` and ``lengthscale`` ``[H, D]`` or ``[H, 1]`` may carry it; an
    argument without it is shared by all heads.

    Args:
        x_src: Locations of the sources, ``[N, D]`` or ``[N, H, D]`` with ``1 <= D <= 64``.
        y_src: Values of the sources, ``[N, C]`` or ``[N, H, C]``.
        x_dst: Locations of the targets, ``[M, D]`` or ``[M, H, D]``.
        lengthscale: :math:`\ell`, in units of ``x``: a number, ``[D]``, ``[H, 1]`` or ``[H, D]``.
        ptr_src: Offsets of the sets in the sources, ``[B + 1]``, int64.
        ptr_dst: Offsets of the sets in the targets, ``[B + 1]``, int64.
        kernel: ``"rbf"``, ``"matern32"`` or ``"matern52"``. (default: :obj:`"rbf"`)
        normalize: Whether to divide the signal by the density. (default: :obj:`False`)
        eps: Added to the density before the division; positive. (default: :obj:`1e-8`)

    Returns:
        The density, ``[M]`` or ``[M, H]``, and the signal, ``[M, C]`` or ``[M, H, C]``.

    Raises:
        TypeError: If an argument is not a tensor or has the wrong type.
        ValueError: If shapes or devices do not fit, a ``ptr`` is not sorted, or a length scale is not positive.
        BackendUnavailableError: If :func:`pyg_nas_np.ops.backend` selects one that cannot run here.

    Example:
        >>> x_src, y_src = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1.0], [2.0], [3.0]])
        >>> ptr_src, ptr_dst = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2])  # two sets
        >>> x_dst = torch.tensor([[0.0], [5.0]])
        >>> density, signal = set_conv(x_src, y_src, x_dst, 1.0, ptr_src, ptr_dst)
        >>> density
        tensor([1.6065, 1.0000])
        >>> signal
        tensor([[2.2131],
                [3.0000]])
    """
    check_floating(x_src=x_src, x_dst=x_dst, y_src=y_src)
    check_kernel(kernel)
    if x_src.dim() not in (2, 3):
        raise ValueError(f"'x_src' must have shape [N, D] or [N, H, D] but has shape {list(x_src.shape)}.")
    if x_dst.dim() != x_src.dim() or x_dst.shape[1:] != x_src.shape[1:]:
        raise ValueError(f"'x_dst' has shape {list(x_dst.shape)}, which does not fit 'x_src' {list(x_src.shape)}.")
    if y_src.dim() not in (2, 3) or y_src.size(0) != x_src.size(0):
        raise ValueError(
            f"'y_src' must have shape [N, C] or [N, H, C] with N = {x_src.size(0)} but has shape {list(y_src.shape)}."
        )
    dim = x_src.size(-1)
    check_kernel_width(dim, "x_src", 1, MAX_DIM)
    check_ptr(ptr_src, "ptr_src", x_src.device)
    check_ptr(ptr_dst, "ptr_dst", x_src.device)
    if ptr_src.numel() != ptr_dst.numel():
        raise ValueError(
            f"'ptr_src' describes {ptr_src.numel() - 1} sets but 'ptr_dst' describes {ptr_dst.numel() - 1}."
        )
    if normalize and not eps > 0:
        raise ValueError(f"'eps' must be positive but is {eps}: the density of an empty set is 0.")

    scale = as_lengthscale(lengthscale, x_src)
    if scale.dim() > 2 or (scale.dim() > 0 and scale.size(-1) not in (1, dim)):
        raise ValueError(
            f"'lengthscale' must be a number or have shape [{dim}], [H, 1] or [H, {dim}] but has shape "
            f"{list(scale.shape)}."
        )
    if x_src.dim() == 3 or y_src.dim() == 3 or scale.dim() == 2:
        counts = {
            name: value.size(axis)
            for name, value, axis in (("x_src", x_src, 1), ("y_src", y_src, 1), ("lengthscale", scale, 0))
            if value.dim() == (2 if name == "lengthscale" else 3)
        }
        heads = max(counts.values())
        for name, count in counts.items():
            if count != heads:
                raise ValueError(f"'{name}' has {count} heads but another argument has {heads}.")
        x_src, y_src, x_dst = (_with_heads(value, heads) for value in (x_src, y_src, x_dst))
    outputs: tuple[Tensor, Tensor] = _operator(
        x_src, y_src, x_dst, scale, ptr_src, ptr_dst, kernel, normalize, eps, active_backend()
    )
    return outputs


def as_lengthscale(value: Tensor | float, like: Tensor) -> Tensor:
    r"""Converts a length scale to the type in which sums over :obj:`like` are formed."""
    dtype = reference.accumulation_dtype(like.dtype)
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"'lengthscale' must be floating but is {value.dtype}.")
        if value.device != like.device:
            raise ValueError(f"'lengthscale' is on {value.device} but the points are on {like.device}: move one.")
        return value if value.dtype == dtype else value.to(dtype)
    if not isinstance(value, (int, float)):
        raise TypeError(f"'lengthscale' must be a tensor or a number but is a {type(value).__name__}.")
    return torch.full((), float(value), dtype=dtype, device=like.device)


def _with_heads(value: Tensor, heads: int) -> Tensor:
    return value if value.dim() == 3 else value.unsqueeze(1).expand(-1, heads, -1)


# ---------------------------------------------------------------------------------------------------------------------
# Registration. The operators see either x [N, D], y [N, C] and lengthscale [], [1] or [D], or x [N, H, D], y [N, H, C]
# and a length scale that broadcasts to [H, D]; the back ends see the second form with a length scale of two axes.
# Views outside of the operator would be nodes of the graph of gradients, each of which takes microseconds.
# ---------------------------------------------------------------------------------------------------------------------


def _set_conv(
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    if checks_values(x_src.device):
        check_values(lengthscale, ptr_src=(ptr_src, x_src.size(0)), ptr_dst=(ptr_dst, x_dst.size(0)))
    module = _module(backend, y_src)
    # The CUDA kernels know no axes of one head.
    single = x_src.dim() == 2 and module is not cuda
    if single:
        x_src, y_src, x_dst = x_src.unsqueeze(1), y_src.unsqueeze(1), x_dst.unsqueeze(1)
    scale = _scale_of_heads(lengthscale, x_src, module)
    density, signal = module.set_conv(x_src, y_src, x_dst, scale, ptr_src, ptr_dst, kernel, normalize, eps)
    return (density.squeeze(1), signal.squeeze(1)) if single else (density, signal)


def _module(backend: str, values: Tensor) -> Any:
    module = _IMPLEMENTATIONS[resolve(backend, values.device)]
    # GPUs have few units for double precision, and Triton's kernels none at all.
    return reference if module is cuda and values.dtype == torch.float64 else module


def _scale_of_heads(lengthscale: Tensor, x: Tensor, module: Any) -> Tensor:
    r"""Returns the length scale with two axes, of heads and dimensions."""
    # One that all dimensions share saves the CUDA kernels work; the other back ends take one for each.
    shared = module is cuda and (lengthscale.dim() == 0 or lengthscale.size(-1) == 1)
    return lengthscale.expand(x.size(1) if x.dim() == 3 else 1, 1 if shared else x.size(-1))


def _fake_set_conv(
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    _check(x_src.dim() == x_dst.dim() == y_src.dim())
    _check(x_src.size(0) == y_src.size(0))
    return y_src.new_empty(x_dst.shape[:-1]), y_src.new_empty(*x_dst.shape[:-1], y_src.size(-1))


def _set_conv_backward(
    grad_density: Tensor,
    grad_signal: Tensor,
    density: Tensor,
    signal: Tensor,
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
    need_x: bool,
    need_y: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    module = _module(backend, y_src)
    single = x_src.dim() == 2 and module is not cuda
    inputs = (grad_density, grad_signal, density, signal, x_src, y_src, x_dst)
    if single:
        inputs = tuple([value.unsqueeze(1) for value in inputs])  # type: ignore[assignment]
    scale = _scale_of_heads(lengthscale, inputs[4], module)
    arguments = (*inputs, scale, ptr_src, ptr_dst, kernel, normalize, eps)
    needed = (need_x, need_y, need_x, need_x)
    if module is reference:
        grads = reference.set_conv_backward(*arguments)
        grads = tuple(g if need else g.new_empty(0) for g, need in zip(grads, needed, strict=True))  # type: ignore[assignment]
    else:
        grads = module.set_conv_backward(*arguments, need_x, need_y)
    grad_src, grad_y, grad_dst, grad_scale = grads
    if single:
        grad_src, grad_y, grad_dst = (
            g.squeeze(1) if need else g for g, need in zip((grad_src, grad_y, grad_dst), needed, strict=False)
        )
    if need_x and grad_scale.shape != lengthscale.shape:
        same = grad_scale.numel() == lengthscale.numel()
        grad_scale = grad_scale.view(lengthscale.shape) if same else grad_scale.sum_to_size(lengthscale.shape)
    return grad_src, grad_y, grad_dst, grad_scale


def _fake_set_conv_backward(
    grad_density: Tensor,
    grad_signal: Tensor,
    density: Tensor,
    signal: Tensor,
    x_src: Tensor,
    y_src: Tensor,
    x_dst: Tensor,
    lengthscale: Tensor,
    ptr_src: Tensor,
    ptr_dst: Tensor,
    kernel: str,
    normalize: bool,
    eps: float,
    need_x: bool,
    need_y: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def like(value: Tensor, need: bool) -> Tensor:
        return value.new_empty(value.shape if need else (0,))

    return like(x_src, need_x), like(y_src, need_y), like(x_dst, need_x), like(lengthscale, need_x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # Only normalisation needs the outputs in the backward pass; otherwise they are not saved.
    ctx.save_for_backward(*inputs[:6], *(output if inputs[7] else ()))
    ctx.options = inputs[6:]


def _backward(ctx: Any, grad_density: Tensor, grad_signal: Tensor) -> tuple[Tensor | None, ...]:
    kernel, normalize, eps, backend = ctx.options
    *inputs, density, signal = ctx.saved_tensors if normalize else (*ctx.saved_tensors, grad_density, grad_signal)
    need_src, need_y, need_dst, need_scale = ctx.needs_input_grad[:4]
    src, y, dst, scale = _operator_backward(
        grad_density,
        grad_signal,
        density,
        signal,
        *inputs,
        kernel,
        normalize,
        eps,
        need_src or need_dst or need_scale,
        need_y,
        backend,
    )
    return (
        src if need_src else None,
        y if need_y else None,
        dst if need_dst else None,
        scale if need_scale else None,
        *[None] * 6,
    )


def _setup_double(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:10])
    ctx.options = inputs[10:]


def _double_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    *options, need_x, need_y, _ = ctx.options
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in ctx.saved_tensors]
        run: Callable[..., tuple[Tensor, ...]] = _set_conv_backward
        outputs = run(*inputs, *options, need_x, need_y, "reference")
        total = torch.stack(
            [
                (output * grad).sum()
                for output, grad, need in zip(outputs, grads, (need_x, need_y, need_x, need_x), strict=True)
                if need
            ]
        ).sum()
        result = torch.autograd.grad(total, inputs[:8], allow_unused=True)
    return (*result, *[None] * 8)


_operator = register("set_conv", _set_conv, _fake_set_conv, _setup, _backward)
_operator_backward = register(
    "set_conv_backward", _set_conv_backward, _fake_set_conv_backward, _setup_double, _double_backward
)
register_autocast("set_conv")
