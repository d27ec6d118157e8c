r"""Registration of operators with PyTorch, with as few Python frames per call as PyTorch allows.

PyTorch's decorator ``custom_op`` does the same, but its autograd layer parses the schema in every call that needs a
gradient: 34 in place of 12 microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library

_LIBRARY = library.Library("pyg_nas_np", "FRAGMENT")


def register(
    name: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    r"""Registers ``pyg_nas_np::name`` for all devices and returns it.

    Args:
        name: Name of the operator.
        implementation: Computes it; annotated, because its schema is inferred. No output may alias an input.
        fake: Computes shapes and types of the outputs.
        setup_context: Saves what the backward pass needs, called with context, inputs and outputs.
        backward: Computes the gradients of the inputs from context and gradients of the outputs.
    """
    _LIBRARY.define(name + library.infer_schema(implementation, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    library.register_fake(f"pyg_nas_np::{name}", fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(torch.ops.pyg_nas_np, name).default

    def forward(ctx: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            outputs = operator(*args)
        setup_context(ctx, args, outputs)
        return outputs

    function: Any = type(name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": backward})

    def differentiable(*args: Any) -> Any:
        if torch.is_grad_enabled() and any([isinstance(a, Tensor) and a.requires_grad for a in args]):  # noqa: C419
            return function.apply(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    _LIBRARY.impl(name, differentiable, "Autograd")
    return operator


def register_autocast(name: str) -> None:
    r"""Makes an operator compute in single precision under autocast, as :func:`torch.cdist` does.

    Half precision is too coarse for distances.
    """
    for device in ("cpu", "cuda"):
        library.register_autocast(f"pyg_nas_np::{name}", device, torch.float32, lib=_LIBRARY)
