r"""Latency of a module, measured on the device that it is on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MILLISECONDS = 1e3


def measure_latency(
    module: nn.Module, inputs: Tensor | Sequence[Tensor], *, repeats: int = 30, warmup: int = 5
) -> float:
    r"""Returns the median time of a forward pass in milliseconds.

    The module runs in evaluation mode and without gradients; its mode is restored. On CUDA, events time the kernels on
    the device's current stream; elsewhere the clock does. Threads and clocks of the processor stay as they are.

    Args:
        module: The module, on the device to measure.
        inputs: One input or several, on the same device.
        repeats: Timed passes.
        warmup: Passes before these.

    Raises:
        ValueError: If :obj:`repeats` is not positive, :obj:`warmup` negative, or a tensor is on the meta device, where
            nothing is computed, or on another device than the others.

    Example:
        Ten measurements for :class:`~pyg_nas_np.convnp.LatencyPredictor`:

        >>> from pyg_nas_np.networks import make_network
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space, images = NASBench201Space(), torch.zeros(1, 3, 16, 16)
        >>> shown = torch.arange(0, 15625, 1600)
        >>> networks = [make_network(space, space[i], channels=2, num_cells=1) for i in shown.tolist()]
        >>> latencies = [measure_latency(network, images, repeats=3, warmup=1) for network in networks]
        >>> len(latencies), min(latencies) > 0
        (10, True)
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be at least 1 and warmup at least 0, got {repeats} and {warmup}")
    args = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    tensors = [*module.parameters(), *module.buffers(), *args]
    devices = {str(tensor.device) for tensor in tensors}
    if "meta" in devices:
        raise ValueError("a module or input is on the meta device, where nothing is computed; move it to a real one")
    if len(devices) > 1:
        raise ValueError(f"module and inputs are on {', '.join(sorted(devices))}; move them to one device")
    device = tensors[0].device if tensors else torch.device("cpu")
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            for _ in range(warmup):
                module(*args)
            return statistics.median(_milliseconds(module, args, device) for _ in range(repeats))
    finally:
        for part, training in modes.items():
            part.training = training


def _milliseconds(module: nn.Module, args: Sequence[Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            module(*args)
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))
    begin = time.perf_counter()
    module(*args)
    return MILLISECONDS * (time.perf_counter() - begin)
