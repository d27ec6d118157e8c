"""Host time of the CUDA back end, without a GPU: everything that Python and PyTorch do for a call, but the launch.

``python benchmarks/host_overhead.py`` compiles the Triton kernels ahead of time and calls the operators on tiny CPU
tensors, through the code that runs on a GPU. Only the driver is replaced, by one that launches nothing. Dense PyTorch
on the same tensors takes turns. Printed are the microseconds per call, the median over rounds; the kernels that
PyTorch would launch (views and allocations launch none), and those of Triton. On a GPU every launch adds the 2 to 5
microseconds of the driver, and PyTorch's operators add the same where theirs run on the CPU here.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np import ops
from pyg_nas_np.ops import cuda
from pyg_nas_np.ops.testing import Dispatched
from pyg_nas_np.utils import atomic_path


class NoDevice:
    """A Triton driver of a device of compute capability 9.0 that launches nothing."""

    def __init__(self) -> None:
        from triton.backends.compiler import GPUTarget

        self.launches = 0
        self.launcher_cls = lambda source, metadata: self.launch
        self.target = GPUTarget("cuda", 90, 32)
        self.utils = SimpleNamespace(
            load_binary=lambda *_: (1, 1, 64, 0, 1024),
            unload_module=lambda *_: None,
            get_device_properties=lambda _: {"max_shared_mem": 232_448},
        )

    def launch(self, *_: object) -> None:
        self.launches += 1

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self.target


def _accept(device: torch.device) -> None:
    """A mock would take microseconds."""


@contextmanager
def without_device() -> Iterator[NoDevice]:
    """Lets the CUDA back end take CPU tensors and launch nothing."""
    from triton.runtime import driver

    device = NoDevice()
    driver.set_active(device)
    with mock.patch.object(cuda, "require_device", new=_accept), ops.backend("cuda"):
        yield device


def problem(dim: int, channels: int) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(*shape, generator=generator) for shape in ((8, dim), (8, channels), (8, dim)))
    ptr = torch.tensor([0, 8])
    return [value.requires_grad_() for value in (x, y, z, torch.tensor(0.5))], ptr, ptr


def dense(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.exp(-0.5 * torch.cdist(z / scale, x / scale).square())
    return weights.sum(-1), weights @ y


def cases(dim: int, channels: int) -> dict[str, Callable[[], object]]:
    """The calls to time, forward and with the backward pass."""
    leaves, ptr_src, ptr_dst = problem(dim, channels)
    grads = torch.ones(8), torch.ones(8, channels)
    origin, shape, window = torch.zeros(1), [16], 8
    line = [torch.rand(8, 1).requires_grad_(), *leaves[1:2], torch.tensor(0.1).requires_grad_()]

    def ours(*inputs: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return ops.set_conv(*inputs, ptr_src, ptr_dst, **options)

    def normalized(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        return ours(*inputs, normalize=True)

    def grid(x: Tensor, y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return ops.set_conv_to_grid(x, y, scale, ptr_src, origin, 0.1, shape, window)

    methods: dict[str, tuple[Callable[..., Any], list[Tensor], tuple[Tensor, ...]]] = {
        "set_conv": (ours, leaves, grads),
        "set_conv, normalized": (normalized, leaves, grads),
        "set_conv_to_grid": (grid, line, (torch.ones(1, 16), torch.ones(1, 16, channels))),
        "torch, dense": (dense, leaves, grads),
    }

    def forward(method: Callable[..., Any], inputs: list[Tensor]) -> None:
        with torch.no_grad():
            method(*inputs)

    def both(method: Callable[..., Any], inputs: list[Tensor], outer: tuple[Tensor, ...]) -> None:
        torch.autograd.grad(method(*inputs), inputs, outer)

    calls: dict[str, Callable[[], object]] = {}
    for name, (method, inputs, outer) in methods.items():
        calls[f"{name}, forward"] = lambda m=method, i=inputs: forward(m, i)
        calls[f"{name}, forward and backward"] = lambda m=method, i=inputs, o=outer: both(m, i, o)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs=2, default=(8, 8), metavar=("DIM", "CHANNELS"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=50, help="calls in a round")
    parser.add_argument("--checks", action="store_true", help="with checks of values, which wait for a GPU")
    parser.add_argument("--out", type=Path, default=RESULTS / "host_overhead.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {}
    counts: dict[str, tuple[int, int]] = {}
    with without_device() as device, ops.validation(args.checks):
        calls = cases(*args.widths)
        for name, call in calls.items():
            call()
            before = device.launches
            with Dispatched() as dispatched:
                call()
            counts[name] = len(dispatched.launched), device.launches - before
            print(f"  {name}: {' '.join(name.removeprefix('aten::') for name in dispatched.launched)}")
        for _ in range(args.rounds):
            for name, call in calls.items():
                start = time.process_time()
                for _ in range(args.calls):
                    call()
                times.setdefault(name, []).append((time.process_time() - start) / args.calls * 1e6)
    rows = [(name, f"{min(mine):.0f}", *counts[name], machine()) for name, mine in times.items()]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out) as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("call", "microseconds", "kernels_of_pytorch", "kernels_of_triton", "machine"))
        writer.writerows(rows)
    print(f"{'call':<46}{'µs':>6}{'PyTorch':>9}{'Triton':>8}   load {os.getloadavg()[0]:.1f}")
    for name, duration, aten, triton, _ in rows:
        print(f"{name:<46}{duration:>6}{aten:>9}{triton:>8}")


if __name__ == "__main__":
    main()
