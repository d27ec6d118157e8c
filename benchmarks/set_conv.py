"""Set convolutions of this package and of other libraries, in one process on the same tensors.

``python benchmarks/set_conv.py`` prints the table and writes ``results/set_conv.csv`` and ``.png``; ``--cases`` changes
only the rows of these, and each row names its machine. ``--device cuda`` measures the Triton kernels and writes
``results/set_conv_gpu.csv`` and ``.png``; there KeOps runs only if it is named in ``--methods``, since its CUDA mode
ended the whole process on the machine of these results.
Libraries that are not installed are skipped: ``pip install neuralprocesses backends pykeops torch-scatter matplotlib``.

Time is the best of several calls after a warm-up (which includes compilation and, for Triton, the choice of a
configuration), with the device's work done. The methods take turns, so that other load on the machine meets all alike.
Memory is the growth over the call, at its peak, outputs included: of the resident set, or of what PyTorch allocates on
the GPU. Every method is checked against ours before it is timed.

Each time is compared with two limits, both measured in the same run with the same threads:

- arithmetic: the multiply-adds and exponentials that no method can avoid, at the rates of these kernels' own loops;
- memory: the bytes that no method can avoid, at the rate of a triad ``a = b + 2 c`` on arrays far above the caches. A
  forward pass reads every input once and writes every output once; a backward pass reads the inputs and the gradients
  of the outputs once and writes the gradients of the inputs once. As in STREAM, the read that fetches a line before it
  is written counts neither here nor in the triad. Nor do the fresh pages of an output, which the kernel clears first,
  or the order of the points: rows of points that are scattered in memory cannot come at the rate of a triad. A line of
  its own says how fast ``torch.index_select`` copies the rows of 16 channels in random order.

The larger share tells which limit binds.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import functools
import gc
import importlib
import importlib.util
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu
from pyg_nas_np.utils import atomic_path

Outputs = tuple[Tensor, Tensor]


class Row(NamedTuple):
    case: str
    method: str
    forward_s: float
    forward_backward_s: float
    forward_mb: float
    forward_backward_mb: float
    forward_gflops: float
    forward_roofline: float
    forward_backward_roofline: float
    forward_bandwidth: float
    forward_backward_bandwidth: float
    machine: str


class Rates(NamedTuple):
    """What the machine does in a second, measured."""

    fma: float  # multiply-adds
    exp: float  # exponentials
    byte: float  # bytes of a triad
    row_byte: float  # bytes of rows of 16 floats, copied in random order


class Case(NamedTuple):
    name: str
    inputs: list[Tensor]  # differentiable: sources, values, targets (or none), length scale
    methods: dict[str, Callable[..., Outputs]]
    forward_fma: float  # multiply-adds that no method can avoid
    backward_fma: float
    exponentials: float  # in one pass
    forward_bytes: float  # inputs read once, outputs written once
    backward_bytes: float


# ---------------------------------------------------------------------------------------------------------------------
# Measurement
# ---------------------------------------------------------------------------------------------------------------------


def resident(field: str) -> float:
    """Returns VmRSS or VmHWM in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def peak_memory(call: Callable[[], object], device: str) -> float:
    """Returns by how many MB the memory in use grows during a call."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        result = call()
        del result
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    # Freed pages that the allocator keeps would hide the growth.
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        return float("nan")
    before = resident("VmRSS")
    result = call()
    peak = resident("VmHWM") - before
    del result
    return max(peak, 0.0)


def best_times(
    calls: Mapping[str, Sequence[Callable[[], object]]],
    device: str,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Returns the shortest time of each call of each method, over rounds in which all methods take turns.

    A method drops out after some four seconds for each of its calls.
    """
    best = {name: [float("inf")] * len(mine) for name, mine in calls.items()}
    spent = dict.fromkeys(calls, 0.0)
    for _ in range(rounds):
        for name, mine in calls.items():
            if spent[name] > 4 * len(mine):
                continue
            for k, call in enumerate(mine):
                start = clock()
                result = call()
                if device == "cuda":
                    torch.cuda.synchronize()
                seconds = clock() - start
                del result
                best[name][k] = min(best[name][k], seconds)
                spent[name] += seconds
    return best


def calls(
    method: Callable[..., Outputs], inputs: Sequence[Tensor]
) -> tuple[Callable[[], object], Callable[[], object]]:
    def forward() -> object:
        with torch.no_grad():
            return method(*inputs)

    def forward_backward() -> object:
        density, signal = method(*inputs)
        grads = torch.ones_like(density), torch.ones_like(signal)
        return torch.autograd.grad((density, signal), inputs, grads)

    return forward, forward_backward


