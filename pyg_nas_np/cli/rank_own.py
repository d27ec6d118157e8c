r"""Rankings of the user's own candidates from their own labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pyg_nas_np.cli.options import can_draw, say
from pyg_nas_np.cli.plots import plot_own_ranking
from pyg_nas_np.cli.rank_latency import predict_latencies
from pyg_nas_np.cli.ranking import HeldOut, Ranking, cost_text, latency_cells, latency_columns, value_text
from pyg_nas_np.cli.tables import console, csv_cell, score_table, write_csv, write_scores
from pyg_nas_np.convnp import PREDICTORS
from pyg_nas_np.datasets.own_task import OwnTask
from pyg_nas_np.features import SpaceDescriptors, shared_descriptors
from pyg_nas_np.predictors import Architectures, Predictor
from pyg_nas_np.predictors.attribution import attribute_parameters
from pyg_nas_np.predictors.best import probability_best
from pyg_nas_np.predictors.evaluation import Evaluation, cross_validate
from pyg_nas_np.utils import seeded

FOLDS = 5

LEAST = 5
"""Measured architectures from which on some can be left out for a test."""

TESTED = 500
"""Labels that take part in the cross-validation, whose time grows with their third power."""

EXPLAINED = 128
"""Candidates whose parameters are exchanged to tell what the predictions follow."""

SHOWN = 8
"""Parameters up to which each has a column on the terminal."""

OURS = ("rank", "predicted", "std", "probability_best", "measured")
"""Columns of ``ranking.csv`` that are not those of the candidates."""


def run(
    task: OwnTask,
    explained: Sequence[Any],
    names: Sequence[str],
    seed: int,
    top_k: int,
    output: Path | None,
    latency: Path | None = None,
    latency_limit: float | None = None,
) -> Ranking:
    r"""Ranks the candidates of a task, prints the best and how far predictions can be trusted, and writes the files.

    Args:
        task: The task, with candidates.
        explained: Candidates by which it is told what the predictions depend on.
        names: Predictors to compare by cross-validation; the first one ranks.
        seed: Seed of folds and samples.
        top_k: Candidates to print.
        output: Folder of the files. (default: none)
        latency: File of latencies on the user's device. (default: none)
        latency_limit: Largest latency that is allowed. (default: any)
    """
    ranking = rank_own(task, explained, names, seed)
    if latency is not None:
        ranking = replace(ranking, latencies=predict_latencies(task, latency, latency_limit))
    console.print(best_table(ranking, task, top_k))
    if not len(task.y):
        say_prior(ranking)
    elif ranking.tested is None:
        say(f"Fewer than {LEAST} different architectures are measured: too few to tell how good the ranking is")
    else:
        console.print(score_table(ranking.scores, f"How good it is, on {ranking.tested.how}"))
    say_more(ranking, task)
    if output is not None:
        written = ["ranking.csv"]
        write_ranking(output / "ranking.csv", ranking, task)
        if ranking.scores:
            written.append("scores.csv")
            write_scores(output / "scores.csv", ranking.scores)
        known = f"from {len(task.y)} labels" if len(task.y) else "before the first label"
        title = f"{ranking.total:,} candidates ranked by {ranking.name} {known}"
        best = _best_of(task) if len(task.y) else None
        if can_draw("ranking.png"):
            written.append("ranking.png")
            plot_own_ranking(output / "ranking.png", ranking, best, title)
        say(f"Wrote {', '.join(written)} to {output}")
    return ranking


def rank_own(task: OwnTask, explained: Sequence[Any], names: Sequence[str], seed: int) -> Ranking:
    r"""Ranks the candidates of a task.

    Args:
        task: The task, with candidates.
        explained: Candidates by which it is told what the predictions depend on.
        names: Predictors to compare by cross-validation; the first one ranks.
        seed: Seed of folds and samples.
    """
    tested, scores = _tested(task, names, seed)
    fitted = PREDICTORS[names[0]](task.space, maximize=task.maximize).fit(task.archs, task.y)
    mean, std = fitted.predict(task.pool, return_std=True)
    learned = {name: model.predict(task.pool) for name, model in learned_costs(task, PREDICTORS[names[0]]).items()}
    chance = probability_best(fitted, [*task.pool, *task.archs], generator=seeded(seed))[: len(task.pool)]
    y = task.pool_labels
    return Ranking(
        Architectures(task.space, task.pool),
        fitted,
        names[0],
        *(mean, std, y, (~y.isnan()).nonzero().flatten()),
        task.target if len(task.y) else f"standard score of {task.target}",
        tested,
        scores,
        {**task.costs, **learned},
        chance,
        attribute_parameters(fitted, explained, num_archs=EXPLAINED, generator=seeded(seed))
        if len(explained) > 1
        else None,
        max(0, task.total - len(task.pool)),
    )


def learned_costs(task: OwnTask, maker: Callable[..., Predictor]) -> dict[str, Predictor]:
    r"""Returns predictors of the costs that are known of the measured architectures only.

    Args:
        task: The task.
        maker: Makes an unfitted predictor of a space.
    """
    fitted = {}
    for name, cost in task.measured_costs.items():
        known = ~cost.isnan()
        archs = [arch for arch, has in zip(task.archs, known.tolist(), strict=True) if has]
        fitted[name] = maker(task.space, maximize=False).fit(archs, cost[known])
        say(f"No candidate has {name}: predicted from {len(archs)} measured ones")
    return fitted


def _tested(task: OwnTask, names: Sequence[str], seed: int) -> tuple[HeldOut | None, dict[str, Evaluation]]:
    """Held-out predictions by the first predictor, and the scores of all."""
    if not len(task.y):
        return None, {}
    data = task.dataset()
    rows = torch.randperm(len(data), generator=seeded(seed), device="cpu")[:TESTED].sort().values
    groups = data.group[rows]
    if groups.unique().numel() < LEAST:
        return None, {}
    part, scores, tested = data[rows], {}, None
    for name in names:
        predictor = PREDICTORS[name](task.space, maximize=task.maximize)
        scores[name], mean, std = cross_validate(predictor, part, groups, folds=FOLDS, seed=seed)
        how = f"{len(rows):,} labels, each predicted without it by {FOLDS}-fold cross-validation"
        tested = tested or HeldOut(mean, std, part.y, how)
    return tested, scores


def best_table(ranking: Ranking, task: OwnTask, top_k: int) -> Table:
    r"""Returns the best candidates as a table for the terminal."""
    shown = ranking.order[:top_k]
    title = f"Best {len(shown)} of {ranking.total:,} candidates by {escape(ranking.name)}"
    table = Table(title=title, title_justify="left")
    measured = bool((~ranking.y[shown].isnan()).any())
    named = next((name for name, column in task.columns.items() if _names_rows(column)), None)
    records = task.space.records(task.pool)
    parameters = list(dict.fromkeys(name for record in records for name in record))
    alone = len(parameters) <= SHOWN and not any(isinstance(v, list) for record in records for v in record.values())
    for column in ("rank", named or "row", ranking.label, "best with p", *(["measured"] if measured else [])):
        table.add_column(escape(column), justify="right")
    for column in ranking.costs:
        table.add_column(escape(column), justify="right")
    for column in latency_columns(ranking):
        table.add_column(column, justify="right")
    for column in parameters if alone else ["configuration"]:
        table.add_column(escape(column), justify="left" if not alone else "right", overflow="fold")
    assert ranking.chance is not None
    # Two digits of the standard deviations.
    digits = min(12, max(0, 1 - math.floor(math.log10(float(ranking.std[shown].median())))))
    for rank, (i, text) in enumerate(zip(shown.tolist(), ranking.names(shown), strict=True), start=1):
        label = float(ranking.y[i])
        cells = [str(rank), str((task.rows or range(1, len(task.pool) + 1))[i])]
        if named is not None:
            cells[1] = str(task.columns[named][i])
        cells += [f"{ranking.mean[i]:.{digits}f} ± {ranking.std[i]:.{digits}f}", f"{ranking.chance[i]:.3f}"]
        cells += [f"{label:.{digits}f}" if not math.isnan(label) else "–"] * measured
        cells += [cost_text(float(cost[i])) for cost in ranking.costs.values()]
        cells += latency_cells(ranking, i)
        cells += [value_text(records[i].get(name)) for name in parameters] if alone else [text]
        table.add_row(*map(escape, cells))
    return table


def say_more(ranking: Ranking, task: OwnTask) -> None:
    r"""Says what the predictions follow, and whether a candidate is likely to beat what was measured."""
    if ranking.attribution is not None:
        top = list(ranking.attribution.importance.items())[:5]
        say(f"The predictions follow {', '.join(f'{name} ({value:.2f})' for name, value in top)}")
    assert ranking.chance is not None
    if not len(task.y):
        return
    known = set(task.archs)
    chance = {arch: p for arch, p in zip(task.pool, ranking.chance.tolist(), strict=True) if arch not in known}
    better = sum(chance.values())
    say(f"One of the candidates is better than all that was measured (best {_best_of(task):.6g}) with p = {better:.2f}")


def say_prior(ranking: Ranking) -> None:
    r"""Says what ranks before the first label."""
    families = shared_descriptors(ranking.archs.space)
    assert isinstance(families, SpaceDescriptors)
    known = families.trend_names
    if not known:
        say(
            "No label is known, and the files tell no size, depth or score: all candidates are alike. Name columns by "
            "--cost or --score"
        )
        return
    direction = "" if ranking.maximize else ", the other way round because smaller labels are better"
    say(f"No label is known: ranked by what larger {', '.join(known)} promise{direction}, in standard scores")


def _best_of(task: OwnTask) -> float:
    return float(task.y.max() if task.maximize else task.y.min())


def write_ranking(path: Path, ranking: Ranking, task: OwnTask) -> None:
    r"""Writes all columns of the candidates with what was predicted, the best first."""
    theirs = {name: column for name, column in task.columns.items() if name not in OURS}
    learned = [name for name in ranking.costs if name not in task.columns]
    told = _latencies(ranking)
    theirs = {name: column for name, column in theirs.items() if name not in told}
    header = [*OURS, *(f"predicted_{name}" for name in learned), *told, *theirs]
    assert ranking.chance is not None
    rows = (
        [
            *(
                rank,
                float(ranking.mean[i]),
                float(ranking.std[i]),
                float(ranking.chance[i]),
                _known(float(ranking.y[i])),
            ),
            *(_known(float(ranking.costs[name][i])) for name in learned),
            *(float(column[i]) for column in told.values()),
            *(csv_cell(column[i]) for column in theirs.values()),
        ]
        for rank, i in enumerate(ranking.order.tolist(), start=1)
    )
    write_csv(path, header, rows)


def _latencies(ranking: Ranking) -> dict[str, Tensor]:
    found = ranking.latencies
    if found is None:
        return {}
    columns = {"predicted_latency": found.median, "latency_5_percent": found.low, "latency_95_percent": found.high}
    return columns if found.within is None else {**columns, "probability_within": found.within}


def _known(value: float) -> object:
    return "" if math.isnan(value) else value


def _names_rows(column: Sequence[Any]) -> bool:
    return len(column) > 1 and all(isinstance(v, str) for v in column) and len(set(column)) == len(column)
