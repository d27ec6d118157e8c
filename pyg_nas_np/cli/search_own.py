r"""What to train next of the user's own: from a list of candidates, or from a whole space."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pyg_nas_np.cli.options import say
from pyg_nas_np.cli.rank_own import learned_costs
from pyg_nas_np.cli.ranking import configuration_texts, cost_text
from pyg_nas_np.cli.tables import console, csv_cell, write_csv
from pyg_nas_np.datasets.own_task import OwnTask, columns_of
from pyg_nas_np.predictors import Architectures, Predictor
from pyg_nas_np.search import Search
from pyg_nas_np.utils import seeded

WITHIN = 10_000
"""Configurations drawn from a space, of which those within the limits are candidates."""

SHORTLIST = 10_000
"""Best candidates of a long file that are searched."""

Maker = Callable[..., Predictor]
Cost = Callable[[Architectures], Tensor]


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    r"""Reads ``name=number``.

    Raises:
        typer.BadParameter: If it is not that.

    Example:
        >>> parse_limits(["params=5e6"])
        {'params': 5000000.0}
    """
    limits = {}
    for text in texts:
        name, separator, number = text.rpartition("=")
        try:
            limits[name] = float(number)
        except ValueError:
            separator = ""
        if not separator or not name or math.isnan(limits[name]):
            raise typer.BadParameter(
                f"'{text}' is not a column and its largest value, as params=5e6", param_hint="--limit"
            )
    return limits


def run(
    task: OwnTask,
    made: Callable[[Any, Any, bool, Any], Search[Any]],
    maker: Maker,
    batch: int,
    cost: str | None,
    limits: Mapping[str, float],
    seed: int,
    state: Path | None,
    output: Path | None,
) -> None:
    r"""Prints what to train next, and writes it with an empty column of labels.

    Args:
        task: The task; without candidates, its space is searched.
        made: Makes the search from space, candidates, direction and second objective.
        maker: Makes the predictor that learns what is only known of the measured.
        batch: Number of proposals.
        cost: Second objective.
        limits: Largest allowed costs by name.
        seed: Seed of what is drawn.
        state: File of the search's state.
        output: CSV to write.
    """
    listed = bool(task.pool)
    if limits and not listed:
        task = task.sampled(WITHIN, seeded(seed))
    costs = _costs(task, maker)
    if limits:
        every = torch.ones(len(task.pool), dtype=torch.bool, device="cpu")
        pool = Architectures(task.space, task.pool)
        for name, largest in limits.items():
            every &= costs[name](pool) <= largest
        said = " and ".join(f"{name} <= {cost_text(largest)}" for name, largest in limits.items())
        if not bool(every.any()):
            raise typer.BadParameter(f"none of {len(task.pool):,} candidates has {said}", param_hint="--limit")
        say(f"{int(every.sum()):,} of {len(task.pool):,} candidates have {said}")
        kept = every.nonzero().flatten().tolist()
        columns = {name: [column[i] for i in kept] for name, column in task.columns.items()}
        task = replace(task, pool=[task.pool[i] for i in kept], columns=columns if listed else {})
    if cost in task.costs and cost not in task.space.costs([]):
        raise typer.BadParameter(f"'{cost}' is not known of what was measured; write it there too", param_hint="--cost")
    candidates = task.pool or None
    chosen = made(task.space, candidates, task.maximize, None if cost is None else costs[cost])
    if state is not None and state.exists():
        chosen.resume(state)
    _tell_new(chosen, task)
    chosen.reserve(task.waiting)
    archs = chosen.ask(batch)
    if not archs:
        raise typer.BadParameter("every candidate was measured or is in training", param_hint="--candidates")
    places = {arch: i for i, arch in reversed(list(enumerate(task.pool)))} if listed else {}
    console.print(_table(task, archs, places, costs, maker))
    if len(archs) < batch:
        say(f"Only {len(archs)} are left to choose from")
    if len(task.y):
        best = int(task.y.argmax() if task.maximize else task.y.argmin())
        say(f"Best so far: {float(task.y[best]):g}, {task.space.to_str(task.archs[best])}")
    if output is not None:
        _write(output, task, archs, places)
        say(f"Wrote {len(archs)} proposals to {output}; fill in {task.target} and add them to your measurements")
    if state is not None:
        chosen.save(state)


def _costs(task: OwnTask, maker: Maker) -> dict[str, Cost]:
    """Costs as functions of architectures: what the space knows, a list of candidates, or a fitted predictor."""

    def by_space(name: str) -> Cost:
        return lambda archs: task.space.costs(archs.given)[name]

    def by_list(values: Tensor) -> Cost:
        known = dict(zip(task.pool, values.tolist(), strict=True))
        return lambda archs: torch.tensor([known[arch] for arch in archs], dtype=torch.float64, device="cpu")

    functions = {name: by_list(values) for name, values in task.costs.items()}
    functions |= {name: by_space(name) for name in task.space.costs([])}
    return functions | {name: model.predict for name, model in learned_costs(task, maker).items()}


def _tell_new(chosen: Search[Any], task: OwnTask) -> None:
    """Tells the measurements that a resumed search has not been told before."""
    told = Counter(zip(chosen.measured, chosen.y.tolist(), strict=True))
    fresh = []
    for i, pair in enumerate(zip(task.archs, task.y.tolist(), strict=True)):
        if told[pair] > 0:
            told[pair] -= 1
        else:
            fresh.append(i)
    chosen.tell([task.archs[i] for i in fresh], task.y[fresh])


def _table(
    task: OwnTask, archs: Sequence[Any], places: Mapping[Any, int], costs: Mapping[str, Cost], maker: Maker
) -> Table:
    table = Table(title=f"Train next, after {len(task.y)} measurements", title_justify="left")
    for column in (["candidate"] if places else []) + ([task.target] if len(task.y) else []):
        table.add_column(escape(column), justify="right")
    for column in (*costs, "configuration"):
        table.add_column(escape(column), justify="left" if column == "configuration" else "right", overflow="fold")
    predicted = [""] * len(archs)
    if len(task.y):
        fitted = maker(task.space, maximize=task.maximize).fit(task.archs, task.y)
        pairs = zip(*(values.tolist() for values in fitted.predict(archs, return_std=True)), strict=True)
        predicted = [f"{mean:.4g} ± {std:.2g}" for mean, std in pairs]
    prices = {name: cost(Architectures(task.space, archs)).tolist() for name, cost in costs.items()}
    for i, (arch, text) in enumerate(zip(archs, configuration_texts(task.space, archs), strict=True)):
        cells = [str(places[arch] + 1)] if places else []
        cells += [predicted[i]] if len(task.y) else []
        table.add_row(*map(escape, [*cells, *(cost_text(price[i]) for price in prices.values()), text]))
    return table


def _write(path: Path, task: OwnTask, archs: Sequence[Any], places: Mapping[Any, int]) -> None:
    """The proposals as rows of the candidates' table, or of one like that of the measurements."""
    if places:
        columns = {name: [column[places[arch]] for arch in archs] for name, column in task.columns.items()}
    else:
        columns = columns_of(task.space, archs)
    columns.pop(task.target, None)
    rows = zip(*columns.values(), [""] * len(archs), strict=True)
    write_csv(path, [*columns, task.target], ([csv_cell(value) for value in row] for row in rows))