def measure(
    case: Case, rates: Rates, methods: Sequence[str] | None, where: str, clock: Callable[[], float]
) -> list[Row]:
    device = case.inputs[0].device.type
    if methods is None and device == "cuda":
        methods = [name for name in case.methods if name != "pykeops"]
    with torch.no_grad():
        expected = case.methods["ours"](*case.inputs)[1]
    able = {}
    for name, method in case.methods.items():
        if methods is not None and name not in methods:
            continue
        forward, both = calls(method, case.inputs)
        try:
            with torch.no_grad():
                actual = method(*case.inputs)[1]
            error = float((actual - expected).abs().max() / expected.abs().max())
            assert error < 1e-3, f"{name} differs from ours by {error:.1e}"
            del actual
            both()
        except (RuntimeError, MemoryError) as failure:
            print(f"  {case.name} | {name}: {str(failure).splitlines()[0][:100]}", flush=True)
            continue
        able[name] = forward, both
    del expected
    ideal = case.forward_fma / rates.fma + case.exponentials / rates.exp
    ideal_both = ideal + case.backward_fma / rates.fma + case.exponentials / rates.exp
    moved = case.forward_bytes / rates.byte
    moved_both = moved + case.backward_bytes / rates.byte
    flops = 2 * case.forward_fma + case.exponentials
    rows = []
    for name, times in best_times(able, device, 50 if device == "cuda" else 9, clock).items():
        memory = [peak_memory(call, device) for call in able[name]]
        shares = ideal / times[0], ideal_both / times[1], moved / times[0], moved_both / times[1]
        rows.append(Row(case.name, name, *times, *memory, flops / times[0] / 1e9, *shares, where))
        print(f"  {case.name} | {name}: {times[0] * 1e3:.2f} ms, {times[1] * 1e3:.2f} ms", flush=True)
    return rows


def cpu_rates(threads: int) -> tuple[float, float]:
    """Returns the multiply-adds and exponentials a second of all threads at once: two of them may share a core.

    The best of many short measurements, which other load on the machine may miss.
    """

    def rate(what: str) -> float:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(lambda _: cpu.measure(what, 10_000_000), range(threads)))

    fma, exp = (1e9 * max(rate(what) for _ in range(100)) for what in ("fma", "exp"))
    return fma, exp


def memory_rates(device: str) -> tuple[float, float]:
    """Returns the bytes a second of a triad, and of rows of 16 floats copied in random order."""
    b, c = (torch.ones(1 << 25, device=device) for _ in range(2))
    a = torch.empty_like(b)
    order = torch.randperm(1_000_000, generator=torch.Generator().manual_seed(0)).to(device)
    rows = torch.ones(order.numel(), 16, device=device)
    copied = torch.empty_like(rows)
    triad, copy = best_times(
        {
            "triad": [lambda: torch.add(b, c, alpha=2, out=a)],
            "rows": [lambda: torch.index_select(rows, 0, order, out=copied)],
        },
        device,
        40,
    ).values()
    return 3 * 4 * b.numel() / triad[0], 2 * 4 * rows.numel() / copy[0]


def gpu_rates() -> tuple[float, float]:
    """Returns the multiply-adds and exponentials a second that the clock allows: 128 and 16 a multiprocessor and tick.

    The units are those of compute capabilities 8.6 to 10.0.
    """
    device = torch.cuda.get_device_properties(0)
    ticks = device.multi_processor_count * getattr(device, "clock_rate", float("nan")) * 1e3
    return 128 * ticks, 16 * ticks


# ---------------------------------------------------------------------------------------------------------------------
# Methods
# ---------------------------------------------------------------------------------------------------------------------


def optional(name: str) -> object | None:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"  without {name}: {error}")
        return None


