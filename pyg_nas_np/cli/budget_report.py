r"""One self-contained page about a search within a budget: its curves, its progress, its trainings."""

from __future__ import annotations

import math
import os
from html import escape
from itertools import accumulate
from typing import Any

from pyg_nas_np.cli import svg
from pyg_nas_np.cli.report import code, figure, html_table, section, side_by_side, write_page
from pyg_nas_np.cli.search_budget_journal import Journal, ProposedTraining
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import RecordView, SearchSpace
from pyg_nas_np.utils import InvalidLabelsError


def write_budget_report(path: str | os.PathLike[str], journal: Journal, target: str) -> None:
    r"""Writes the page, atomically.

    Args:
        path: Target, ``.html``.
        journal: The search.
        target: Name of the label.
    """
    search = journal.search
    setting = {
        "budget": f"{search.budget:g} {journal.unit}",
        "spent": f"{search.spent:.3g}",
        "left": f"{search.left:.3g}",
        search.fidelity.name: ", ".join(f"{level:g}" for level in search.fidelity.levels),
        **{state: str(count) for state, count in journal.counts().items()},
    }
    try:
        arch, y = search.best
        setting["best"] = f"{y:.4g}: {_words(search.space, arch)}"
        setting["train one more?"] = outlook_of(search)
    except InvalidLabelsError:
        pass
    figures = side_by_side([_curves(journal, target), _progress(journal, target)])
    write_page(
        path,
        f"Search within {search.budget:g} trainings",
        setting,
        [section("Trainings", figures, ""), _trainings_table(journal, target)],
    )


def outlook_of(search: BudgetedSearch[Any]) -> str:
    r"""Returns a sentence about what more full trainings can bring."""
    found = search.prospect()
    if math.isinf(found.gain):
        return "Too few full trainings to tell whether one more pays"
    return (
        f"A better network than the best is affordable with p = {found.probability:.2f}; the next full training is "
        f"expected to gain {found.gain:.2g}"
    )


def _words(space: SearchSpace[Any], arch: Any) -> str:
    """An architecture in words that a narrow box can break."""
    if not isinstance(space, RecordView):
        return space.to_str(arch)
    return ", ".join(f"{name} {value}" for name, value in space.records([arch])[0].items())


def _curves(journal: Journal, target: str) -> str:
    """The labels of each architecture over the fidelity."""
    search = journal.search
    curves: dict[str, dict[float, list[float]]] = {}
    for arch, level, y in zip(*search.measured, strict=True):
        if math.isfinite(y):
            curves.setdefault(search.space.to_str(arch), {}).setdefault(float(level), []).append(float(y))
    if not curves:
        return "<p>There is no label yet.</p>"
    levels = search.fidelity.levels
    means = {text: {at: sum(ys) / len(ys) for at, ys in sorted(c.items())} for text, c in curves.items()}
    values = [y for curve in means.values() for y in curve.values()]
    logarithmic = levels[-1] > 10 * levels[0]
    plot = svg.Plot(
        (levels[0], levels[-1]),
        _span(values),
        f"{target} of each training over {search.fidelity.name}",
        search.fidelity.name,
        target,
        log_x=logarithmic,
        x_ticks={level: f"{level:g}" for level in levels},
    )
    for text, curve in sorted(means.items(), key=lambda item: levels[-1] in item[1]):
        done = levels[-1] in curve
        plot.line(list(curve), list(curve.values()), "curve" if done else "guide")
        names = [f"{text}: {y:.4g} at {search.fidelity.name} {at:g}" for at, y in curve.items()]
        plot.named_points(list(curve), list(curve.values()), names, "model" if done else "truth")
    finished = sum(levels[-1] in curve for curve in means.values())
    return figure(
        plot.render(),
        f"{len(means)} architectures, of which {finished} reached the last level (lines); the others were stopped "
        f"(other colour, broken lines). Repeats are averaged.",
    )


def _progress(journal: Journal, target: str) -> str:
    """The best label of the last level over the price of the trainings that were told."""
    search, top = journal.search, journal.search.fidelity.levels[-1]
    told = sorted((d for d in journal.trainings if d.order), key=lambda d: d.order)
    best: list[tuple[float, float]] = []
    for paid, training in zip(accumulate(d.price for d in told), told, strict=True):
        if training.level == top and training.label is not None and math.isfinite(training.label):
            before = best[-1][1] if best else training.label
            best.append((paid, (max if search.maximize else min)(before, training.label)))
    if not best:
        return "<p>No proposed training has reached the last level yet.</p>"
    end = min(search.budget, 1.05 * max(search.spent, best[-1][0]))
    plot = svg.Plot(
        (0.0, end),
        _span([y for _, y in best]),
        f"best {target} over the spent budget",
        f"spent, in {journal.unit}",
        f"best {target}",
    )
    steps = [best[0]]
    for paid, y in [*best[1:], (end, best[-1][1])]:
        steps += [(paid, steps[-1][1]), (paid, y)]
    plot.line([a for a, _ in steps], [b for _, b in steps], "curve")
    names = [f"{y:.4g} after {paid:.3g}" for paid, y in best]
    plot.named_points([paid for paid, _ in best], [y for _, y in best], names, "model")
    return figure(plot.render(), "Best label at the last level so far; dots are trainings that reached it.")


def _trainings_table(journal: Journal, target: str) -> str:
    rows = [
        [
            str(d.number),
            escape(d.when.replace("+00:00", " UTC").replace("T", " ")),
            escape(steps_of(d)),
            f"{d.price:.3g}",
            predicted_of(d),
            label_of(d),
            journal.state_of(d),
            code(d.arch),
        ]
        for d in journal.trainings
    ]
    header = ["trial", "proposed", journal.search.fidelity.name, "price", "predicted", target, "state", "architecture"]
    note = f"Price in {escape(journal.unit)}. Predicted: label at the last level, when the training was proposed."
    return section("Proposed trainings", html_table(header, rows), note)


def steps_of(training: ProposedTraining) -> str:
    r"""Returns ``"0 → 4"`` for a new training to level 4."""
    return f"{0 if training.start is None else training.start:g} → {training.level:g}"


def predicted_of(training: ProposedTraining) -> str:
    r"""Returns mean ± standard deviation, nothing if there is no prediction."""
    return "" if training.mean is None or training.std is None else f"{training.mean:.4g} ± {training.std:.2g}"


def label_of(training: ProposedTraining) -> str:
    r"""Returns the label, nothing if there is none."""
    return "" if training.label is None else "diverged" if math.isnan(training.label) else f"{training.label:.4g}"


def _span(values: list[float]) -> tuple[float, float]:
    margin = 0.04 * (max(values) - min(values))
    return min(values) - margin, max(values) + margin
