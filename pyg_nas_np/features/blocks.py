r"""The groups of meta-features: each block maps a batch of cells to named columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyg_nas_np.features.dag import (
    INPUT,
    OUTPUT,
    PathStatistics,
    laplacian_spectrum,
    live_part,
    path_statistics,
    topological,
)
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.dense import DenseGraphs

Columns = tuple[list[str], Tensor]
"""Names of ``D`` columns and their values ``[B, D]``."""

MAX_STRINGS = 4096
"""The block of path strings is omitted if operations and path lengths allow more strings than this."""


@dataclass(frozen=True)
class Cells:
    r"""A batch of cells with cached intermediate results that several blocks share.

    Args:
        space: The search space.
        dense: Its graphs as given by :meth:`~pyg_nas_np.spaces.CellSpace.dense`.
        num_parameters: ``[B]`` int64.
        flops: ``[B]`` int64.
    """

    space: CellSpace[Any]
    dense: DenseGraphs
    num_parameters: Tensor
    flops: Tensor

    def ids(self, names: tuple[str, ...]) -> list[int]:
        r"""Operation ids of :obj:`names`."""
        return [self.space.op_names.index(name) for name in names]

    @cached_property
    def work_ops(self) -> list[int]:
        r"""Ids of the operations that can lie on a live path."""
        zero = self.ids(self.space.zero_ops)
        return [op for op in range(2, len(self.space.op_names)) if op not in zero]

    @cached_property
    def graphs(self) -> DenseGraphs:
        r"""The graphs in topological order."""
        return topological(self.dense)

    @cached_property
    def live(self) -> DenseGraphs:
        r"""Their live parts: the nodes on paths along which information reaches the output."""
        return live_part(self.graphs, self.ids(self.space.zero_ops))

    @cached_property
    def paths(self) -> PathStatistics:
        r"""Statistics over live paths of: edges, operations other than identities, then each of :attr:`work_ops`."""
        ops = self.live.ops.unsqueeze(2)
        identity = torch.tensor(self.ids(self.space.identity_ops), dtype=torch.long)
        edges = (ops != INPUT) & (ops >= 0)
        weights = [edges, (ops > OUTPUT) & ~torch.isin(ops, identity), ops == torch.tensor(self.work_ops)]
        return path_statistics(self.live, torch.cat(weights, dim=2).float())


def ops(cells: Cells) -> Columns:
    r"""Count of each operation, dead or alive."""
    ids = torch.arange(2, len(cells.space.op_names))
    counts = (cells.dense.ops.unsqueeze(2) == ids).sum(dim=1)
    return [f"count_{name}" for name in cells.space.op_names[2:]], counts


def live(cells: Cells) -> Columns:
    r"""Operation counts on live input-output paths, in total and per path, and whether there is such a path."""
    stats = cells.paths
    names = ["work", *(cells.space.op_names[op] for op in cells.work_ops)]
    total = (cells.live.ops.unsqueeze(2) == torch.tensor(cells.work_ops)).sum(dim=1).float()
    bypass = (stats.num_paths > 0) & (stats.minimum[:, 1] == 0)
    return (
        [f"live_{name}" for name in names[1:]]
        + [f"path_{kind}_{name}" for kind in ("min", "max", "mean") for name in names]
        + ["dead", "bypass"],
        torch.cat(
            [
                total,
                stats.minimum[:, 1:],
                stats.maximum[:, 1:],
                stats.mean[:, 1:],
                torch.stack([stats.num_paths == 0, bypass], dim=1).float(),
            ],
            dim=1,
        ),
    )


def shape(cells: Cells) -> Columns:
    r"""Size, depth, width, paths and degrees of the graph and of its live part."""
    graphs, alive, stats = cells.graphs, cells.live, cells.paths
    inner = torch.stack([alive.adjacency.sum(dim=1), alive.adjacency.sum(dim=2)], dim=2).float()
    present = alive.node_mask.unsqueeze(2)
    size = alive.num_nodes.clamp_min(1).float().unsqueeze(1)
    mean = inner.sum(dim=1) / size
    deviation = (((inner - mean.unsqueeze(1)) ** 2 * present).sum(dim=1) / size).sqrt()
    level = stats.depth[:, :, 0].masked_fill(~alive.node_mask, -1.0)
    width = (level.unsqueeze(2) == torch.arange(level.size(1))).sum(dim=1).amax(dim=1)

    def degree(op: int, direction: int) -> Tensor:
        return torch.where(alive.ops == op, inner[:, :, direction], 0.0).sum(dim=1)

    columns = {
        "nodes": graphs.num_nodes,
        "edges": graphs.adjacency.sum(dim=(1, 2)),
        "live_nodes": alive.num_nodes,
        "live_edges": alive.adjacency.sum(dim=(1, 2)),
        "live_paths": stats.num_paths,
        "log_live_paths": stats.num_paths.log1p(),
        "depth": stats.maximum[:, 0],
        "shortest_path": stats.minimum[:, 0],
        "mean_path": stats.mean[:, 0],
        "width": width,
        "degree_mean": mean[:, 0],
        "in_degree_max": inner[:, :, 0].amax(dim=1),
        "out_degree_max": inner[:, :, 1].amax(dim=1),
        "in_degree_std": deviation[:, 0],
        "out_degree_std": deviation[:, 1],
        "input_degree": degree(INPUT, 1),
        "output_degree": degree(OUTPUT, 0),
    }
    return list(columns), torch.stack([column.float() for column in columns.values()], dim=1)


def bigrams(cells: Cells) -> Columns:
    r"""Number of live edges between each pair of operations, input and output included."""
    names = cells.space.op_names
    alive = cells.live
    owner, source, target = alive.adjacency.nonzero(as_tuple=True)
    size = len(names)
    pair = alive.ops[owner, source] * size + alive.ops[owner, target]
    counts = torch.bincount(owner * size**2 + pair, minlength=alive.ops.size(0) * size**2).view(-1, size**2)
    first, second = [INPUT, *cells.work_ops], [*cells.work_ops, OUTPUT]
    pairs = list(itertools.product(first, second))
    return [f"edge_{names[a]}>{names[b]}" for a, b in pairs], counts[:, [a * size + b for a, b in pairs]]


def cost(cells: Cells) -> Columns:
    r"""Exact parameters and multiply-accumulates, in millions and as logarithms."""
    values = torch.stack([cells.num_parameters, cells.flops], dim=1).double()
    names = ["params", "flops", "log_params", "log_flops"]
    return names, torch.cat([values / 1e6, values.clamp_min(1.0).log()], dim=1)


def spectrum(cells: Cells) -> Columns:
    r"""Eigenvalues of the symmetric normalised Laplacian of the live part, ascending."""
    values = laplacian_spectrum(cells.live.adjacency, cells.live.node_mask)
    return [f"eigenvalue_{i}" for i in range(values.size(1))], values


def paths(cells: Cells) -> Columns:
    r"""One block for each path that all cells share: whether it is alive, and its count of each operation.

    Empty where :attr:`~pyg_nas_np.spaces.CellSpace.shared_paths` is.
    """
    work = torch.tensor(cells.work_ops)
    names, columns = [], [torch.empty(cells.dense.ops.size(0), 0)]
    for path, nodes in cells.space.shared_paths.items():
        on_path = cells.dense.ops[:, list(nodes)].unsqueeze(2) == work
        alive = on_path.any(dim=2).all(dim=1, keepdim=True)
        names += [f"path_{path}_alive"] + [f"path_{path}_{cells.space.op_names[op]}" for op in cells.work_ops]
        columns += [alive.float(), on_path.sum(dim=1) * alive.float()]
    return names, torch.cat(columns, dim=1)


def strings(cells: Cells) -> Columns:
    r"""Square root of the number of shared live paths with each sequence of operations, identities omitted.

    Empty where :attr:`~pyg_nas_np.spaces.CellSpace.shared_paths` is, or beyond :data:`MAX_STRINGS` sequences.
    """
    names, nodes, shared = cells.space.op_names, cells.dense.ops, cells.space.shared_paths.values()
    alphabet = [op for op in cells.work_ops if names[op] not in cells.space.identity_ops]
    base, longest = len(alphabet) + 1, max(map(len, shared), default=0)
    if not shared or base**longest > MAX_STRINGS:
        return [], torch.empty(nodes.size(0), 0)
    digit_of = torch.full((len(names),), -1)
    digit_of[cells.ids(cells.space.identity_ops)] = 0
    digit_of[alphabet] = torch.arange(1, base)
    counts = torch.zeros(nodes.size(0), base**longest)
    for path in shared:
        digits = digit_of[nodes[:, list(path)]]
        # A sequence is a number in base `base`, first operation lowest; identities have no digit.
        place = (digits > 0).cumsum(dim=1) - 1
        code = (digits.clamp_min(0) * base ** place.clamp_min(0)).sum(dim=1)
        counts += one_hot(code, base**longest) * (digits >= 0).all(dim=1, keepdim=True)
    words = [
        [alphabet[code // base**i % base - 1] for i in range(longest) if code // base**i % base]
        for code in range(base**longest)
    ]
    return ["string_" + (">".join(names[op] for op in word) or "identity") for word in words], counts.sqrt()


BLOCKS: dict[str, Callable[[Cells], Columns]] = {
    block.__name__: block for block in (ops, live, shape, bigrams, cost, spectrum, paths, strings)
}
"""The groups by name, in the order of their columns."""

HISTOGRAMS = frozenset({"bigrams", "strings"})
"""Groups whose columns are bins of one histogram."""