def dense(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Outputs:
    weights = torch.exp(-0.5 * torch.cdist(z / scale, x / scale).square())
    return weights.sum(-1), weights @ y


def padded(sizes: Sequence[tuple[int, int]]) -> Callable[..., Outputs]:
    """Dense torch on a ragged batch: padded to the largest set, as neural-process code bases do."""
    sources, targets = [n for n, _ in sizes], [m for _, m in sizes]

    def pad(value: Tensor, counts: Sequence[int]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(value.split(list(counts)), batch_first=True)

    def run(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Outputs:
        valid = torch.arange(max(sources), device=x.device) < torch.tensor(sources, device=x.device).unsqueeze(1)
        take = torch.arange(max(targets), device=x.device) < torch.tensor(targets, device=x.device).unsqueeze(1)
        distance = torch.cdist(pad(z, targets) / scale, pad(x, sources) / scale)
        weights = torch.exp(-0.5 * distance.square()) * valid.unsqueeze(1)
        return weights.sum(-1)[take], (weights @ pad(y, sources))[take]

    return run


def neuralprocesses(sizes: Sequence[tuple[int, int]]) -> Callable[..., Outputs] | None:
    """SetConv of the package `neuralprocesses`, one set at a time (it has no ragged batches)."""
    nps = optional("neuralprocesses.torch")
    if nps is None:
        return None
    package = importlib.import_module("neuralprocesses")
    conv = nps.SetConv(1.0)  # type: ignore[attr-defined]
    sources, targets = [n for n, _ in sizes], [m for _, m in sizes]

    def run(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Outputs:
        outs = []
        values = torch.cat([torch.ones_like(y[:, :1]), y], dim=1)
        parts = zip((x / scale).split(sources), values.split(sources), (z / scale).split(targets), strict=True)
        for a, b, c in parts:
            outs.append(package.code(conv, a.t()[None], b.t()[None], c.t()[None], root=True)[1][0].t())
        out = torch.cat(outs)
        return out[:, 0], out[:, 1:]

    return run


def keops(sizes: Sequence[tuple[int, int]], dim: int, channels: int) -> Callable[..., Outputs] | None:
    """KeOps, with block-sparse ranges for a ragged batch."""
    if importlib.util.find_spec("pykeops") is None:
        print("  without pykeops")
        return None

    @functools.cache
    def reduction() -> Callable[..., Tensor]:
        # On first use: importing it starts its own CUDA toolchain, which may end the process.
        importlib.import_module("pykeops").set_verbose(False)
        return importlib.import_module("pykeops.torch").Genred(
            "Exp(-SqDist(z, x) * IntInv(2)) * y",
            [f"z = Vi({dim})", f"x = Vj({dim})", f"y = Vj({channels + 1})"],
            reduction_op="Sum",
            axis=1,
        )

    ranges = None
    if len(sizes) > 1:
        src, dst = (
            torch.stack([ptr[:-1], ptr[1:]], dim=1).int().contiguous()
            for ptr in (torch.tensor([0, *(s[k] for s in sizes)]).cumsum(0) for k in (0, 1))
        )
        slices = torch.arange(1, len(sizes) + 1, dtype=torch.int32)
        ranges = (dst, slices, src, src, slices, dst)

    def run(x: Tensor, y: Tensor, z: Tensor, scale: Tensor) -> Outputs:
        values = torch.cat([torch.ones_like(y[:, :1]), y], dim=1)
        backend = "GPU" if x.is_cuda else "CPU"
        where = ranges and tuple(part.to(x.device) for part in ranges)
        out = reduction()((z / scale).contiguous(), (x / scale).contiguous(), values, backend=backend, ranges=where)
        return out[:, 0], out[:, 1:]

    return run


def scatter_loop(
    shape: Sequence[int], window: int, scatter: Callable[[Tensor, Tensor, int], Tensor]
) -> Callable[..., Outputs]:
    """One scatter of all points per place in the window: what PyG users compose, in its leanest form."""
    places = torch.cartesian_prod(*[torch.arange(window)] * len(shape)).view(-1, len(shape))
    cells = int(torch.tensor(list(shape)).prod())
    sizes = torch.tensor(list(shape))

    def run(x: Tensor, y: Tensor, scale: Tensor) -> Outputs:
        first = torch.ceil(x.detach() - window / 2).long()
        density, signal = x.new_zeros(cells), x.new_zeros(cells, y.size(1))
        bounds = sizes.to(x.device)
        for place in places.to(x.device):
            cell = first + place
            inside = ((cell >= 0) & (cell < bounds)).all(1)
            weight = torch.exp(-0.5 * ((x - cell) / scale).square().sum(1)) * inside
            flat = cell.clamp(min=0).minimum(bounds - 1)
            index = flat[:, 0] if len(shape) == 1 else flat[:, 0] * shape[1] + flat[:, 1]
            density = density + scatter(weight, index, cells)
            signal = signal + scatter(weight.unsqueeze(1) * y, index, cells)
        return density.view(1, *shape), signal.view(1, *shape, -1)

    return run


# ---------------------------------------------------------------------------------------------------------------------
# Cases
# ---------------------------------------------------------------------------------------------------------------------


def sets_case(name: str, sizes: Sequence[tuple[int, int]], dim: int, channels: int, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)
    n, m = sum(s for s, _ in sizes), sum(t for _, t in sizes)
    x, y, z = (torch.randn(*s, generator=generator).to(device) for s in ((n, dim), (n, channels), (m, dim)))
    scale = torch.tensor(0.6 * dim**0.5, device=device)
    ptr_src, ptr_dst = (torch.tensor([0, *(s[k] for s in sizes)]).cumsum(0).to(device) for k in (0, 1))
    methods: dict[str, Callable[..., Outputs] | None] = {
        "ours": lambda x, y, z, scale: ops.set_conv(x, y, z, scale, ptr_src, ptr_dst),
        "torch, dense": dense if len(sizes) == 1 else padded(sizes),
        "neuralprocesses": neuralprocesses(sizes),
        "pykeops": keops(sizes, dim, channels),
    }
    pairs = float(sum(s * t for s, t in sizes))
    return Case(
        name,
        [value.requires_grad_() for value in (x, y, z, scale)],
        {key: method for key, method in methods.items() if method is not None},
        pairs * (dim + channels + 1),
        # distances; values . gradients; gradients of values, sources and targets
        pairs * (dim + (channels + 1) + channels + 2 * (dim + 1)),
        pairs,
        4.0 * (n * (dim + channels) + m * (dim + 1 + channels)),
        4.0 * (n * (dim + channels) * 2 + m * (dim * 2 + 1 + channels)),
    )


def ragged_sizes() -> list[tuple[int, int]]:
    """64 sets of 8 to 512 sources and 16 to 16,000 targets, both spread evenly in the logarithm, in random pairs."""
    sources = [round(8 * 64 ** (k / 63)) for k in range(64)]
    targets = [round(16 * 1000 ** (k / 63)) for k in range(64)]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    return list(zip(sources, (targets[k] for k in order), strict=True))


def grid_case(name: str, shape: Sequence[int], points: int, channels: int, window: int, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)
    dim = len(shape)
    x = (torch.rand(points, dim, generator=generator) * torch.tensor(list(shape))).to(device)
    y = torch.randn(points, channels, generator=generator).to(device)
    scale = torch.tensor(1.2, device=device)
    ptr, origin = torch.tensor([0, points], device=device), torch.zeros(dim, device=device)
    methods: dict[str, Callable[..., Outputs]] = {
        "ours": lambda x, y, scale: ops.set_conv_to_grid(x, y, scale, ptr, origin, 1.0, shape, window)
    }
    pyg = optional("torch_geometric.utils")
    if pyg is not None:
        methods["torch_geometric scatter"] = scatter_loop(
            shape,
            window,
            lambda value, index, size: pyg.scatter(value, index, 0, size, "sum"),  # type: ignore[attr-defined]
        )
    scatter = optional("torch_scatter")
    if scatter is not None:
        methods["torch_scatter"] = scatter_loop(
            shape,
            window,
            lambda value, index, size: scatter.scatter_add(value, index, 0, dim_size=size),  # type: ignore[attr-defined]
        )
    pairs = float(points * window**dim)
    point, cells = dim + channels, math.prod(shape) * (1 + channels)
    # The kernel is a product over the axes: one exponential per axis and cell of a side of the window.
    return Case(
        name,
        [value.requires_grad_() for value in (x, y, scale)],
        methods,
        pairs * (channels + 1),
        pairs * (2 * channels + 2 * dim),
        float(points * window * dim),
        4.0 * (points * point + cells),
        4.0 * (points * point * 2 + cells),
    )


def cases(device: str) -> dict[str, Callable[[], Case]]:
    return {
        "single-8": lambda: sets_case("5,000 → 50,000, D 8, C 8", [(5000, 50_000)], 8, 8, device),
        "single-64": lambda: sets_case("1,000 → 15,625, D 16, C 64", [(1000, 15_625)], 16, 64, device),
        "ragged": lambda: sets_case("64 ragged sets, D 4, C 64", ragged_sizes(), 4, 64, device),
        "grid-1d": lambda: grid_case("10⁶ → 10⁵ cells, window 9, C 16", [100_000], 1_000_000, 16, 9, device),
        "grid-2d": lambda: grid_case(
            "10⁶ → 10³ × 10³ cells, window 9 × 9, C 16", [1000, 1000], 1_000_000, 16, 9, device
        ),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| case | method | forward, ms | + backward, ms | memory, MB | + backward, MB | GFLOP/s | of arithmetic "
        "| of bandwidth |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ours = next(r for r in rows if r.case == row.case and r.method == "ours")
        is_ours = row is ours
        ratios = "" if is_ours else f" ({row.forward_s / ours.forward_s:.1f}×)"
        ratios_both = "" if is_ours else f" ({row.forward_backward_s / ours.forward_backward_s:.1f}×)"
        lines.append(
            f"| {row.case if is_ours else ''} | {row.method} | {row.forward_s * 1e3:,.2f}{ratios} "
            f"| {row.forward_backward_s * 1e3:,.2f}{ratios_both} | {row.forward_mb:,.1f} "
            f"| {row.forward_backward_mb:,.1f} | {row.forward_gflops:,.0f} "
            f"| {row.forward_roofline:.0%}, {row.forward_backward_roofline:.0%} "
            f"| {row.forward_bandwidth:.0%}, {row.forward_backward_bandwidth:.0%} |"
        )
    return "\n".join(lines)


def write(rows: Sequence[Row], path: Path) -> None:
    """Replaces a case in a table by its new rows; other cases stay, with the machine that measured them."""
    lines = [[str(value) if isinstance(value, str) else f"{value:.6g}" for value in row] for row in rows]
    kept = []
    if path.exists():
        with path.open(newline="") as file:
            kept = list(csv.reader(file))[1:]
    place = next((k for k, line in enumerate(kept) if line[0] == rows[0].case), len(kept))
    kept = [line for line in kept if line[0] != rows[0].case]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([list(Row._fields), *kept[:place], *lines, *kept[place:]])


def plot(rows: Sequence[Row], path: Path, where: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        pairs = [int(row.case) for row in mine]
        axes[0].loglog(pairs, [row.forward_backward_s for row in mine], "o-", label=method, markersize=3)
        axes[1].loglog(pairs, [max(row.forward_backward_mb, 0.1) for row in mine], "o-", label=method, markersize=3)
    for axis, label in zip(axes, ("seconds", "peak extra memory, MB"), strict=True):
        axis.set_xlabel("sources (ten times as many targets)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(f"One set, D 8, C 8, forward and backward, float32; {where}", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(cases("cpu")), default=list(cases("cpu")))
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads, for a busy machine; printed only"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--wide-channels",
        type=int,
        metavar="C",
        help="from which number of channels on the Triton kernels use tensor cores, to compare; printed only",
    )
    parser.add_argument("--no-sweep", action="store_true", help="leave out the sweep over sizes and the plot")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.wide_channels is not None:
        importlib.import_module("pyg_nas_np.ops.triton_kernels").WIDE_CHANNELS = args.wide_channels  # type: ignore[attr-defined]

    if args.device == "cuda":
        chip = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
        fma, exp = gpu_rates()
    else:
        chip = f"{machine()}, {cpu.instruction_set()}"
        fma, exp = cpu_rates(args.threads)
    rates = Rates(fma, exp, *memory_rates(args.device))
    print(
        f"{chip}; rates: {2 * fma / 1e9:,.0f} GFLOP/s of multiply-adds, "
        f"{exp / 1e9:,.1f}·10⁹ exponentials/s, {rates.byte / 1e9:,.1f} GB/s of a triad, "
        f"{rates.row_byte / 1e9:,.1f} GB/s of rows in random order; load {os.getloadavg()[0]:.1f}"
    )
    stem = "set_conv" if args.device == "cpu" else "set_conv_gpu"

    def run(case: Case) -> list[Row]:
        clock = time.process_time if args.processor_time else time.perf_counter
        rows = measure(case, rates, args.methods, chip, clock)
        if args.methods is None and args.wide_channels is None and not args.processor_time:
            write(rows, args.out / f"{stem}.csv")
        return rows

    print(table([row for name in args.cases for row in run(cases(args.device)[name]())]))
    if not args.no_sweep:
        sweep = [
            row
            for n in (100, 200, 400, 800, 1600, 3200)
            for row in run(sets_case(str(n), [(n, 10 * n)], 8, 8, args.device))
        ]
        plot(sweep, args.out / f"{stem}.png", chip)


if __name__ == "__main__":
    main()
