r"""Set convolutions beside every peer that can compute the same numbers: time, extra memory, share of the roofline.

    python benchmarks/set_conv.py                    # all cases, some five minutes, 8 GiB
    python benchmarks/set_conv.py --cases ragged     # one case

All implementations run in this process on the same inputs, in turn, forward and forward with backward (gradients of
locations, values and length scale). Extra memory is the peak of the resident set above the inputs. Every peer's result
is compared with ours before it is timed. Peers that are not installed are reported, not left out silently.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from _timing import RESULTS, machine
from torch import Tensor

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu

Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class SetCase(NamedTuple):
    """Sets of sources and targets."""

    sources: list[int]
    targets: list[int]
    dim: int
    channels: int


class GridCase(NamedTuple):
    """Points that are scattered onto one grid."""

    points: int
    shape: tuple[int, ...]
    channels: int


def ragged_sizes() -> tuple[list[int], list[int]]:
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(2, 64, generator=generator)
    sources = (8 * (512 / 8) ** u[0]).round().int().tolist()
    targets = (16 * (16_000 / 16) ** u[1]).round().int().tolist()
    return sources, targets


CASES: dict[str, SetCase | GridCase] = {
    "single-8": SetCase([5_000], [50_000], 8, 8),
    "single-64": SetCase([1_000], [15_625], 16, 64),
    "ragged": SetCase(*ragged_sizes(), 4, 64),
    "grid-1d": GridCase(1_000_000, (100_000,), 16),
    "grid-2d": GridCase(1_000_000, (1_000, 1_000), 16),
}


# -- ragged sets: x_src, y_src, x_dst, lengthscale to the signal ------------------------------------------------------


def ours(case: SetCase) -> Function:
    ptr_src, ptr_dst = (torch.tensor([0, *sizes]).cumsum(0) for sizes in (case.sources, case.targets))
    return lambda x, y, t, scale: ops.set_conv(x, y, t, scale, ptr_src, ptr_dst)[1]


def dense(case: SetCase) -> Function:
    def one(x: Tensor, y: Tensor, t: Tensor, scale: Tensor) -> Tensor:
        weights = torch.exp(-0.5 * (torch.cdist(t, x) / scale).square())
        return weights @ y

    if len(case.sources) == 1:
        return one

    def padded(x: Tensor, y: Tensor, t: Tensor, scale: Tensor) -> Tensor:
        pad = torch.nn.utils.rnn.pad_sequence
        # Padded sources have value 0 and add nothing to the signal.
        xs = pad(list(x.split(case.sources)), batch_first=True)
        ys = pad(list(y.split(case.sources)), batch_first=True)
        ts = pad(list(t.split(case.targets)), batch_first=True)
        out = one(xs, ys, ts, scale)
        return torch.cat([out[b, :m] for b, m in enumerate(case.targets)])

    return padded


def neural_processes(case: SetCase) -> Function:
    import lab.torch  # noqa: F401
    import neuralprocesses.torch as nps

    def call(x: Tensor, y: Tensor, t: Tensor, scale: Tensor) -> Tensor:
        outputs = []
        for xs, ys, ts in zip(x.split(case.sources), y.split(case.sources), t.split(case.targets), strict=True):
            coder = nps.SetConv(1.0)
            coder.log_scale = None
            coder.__dict__["log_scale"] = scale.log()
            outputs.append(nps.code(coder, xs.t()[None], ys.t()[None], ts.t()[None], root=True)[1][0].t())
        return torch.cat(outputs)

    return call


def keops(case: SetCase) -> Function:
    from pykeops.torch import LazyTensor

    def ranges(rows: list[int], columns: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        def bounds(sizes: list[int]) -> Tensor:
            ends = torch.tensor(sizes).cumsum(0)
            return torch.stack([ends - torch.tensor(sizes), ends], dim=1).int()

        return bounds(rows), torch.arange(1, len(rows) + 1).int(), bounds(columns)

    def call(x: Tensor, y: Tensor, t: Tensor, scale: Tensor) -> Tensor:
        t_i, x_j, y_j = LazyTensor(t[:, None] / scale), LazyTensor(x[None] / scale), LazyTensor(y[None])
        kernel = (-0.5 * ((t_i - x_j) ** 2).sum(-1)).exp() * y_j
        if len(case.sources) > 1:
            # Block-sparse reduction: one block a set.
            kernel.ranges = (*ranges(case.targets, case.sources), *ranges(case.sources, case.targets))
        result: Tensor = kernel.sum(dim=1)
        return result

    return call


# -- grids: x, y, unused, lengthscale to the grid --------------------------------------------------------------------


def grid_setting(case: GridCase) -> tuple[Tensor, tuple[int, ...]]:
    # Cells of width one, length scale of one cell and a half.
    return torch.zeros(1, len(case.shape)), ops.window_for(1.5, 1.0)


def grid_ours(case: GridCase) -> Function:
    origin, (window,) = grid_setting(case)
    ptr = torch.tensor([0, case.points])

    def call(x: Tensor, y: Tensor, _: Tensor, scale: Tensor) -> Tensor:
        return ops.set_conv_to_grid(x, y, scale, ptr, origin, 1.0, case.shape, window, tolerance=None)[1]

    return call


def grid_scatter(case: GridCase, scatter: Callable[[Tensor, Tensor, int], Tensor]) -> Function:
    """The usual composition: one scatter for every offset of the window."""
    _, (window,) = grid_setting(case)
    dim, cells = len(case.shape), math.prod(case.shape)
    strides = torch.tensor([math.prod(case.shape[a + 1 :]) for a in range(dim)])
    offsets = torch.cartesian_prod(*[torch.arange(window)] * dim).reshape(-1, dim)

    def call(x: Tensor, y: Tensor, _: Tensor, scale: Tensor) -> Tensor:
        first = torch.ceil(x.detach() - window / 2).long()
        out = y.new_zeros(cells, y.size(1))
        for offset in offsets:
            cell = first + offset
            inside = ((cell >= 0) & (cell < torch.tensor(case.shape))).all(dim=1)
            weight = torch.exp(-0.5 * ((cell - x) / scale).square().sum(dim=1)) * inside
            index = (cell.clamp_min(0).minimum(torch.tensor(case.shape) - 1) * strides).sum(dim=1)
            out = out + scatter(weight[:, None] * y, index, cells)
        return out.reshape(1, *case.shape, -1)

    return call


def grid_torch_scatter(case: GridCase) -> Function:
    import torch_scatter

    return grid_scatter(case, lambda v, index, size: torch_scatter.scatter_add(v, index, dim=0, dim_size=size))


def grid_pyg(case: GridCase) -> Function:
    from torch_geometric.utils import scatter

    return grid_scatter(case, lambda v, index, size: scatter(v, index, dim=0, dim_size=size, reduce="sum"))


SET_PEERS: dict[str, Callable[[SetCase], Function]] = {
    "ours": ours,
    "dense torch": dense,
    "neuralprocesses": neural_processes,
    "pykeops": keops,
}
GRID_PEERS: dict[str, Callable[[GridCase], Function]] = {
    "ours": grid_ours,
    "torch_scatter": grid_torch_scatter,
    "pyg scatter": grid_pyg,
}


# -- measuring ---------------------------------------------------------------------------------------------------------


def inputs_of(case: SetCase | GridCase) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    if isinstance(case, SetCase):
        n, m = sum(case.sources), sum(case.targets)
        x, t = torch.randn(n, case.dim, generator=generator), torch.randn(m, case.dim, generator=generator)
        return [x, torch.randn(n, case.channels, generator=generator), t, torch.tensor(math.sqrt(case.dim))]
    x = torch.rand(case.points, len(case.shape), generator=generator) * torch.tensor(case.shape)
    return [x, torch.randn(case.points, case.channels, generator=generator), x.new_zeros(0), torch.tensor(1.5)]


def memory_mib(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(function: Function, inputs: list[Tensor], backward: bool, repeats: int) -> tuple[float, float]:
    """Median seconds and peak extra MiB."""
    leaves = [value.clone().requires_grad_(backward and value.numel() > 0) for value in inputs]

    def run() -> None:
        out = function(leaves[0], leaves[1], leaves[2], leaves[3])
        if backward:
            out.sum().backward()

    with torch.set_grad_enabled(backward):
        times: list[float] = []
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory_mib("VmRSS")
        # The first call warms up and does not count, unless it is so long that nothing else matters.
        for call in range(repeats + 1):
            for leaf in leaves:
                leaf.grad = None
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
            if call == 0 and times[0] < 8:
                times.clear()
            elif sum(times) > 8:
                break
    return statistics.median(times), max(0.0, memory_mib("VmHWM") - before)


def roofline_seconds(case: SetCase, threads: int) -> tuple[float, float]:
    """Fastest forward pass that the measured rates allow, and its floating-point operations."""
    fma, exp = cpu.measure("fma", 20_000_000), cpu.measure("exp", 5_000_000)
    pairs = sum(n * m for n, m in zip(case.sources, case.targets, strict=True))
    # A subtraction and a fused multiply-add a dimension, a fused multiply-add a channel, one addition for the density.
    slots = pairs * (2 * case.dim + case.channels + 1)
    flops = pairs * (3 * case.dim + 2 * case.channels + 1)
    return (slots / fma + pairs / exp) / 1e9 / threads, flops


def tape_gib(case: GridCase) -> float:
    """What autograd keeps of the composition of scatters: per offset and point a product, an index, a distance."""
    _, (window,) = grid_setting(case)
    dim = len(case.shape)
    return window**dim * case.points * (8 * case.channels + 16 * dim + 16) / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, object]] = []
    print(f"{'case':<10} {'pass':<9} {'implementation':<16} {'ms':>9} {'MiB':>8} {'slower than ours':>17}")
    for name in arguments.cases:
        case = CASES[name]
        inputs = inputs_of(case)
        peers = SET_PEERS if isinstance(case, SetCase) else GRID_PEERS
        expected = None
        functions: dict[str, Function] = {}
        for peer, make in peers.items():
            try:
                functions[peer] = make(case)  # type: ignore[operator]
                out = functions[peer](*inputs)
            except Exception as error:
                functions.pop(peer, None)
                print(f"{name:<10} {'':<9} {peer:<16} not measured: {type(error).__name__}: {str(error)[:90]}")
                continue
            if expected is None:
                expected = out
            else:
                error = float((out - expected).abs().max() / expected.abs().max())
                assert error < 1e-3, f"{peer} differs from ours by {error:.1e} in {name}"
        for backward in (False, True):
            baseline = math.nan
            label = "fwd+bwd" if backward else "forward"
            for peer, function in functions.items():
                if backward and peer != "ours" and isinstance(case, GridCase) and (need := tape_gib(case)) > 8:
                    print(f"{name:<10} {label:<9} {peer:<16} not measured: autograd would keep {need:.0f} GiB")
                    continue
                seconds, extra = measure(function, inputs, backward, arguments.repeats)
                baseline = seconds if peer == "ours" else baseline
                ratio = "" if peer == "ours" else f"{seconds / baseline:.1f}x"
                print(f"{name:<10} {label:<9} {peer:<16} {1e3 * seconds:>9.1f} {extra:>8.0f} {ratio:>17}", flush=True)
                rows.append(
                    {
                        "case": name,
                        "pass": label,
                        "implementation": peer,
                        "milliseconds": round(1e3 * seconds, 2),
                        "extra_mib": round(extra, 1),
                        "ratio": ratio,
                    }
                )
                if peer == "ours" and not backward and isinstance(case, SetCase):
                    bound, flops = roofline_seconds(case, arguments.threads)
                    note = f"{flops / seconds / 1e9:.0f} GFLOP/s, {100 * bound / seconds:.0f} % of the roofline"
                    print(f"{'':<10} {'':<9} {'':<16} {note}")
                    rows[-1]["ratio"] = note
    print(machine())
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(RESULTS / "set_conv.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows)


def plot(rows: list[dict[str, object]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    names = list(dict.fromkeys(str(row["case"]) for row in rows))
    peers = list(dict.fromkeys(str(row["implementation"]) for row in rows))
    for column, label in enumerate(("forward", "fwd+bwd")):
        for axis, field, unit in zip(axes[:, column], ("milliseconds", "extra_mib"), ("ms", "MiB extra"), strict=True):
            for k, peer in enumerate(peers):
                chosen = {
                    str(r["case"]): float(str(r[field]))
                    for r in rows
                    if r["implementation"] == peer and r["pass"] == label
                }
                places = [names.index(case) + 0.8 * (k - (len(peers) - 1) / 2) / len(peers) for case in chosen]
                axis.bar(places, [max(v, 1.0) for v in chosen.values()], 0.8 / len(peers), label=peer)
            axis.set_yscale("log")
            axis.set_xticks(range(len(names)), names)
            axis.set_ylabel(unit)
            axis.set_title(f"{label}: {unit}", fontsize=10)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(RESULTS / "set_conv.png", dpi=90)


if __name__ == "__main__":
    main()
