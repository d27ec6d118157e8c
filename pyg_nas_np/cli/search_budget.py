r"""Searches within a budget of trainings: what to train next to which level, or all of it by a command."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from pyg_nas_np.cli.budget_report import label_of, outlook_of, predicted_of, steps_of, write_budget_report
from pyg_nas_np.cli.options import say
from pyg_nas_np.cli.search_budget_journal import FULL, Journal, ProposedTraining, stored_space
from pyg_nas_np.cli.search_budget_labels import (
    NOT_PARAMETERS,
    Label,
    architectures_of,
    labels_of,
    new_labels,
    price_of,
    read_table,
    records_of,
)
from pyg_nas_np.cli.search_budget_run import Command, places, run_trainings
from pyg_nas_np.cli.tables import console, csv_cell, write_csv
from pyg_nas_np.datasets.own_task import columns_of
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import ParameterSpace, SearchSpace
from pyg_nas_np.utils import ExperimentalWarning, InvalidLabelsError

SHOWN = 30
"""Trainings in the table of the terminal; the report has all."""


class Plan(NamedTuple):
    r"""What the user wants.

    Args:
        budget: In full trainings, or in the unit of the cost.
        fidelity: Levels and prices.
        target: Column of the labels.
        maximize: Whether larger labels are better.
        seed: Seed of the search.
        state: File of the state.
        batch: Number of trainings to propose.
        release: Numbers of trainings whose workers died.
        command: Command that trains one network. (default: none, the user trains)
        workers: How many of them run at a time.
        output: CSV to write.
        report: Page to write.
        initial: Random trainings at the lowest level. (default: that of the search)
        least_gain: Expected gain of the next full training below which the search ends.
        cost: What a full training costs: a column of the candidates, a numeric parameter, or a cost of the space.
            (default: 1)
    """

    budget: float
    fidelity: Fidelity
    target: str
    maximize: bool
    seed: int
    state: Path
    batch: int = 1
    release: tuple[int, ...] = ()
    command: str | None = None
    workers: int = 1
    output: Path | None = None
    report: Path | None = None
    initial: int | None = None
    least_gain: float = 0.0
    cost: str | None = None


def own_space(
    space: Path | None, labels: Path | None, candidates: Path | None, plan: Plan, ignore: Sequence[str]
) -> ParameterSpace:
    r"""Returns the declared space, that of the state, or one that is inferred from labels and candidates.

    Raises:
        typer.BadParameter: If there is nothing to infer it from.
        NASError: If a file cannot be read, or is no space.
    """
    if space is not None:
        return ParameterSpace.from_file(space)
    if plan.state.exists():
        stored = stored_space(plan.state)
        if isinstance(stored, ParameterSpace):
            return stored
        raise typer.BadParameter(f"{plan.state} is of {stored.name}; give --benchmark", param_hint="--state")
    if labels is None and candidates is None:
        raise typer.BadParameter("or --labels or --candidates is needed", param_hint="--space")
    others = (*ignore, plan.target, plan.fidelity.name, *([] if plan.cost is None else [plan.cost]))
    tables = [read_table(path) for path in (labels, candidates) if path is not None]
    found: ParameterSpace = ParameterSpace.from_records([row for table in tables for row in records_of(table, others)])
    return found


def run(space: SearchSpace[Any], labels: Path | None, candidates: Path | None, plan: Plan) -> None:
    r"""Tells new labels, and proposes or runs trainings.

    Args:
        space: The space.
        labels: CSV of labels with a column of levels. (default: nothing new is told)
        candidates: CSV of what may be trained. (default: the whole space)
        plan: What the user wants.

    Raises:
        NASError: If a file, a label or the state is wrong; nothing is changed then.
    """
    table = None if candidates is None else read_table(candidates)
    pool = None if table is None else list(dict.fromkeys(architectures_of(space, table)))
    more: dict[str, Any] = {"least_gain": plan.least_gain}
    if plan.cost is not None:
        more["price"] = price_of(space, plan.cost, table)
    if plan.initial is not None:
        more["initial"] = plan.initial
    with warnings.catch_warnings():
        # Meant for programmers.
        warnings.simplefilter("ignore", ExperimentalWarning)
        search: BudgetedSearch[Any] = BudgetedSearch(
            space, plan.fidelity, plan.budget, candidates=pool, maximize=plan.maximize, seed=plan.seed, **more
        )
    journal = Journal(search, plan.state, FULL if plan.cost is None else plan.cost)
    command = None if plan.command is None else Command(plan.command, places(journal))
    if labels is not None:
        _tell(journal, labels_of(space, read_table(labels), plan.fidelity, plan.target))
    for number in dict.fromkeys(plan.release):
        journal.release(number)
    if command is None:
        asked = journal.ask(plan.batch)
        journal.save()
        shown = asked
    else:
        journal.save()
        _run(journal, command, plan)
        shown = journal.trainings
    console.print(_trainings(journal, plan.target))
    if command is None:
        _propose(journal, asked, plan)
    _summary(journal)
    if plan.output is not None:
        _write(plan.output, journal, shown, plan.target)
        say(f"Wrote {len(shown)} trainings to {plan.output}" + ("" if command else f"; fill in {plan.target}"))
    if plan.report is not None:
        write_budget_report(plan.report, journal, plan.target)
        say(f"Wrote {plan.report}")


def _tell(journal: Journal, read: Sequence[Label]) -> None:
    archs, levels, ys = journal.search.measured
    told = [Label(*label) for label in zip(archs, levels.tolist(), ys.tolist(), strict=True)]
    told = [label._replace(value=label.value if math.isfinite(label.value) else math.nan) for label in told]
    fresh = new_labels(told, read)
    for label in fresh:
        journal.tell(*label)
    say(f"{len(fresh)} new labels, {len(read) - len(fresh)} were told before")
    if diverged := sum(math.isnan(label.value) for label in fresh):
        say(f"{diverged} of the new ones diverged")
    times = Counter((arch, level) for arch, level, _ in [*told, *fresh])
    if repeats := sum(count > 1 for count in times.values()):
        say(f"{repeats} trainings have several different labels, which are averaged")


def _run(journal: Journal, command: Command, plan: Plan) -> None:
    search = journal.search
    form = "{l_bar}{bar}| {n:.2f}/{total:g} spent{postfix} [{elapsed}]"
    with tqdm(total=search.budget if math.isfinite(search.budget) else None, bar_format=form) as bar:

        def show(_: ProposedTraining | None = None) -> None:
            counts = ", ".join(f"{count} {state}" for state, count in journal.counts().items())
            bar.n = search.spent
            bar.set_postfix_str(f"{search.left:.2f} left, {counts}, best {_best(journal)}")

        show()
        run_trainings(journal, command, plan.workers, show)
        show()


def _best(journal: Journal) -> str:
    try:
        return f"{journal.search.best[1]:.4g}"
    except InvalidLabelsError:
        return "none yet"


def _trainings(journal: Journal, target: str) -> Table:
    last = journal.trainings[-SHOWN:]
    cut = f", the last {SHOWN} of {len(journal.trainings)}" if len(journal.trainings) > SHOWN else ""
    table = Table(title=f"Trainings{cut}", title_justify="left")
    for column in ("trial", journal.search.fidelity.name, "price", "predicted", target, "state"):
        table.add_column(escape(column), justify="right")
    table.add_column("architecture", overflow="fold")
    for d in last:
        cells = [
            str(d.number),
            steps_of(d),
            f"{d.price:.3g}",
            predicted_of(d),
            label_of(d),
            journal.state_of(d),
            d.arch,
        ]
        table.add_row(*map(escape, cells))
    return table


def _propose(journal: Journal, asked: Sequence[ProposedTraining], plan: Plan) -> None:
    if asked:
        say(f"Train next: {', '.join(str(training.number) for training in asked)}")
    elif any(training.running for training in journal.trainings):
        say("Nothing to propose before a running training ends, or is freed by --release")
    else:
        say("The budget pays for no further training, every candidate is trained, or too little is to gain")


def _summary(journal: Journal) -> None:
    search = journal.search
    counts = ", ".join(f"{count} {state}" for state, count in journal.counts().items())
    say(f"Spent {search.spent:.4g} of {search.budget:g} {journal.unit}, {search.left:.4g} left; {counts}")
    try:
        arch, y = search.best
        say(f"Best so far: {y:g}, {search.space.to_str(arch)}")
        say(outlook_of(search))
    except InvalidLabelsError:
        say(f"No training has reached {search.fidelity.name} {search.fidelity.levels[-1]:g} yet")


def _write(path: Path, journal: Journal, trainings: Sequence[ProposedTraining], target: str) -> None:
    """The trainings as rows of the file of labels."""
    space = journal.search.space
    archs = [space.from_str(training.arch) for training in trainings]
    columns: dict[str, list[Any]] = (
        columns_of(space, archs) if isinstance(space, ParameterSpace) else {"arch": [d.arch for d in trainings]}
    )
    own = [[d.number, 0 if d.start is None else d.start, d.price, d.level, d.label] for d in trainings]
    header = [*columns, *NOT_PARAMETERS, journal.search.fidelity.name, target]
    rows = [[*(column[i] for column in columns.values()), *own[i]] for i in range(len(trainings))]
    write_csv(path, header, ([csv_cell(cell) for cell in row] for row in rows))
