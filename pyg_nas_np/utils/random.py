r"""Random numbers from a given generator in calls without a generator argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pyg_nas_np.utils.defaults import FixedDefaults

_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    {
        torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial,
        Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_, Tensor.geometric_,
        Tensor.cauchy_, Tensor.log_normal_, Tensor.bernoulli, Tensor.multinomial,
        # These hand themselves to a mode before they reach the methods above.
        nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
    }
)  # fmt: skip


class drawing_from(FixedDefaults):
    r"""Within it, layers take their initial parameters and their dropout masks from :obj:`generator`.

    :meth:`reset_parameters` and :class:`~torch.nn.Dropout` have no generator argument. The usual workaround,
    :func:`torch.manual_seed`, changes the global state of all threads and libraries. This context affects only its
    thread and passes the generator on; the parameters are the same as with :func:`torch.manual_seed` and the same seed.
    As in :class:`~pyg_nas_np.utils.defaults.FixedDefaults`, PyTorch's default dtype and device are ignored.

    Args:
        generator: Source of randomness. Modules are created on its device.
        dtype: Type of new floating-point tensors.

    Example:
        >>> with drawing_from(torch.Generator().manual_seed(0)):
        ...     layer = torch.nn.Linear(2, 1)
        >>> [round(weight, 3) for weight in layer.weight[0].tolist()]
        [-0.005, 0.379]
    """

    def __init__(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype, generator.device)
        self.generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is nn.functional.dropout:
            return self._dropout(*args, **kwargs)
        if func in _DRAWS and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return super().__torch_function__(func, types, args, kwargs)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        keep = torch.empty(input.shape, dtype=input.dtype, device=self.device)
        keep.bernoulli_(1 - p, generator=self.generator)
        return input * keep.to(input.device).div_(max(1 - p, torch.finfo(input.dtype).tiny))
