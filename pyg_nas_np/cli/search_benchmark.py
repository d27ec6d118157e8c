r"""Searches on a benchmark: what to measure next, and whole searches that are simulated by its labels."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pyg_nas_np.cli.labels import read_own_labels
from pyg_nas_np.cli.options import say
from pyg_nas_np.cli.tables import console, write_csv
from pyg_nas_np.datasets import ArchitectureDataset
from pyg_nas_np.search import PredictorSearch, Search
from pyg_nas_np.search.simulation import Trace
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.spaces.base import require_cells


def propose(chosen: Search[Any], labels: Path | None, batch: int, output: Path | None) -> None:
    r"""Prints the architectures to measure next, and writes them with an empty column of labels.

    Args:
        chosen: The search.
        labels: CSV of what was measured, columns ``arch`` and ``label``.
        batch: Number of architectures.
        output: CSV to write. (default: none)
    """
    space = require_cells(chosen.space)
    if labels is not None:
        _tell_new(chosen, *read_own_labels(space, labels))
    archs = chosen.ask(batch)
    table = Table(title=f"Measure next, after {len(chosen.index)} measurements", title_justify="left")
    for column in ("index", "parameters", "architecture"):
        table.add_column(column, justify="left" if column == "architecture" else "right", overflow="fold")
    for arch in archs:
        cells = (space.index(arch), f"{space.num_parameters(arch):,}", space.to_str(arch))
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    if len(chosen.index):
        arch, value = chosen.best
        say(f"Best so far: {value:g}, {chosen.space.to_str(arch)}")
    if output is not None:
        write_csv(output, ["arch", "label"], [[chosen.space.to_str(arch), ""] for arch in archs])
        say(f"Wrote {len(archs)} proposals to {output}; fill in the labels and add them to your measurements")


def _tell_new(chosen: Search[Any], index: Tensor, y: Tensor) -> None:
    """Tells the measurements that a resumed search has not been told before."""
    known = Counter(zip(chosen.index.tolist(), chosen.y.tolist(), strict=True))
    fresh = []
    for position, pair in enumerate(zip(index.tolist(), y.double().tolist(), strict=True)):
        if known[pair] > 0:
            known[pair] -= 1
        else:
            fresh.append(position)
    chosen.tell(index[fresh], y[fresh])


def print_trace(data: ArchitectureDataset, chosen: Search[Any], trace: Trace) -> None:
    r"""Prints how the best label of a simulated search improved, and the Pareto front of one with a cost."""
    total = int(data.label_mask.sum())
    table = Table(title=escape(f"{chosen!r} on {data.metric}"), title_justify="left")
    for column in ("measured", "best so far", f"rank of {total:,}", "regret"):
        table.add_column(column, justify="right")
    table.add_column("architecture", overflow="fold")
    before = torch.tensor([math.inf], dtype=torch.float64)
    for i in (trace.regret.diff(prepend=before) < 0).nonzero().flatten().tolist():
        values = (f"{trace.best_y[i]:.3f}", str(int(trace.best_rank[i])), f"{trace.regret[i]:.3f}")
        table.add_row(str(i + 1), *values, escape(data.space.to_str(data.space[int(trace.indices[i])])))
    console.print(table)
    found = trace.queries_to_optimum
    console.print(f"Optimum found at measurement {found}" if found else f"Optimum not among {len(trace.indices)}")
    if isinstance(chosen, PredictorSearch) and chosen.cost is not None:
        front = Table(title="Pareto front", title_justify="left")
        for column in ("cost", "measured", "architecture"):
            front.add_column(column, overflow="fold")
        for arch, value, price in chosen.pareto_front:
            front.add_row(f"{price:,.0f}", f"{value:.3f}", escape(data.space.to_str(arch)))
        console.print(front)


def write_trace(path: Path, space: CellSpace[Any], trace: Trace, data: ArchitectureDataset) -> None:
    r"""Writes every measurement of a simulated search."""
    y = torch.full((len(space),), math.nan)
    y[data.arch_index] = data.y
    rows = zip(
        range(1, len(trace.indices) + 1),
        trace.indices.tolist(),
        [space.to_str(arch) for arch in space.resolve(trace.indices)],
        y[trace.indices].tolist(),
        trace.best_y.tolist(),
        trace.best_rank.tolist(),
        trace.regret.tolist(),
        strict=True,
    )
    write_csv(path, ["query", "index", "arch", "label", "best", "best_rank", "regret"], rows)
