r"""One self-contained page about a ranking: no script, no file beside it, nothing loaded from elsewhere."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from string import Template

import torch
from torch import Tensor

import pyg_nas_np
from pyg_nas_np.cli import svg
from pyg_nas_np.cli.ranking import Ranking, cost_text, latency_cells, latency_columns
from pyg_nas_np.cli.tables import COLUMNS
from pyg_nas_np.predictors.attribution import Effect, attribute
from pyg_nas_np.predictors.evaluation import calibration_curve
from pyg_nas_np.search.acquisition import pareto_mask
from pyg_nas_np.spaces import CellSpace
from pyg_nas_np.utils import atomic_path

DOTS = 1500
"""Architectures drawn in a figure; a page of all would be megabytes long."""

DRAWN_CELLS = 6
TOP_FEATURES = 12
FRONT_ROWS = 12

Z90 = 1.6449
"""Half the width of the central 90 % interval of a standard normal."""


def write_report(
    path: str | os.PathLike[str], ranking: Ranking, title: str, setting: Mapping[str, str], *, top_k: int = 10
) -> None:
    r"""Writes the page, atomically.

    Args:
        path: Target, ``.html``.
        ranking: The ranking.
        title: Heading.
        setting: What the ranking came from, name → value.
        top_k: Architectures in the table.
    """
    sections = [
        _scores(ranking),
        _table(ranking, top_k),
        _cells(ranking),
        _quality(ranking),
        _attributions(ranking),
        *(_front(ranking, name, cost) for name, cost in ranking.costs.items()),
    ]
    write_page(path, title, setting, sections)


def write_page(path: str | os.PathLike[str], title: str, setting: Mapping[str, str], sections: Sequence[str]) -> None:
    r"""Writes sections of HTML as a page, atomically.

    Args:
        path: Target, ``.html``.
        title: Heading.
        setting: What the page came from, name → value.
        sections: The sections; empty ones are left out.
    """
    rows = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in setting.items())
    page = _PAGE.substitute(
        title=escape(title),
        setting=rows,
        body="\n".join(section for section in sections if section),
        version=escape(pyg_nas_np.__version__),
        style=_STYLE,
    )
    with atomic_path(path) as tmp:
        tmp.write_bytes(page.encode("utf-8", "backslashreplace"))


def _scores(ranking: Ranking) -> str:
    if not ranking.scores or ranking.tested is None:
        return ""
    rows = [
        [escape(name), *(format(evaluation.to_dict()[key], spec) for key, (_, spec) in COLUMNS.items())]
        for name, evaluation in ranking.scores.items()
    ]
    note = escape(f"On {ranking.tested.how}.")
    return section("Scores", html_table(["predictor", *(label for label, _ in COLUMNS.values())], rows), note)


def _table(ranking: Ranking, top_k: int) -> str:
    order = ranking.order[:top_k]
    mean, std, y = (values[order].tolist() for values in (ranking.mean, ranking.std, ranking.y))
    known = [value for value in y if not math.isnan(value)]
    ends = [m + side * Z90 * s for m, s in zip(mean, std, strict=True) for side in (-1, 1)]
    span = min(ends + known), max(ends + known)
    header, ids = ranking.ids
    true_rank = ranking.true_ranks[order].tolist()
    seen = torch.isin(order, ranking.seen).tolist()
    names = ranking.names(order)
    rows = []
    for k, position in enumerate(order.tolist()):
        measured = None if math.isnan(y[k]) else y[k]
        rows.append(
            [
                str(k + 1),
                str(int(ids[position])),
                f"{mean[k]:.3f} ± {std[k]:.3f}",
                svg.interval(mean[k] - Z90 * std[k], mean[k], mean[k] + Z90 * std[k], measured, span),
                *([] if ranking.chance is None else [f"{float(ranking.chance[position]):.3f}"]),
                *(["–" if measured is None else f"{measured:.3f}" + (" (given)" if seen[k] else "")] * bool(known)),
                *([f"{true_rank[k]:,}"] if ranking.has_truth else []),
                *(cost_text(float(cost[position])) for cost in ranking.costs.values()),
                *latency_cells(ranking, position),
                code(names[k]),
            ]
        )
    columns = ["rank", header, "predicted", f"90 % interval, {span[0]:.2f} to {span[1]:.2f}"]
    columns += (
        ["best with p"] * (ranking.chance is not None) + ["measured"] * bool(known) + ["true rank"] * ranking.has_truth
    )
    columns += [*ranking.costs, *latency_columns(ranking), "architecture"]
    note = (
        f"Label: {ranking.label}. Predicted: mean ± standard deviation of a measurement. "
        "Dot and bar: the prediction and its central 90 % interval; diamond: the measured label, where known."
    )
    if ranking.chance is not None:
        note += " Best with p: probability to be better than all other candidates and all that was measured."
    if ranking.latencies is not None:
        note += " Latency: predicted median on your device with its central 90 % interval, in the unit of your file."
    return section(f"Best {len(rows)} of {ranking.total:,} architectures", html_table(columns, rows), escape(note))


def _cells(ranking: Ranking) -> str:
    space = ranking.archs.space
    if not isinstance(space, CellSpace):
        return ""
    chosen, keys = [], set()
    for rank, position in enumerate(ranking.order[:1000].tolist(), start=1):
        arch = ranking.archs[position]
        key = space.canonical(arch)
        if key not in keys:
            keys.add(key)
            chosen.append((rank, position, arch))
        if len(chosen) == DRAWN_CELLS:
            break
    figures = [
        figure(
            svg.cell(space, arch),
            f"Rank {rank}: {float(ranking.mean[position]):.3f} ± {float(ranking.std[position]):.3f}",
        )
        for rank, position, arch in chosen
    ]
    note = "The best cells that differ from each other; of equivalent ones, only the first is drawn."
    return section("Top cells", side_by_side(figures, "cells"), note)


def _quality(ranking: Ranking) -> str:
    if ranking.tested is None:
        note = "Only the labels that the predictor was fitted to are known, so that nothing is left to test it on."
        if not ranking.predictor.labelled:
            note = (
                "No label is known. The prior ranks: what larger sizes, depth and zero-cost scores promise, and for "
                "graphs what was measured in other spaces. "
                "Predictions are standard scores, with mean 0 and standard deviation about 1 over the space."
            )
        return section("Predicted and measured", "", note)
    mean, std, y, how = ranking.tested
    low, high = frame(y, ranking.maximize)
    margin = 0.05 * (high - low)
    span = low - margin, high + margin
    plot = svg.Plot(span, span, "predicted against measured labels", f"predicted {ranking.label}", "measured")
    plot.line(span, span, "guide")
    some = _sample(y.numel())
    drawn = plot.points(mean[some].tolist(), y[some].tolist(), "dots" if ranking.has_truth else "dots given")
    caption = f"{drawn:,} of {how}"
    outside = some.numel() - drawn
    caption += f"; {outside:,} more lie outside the frame, which leaves out the worst 2 %" if outside else ""
    if ranking.has_truth:
        given = plot.points(ranking.mean[ranking.seen].tolist(), ranking.y[ranking.seen].tolist(), "dots given")
        caption += f". Large dots: {given} of {ranking.seen.numel()} labels that were given"
    nominal, observed = calibration_curve(mean, std, y)
    curve = svg.Plot((0, 1), (0, 1), "calibration curve", "nominal level of the central interval", "share inside")
    curve.line([0, 1], [0, 1], "guide")
    curve.line(nominal.tolist(), observed.tolist(), "curve")
    names = [f"{a:.0%} intervals hold {b:.1%}" for a, b in zip(nominal.tolist(), observed.tolist(), strict=True)]
    curve.named_points(nominal.tolist(), observed.tolist(), names, "model")
    at = int((nominal - 0.9).abs().argmin())
    told = f"Calibration: intervals of {float(nominal[at]):.0%} hold {float(observed[at]):.1%} of the measured labels."
    figures = [figure(plot.render(), f"{caption}."), figure(curve.render(), told)]
    return section("Predicted and measured", side_by_side(figures), "")


def _attributions(ranking: Ranking) -> str:
    found = ranking.attribution
    if found is None:
        return _cell_attributions(ranking) if isinstance(ranking.archs.space, CellSpace) else ""
    top = dict(list(found.importance.items())[:TOP_FEATURES])
    bars = _bars(["parameter", "importance", ""], top, {})
    note = (
        "Importance: root mean square change of the predicted score (in standard deviations of the labels) when "
        f"{found.num_archs:,} candidates get the value of another one, together with the parameters that are "
        "conditional on it. Parameters that say the same thing share their importance. Curves: the mean predicted "
        "label where all of them have a value, everything else as it is; all on one scale."
    )
    drawn = {name: found.effects[name] for name in top if name in found.effects}
    labels = [effect.label for effects in drawn.values() for effect in effects]
    panels = [_effect(name, effects, (min(labels), max(labels))) for name, effects in list(drawn.items())[:DRAWN_CELLS]]
    return section("What the predictions follow", bars + side_by_side(panels, "panels"), escape(note))


def _effect(name: str, effects: Sequence[Effect], span: tuple[float, float]) -> str:
    """The mean predicted label at some values of a parameter, at equal distances."""
    margin = 0.08 * (span[1] - span[0])
    plot = svg.Plot(
        (-0.5, len(effects) - 0.5),
        (span[0] - margin, span[1] + margin),
        f"mean predicted label by {name}",
        name,
        "mean predicted",
        width=330,
        height=220,
        x_ticks={k: _value_text(effect.value) for k, effect in enumerate(effects)},
    )
    places, labels = list(map(float, range(len(effects)))), [effect.label for effect in effects]
    if not isinstance(effects[0].value, str | bool):
        plot.line(places, labels, "curve")
    texts = [f"{name}={effect.value}: {effect.label:.4g}" for effect in effects]
    plot.named_points(places, labels, texts, "model")
    return f"<figure>{plot.render()}</figure>"


def _value_text(value: object) -> str:
    if isinstance(value, bool | str):
        text = str(value)
    elif isinstance(value, int | float) and 1e4 <= abs(value) < 1e13:
        power = min(12, 3 * int(math.log10(abs(value)) // 3))
        text = f"{value / 10**power:.3g}{' kMGT'[power // 3].strip()}"
    else:
        tiny = isinstance(value, float) and 0 < abs(value) < 1e-3
        text = (
            f"{value:.1e}".replace("e-0", "e-") if tiny else f"{value:.2g}" if isinstance(value, float) else str(value)
        )
    return text if len(text) <= 8 else f"{text[:7]}…"


def _cell_attributions(ranking: Ranking) -> str:
    found = attribute(ranking.predictor)
    groups = _bars(["group of features", "importance", ""], found.groups, {})
    top = dict(list(found.features.items())[:TOP_FEATURES])
    single = _bars(["single feature", "importance", "", "correlation"], top, found.correlations)
    note = (
        "Root mean square change of the predicted score (in standard deviations of the labels) when the features are "
        f"shuffled over {found.num_cells:,} cells. Measured on a surrogate, trees that explain "
        f"{found.fidelity:.1%} of the variance of the predicted scores from these features (on cells that they did not "
        "learn from). Features that say the same thing share their importance. Correlation: Spearman's, of the feature "
        "with the predicted score; larger scores are better."
    )
    return section("What the predictions follow", side_by_side([groups, single]), escape(note))


def _front(ranking: Ranking, name: str, cost: Tensor) -> str:
    known = (~cost.isnan()).nonzero().flatten()
    title = f"Pareto front against {name}"
    if not known.numel():
        return section(title, "", "No candidate has this cost.")
    merit = ranking.mean if ranking.maximize else -ranking.mean
    front = known[pareto_mask(merit[known], cost[known]).nonzero().flatten()]
    # Architectures of one cost on the front have one prediction, and are often equivalent: the first stands for all.
    front = front[cost[front].argsort(stable=True)]
    front = front[cost[front].double().diff(prepend=torch.tensor([-math.inf], dtype=torch.float64)) > 0]
    mean, std, y = (values[front] for values in (ranking.mean, ranking.std, ranking.y))
    millions = float(cost[known].double().median()) >= 1e5
    shown_cost = cost.double() / 1e6 if millions else cost.double()
    price = shown_cost[front].tolist()
    low, high = float(shown_cost[known].min()), float(shown_cost[known].max())
    # The front and the better half of the space; the other half would squeeze them into a line.
    half = float(ranking.mean.median())
    if ranking.maximize:
        lower, upper = min(half, float(mean.min())), float((mean + Z90 * std).max())
    else:
        lower, upper = float((mean - Z90 * std).min()), max(half, float(mean.max()))
    margin = 0.03 * (upper - lower)
    logarithmic = low > 0 and high > 10 * low
    plot = svg.Plot(
        (low, high),
        (lower - margin, upper) if ranking.maximize else (lower, upper + margin),
        f"predicted label against {name}",
        f"millions of {name}" if millions else name,
        f"predicted {ranking.label}",
        log_x=logarithmic,
        width=1040,
        height=400,
    )
    some = known[_sample(known.numel())]
    drawn = plot.points(shown_cost[some].tolist(), ranking.mean[some].tolist(), "dots")
    steps = [(price[0], float(mean[0]))]
    for a, b in zip(price[1:], mean[1:].tolist(), strict=True):
        steps += [(a, steps[-1][1]), (a, b)]
    plot.line([a for a, _ in steps], [b for _, b in steps], "curve")
    plot.spans(price, (mean - Z90 * std).tolist(), (mean + Z90 * std).tolist(), "band")
    names = ranking.names(front)
    texts = [
        f"{name} {cost_text(float(cost[i]))}, {m:.3f} ± {s:.3f}: {text}"
        for i, m, s, text in zip(front.tolist(), mean, std, names, strict=True)
    ]
    plot.named_points(price, mean.tolist(), texts, "model")
    measured = (~y.isnan()).nonzero().flatten()
    plot.named_points([price[i] for i in measured], y[measured].tolist(), [names[i] for i in measured], "truth")
    shown = torch.linspace(0, len(price) - 1, min(FRONT_ROWS, len(price))).round().long().tolist()
    rows = [
        [
            cost_text(float(cost[front[i]])),
            f"{float(mean[i]):.3f} ± {float(std[i]):.3f}",
            "–" if math.isnan(float(y[i])) else f"{float(y[i]):.3f}",
            code(names[i]),
        ]
        for i in shown
    ]
    part = "the best " if ranking.others else ""
    caption = (
        f"Line: best predicted label with at most so much {name}; {len(price)} architectures with their 90 % "
        f"intervals{' and measured labels (other colour)' if measured.numel() else ''}. Small dots: {drawn:,} of "
        f"{part}{len(ranking):,} architectures. The table lists {len(shown)} of the front."
    )
    table = html_table([name, "predicted", "measured", "architecture"], rows)
    return section(title, figure(plot.render(), caption) + table, "")


def frame(y: Tensor, maximize: bool) -> tuple[float, float]:
    r"""Returns the range of labels ``[n]`` without the worst 2 %, among which a few failed trainings may lie far off.

    Example:
        >>> frame(torch.arange(101.0), True), frame(torch.arange(101.0), False)
        ((2.0, 100.0), (0.0, 98.0))
    """
    low, high = y.sort().values[
        [round(share * (y.numel() - 1)) for share in ((0.02, 1.0) if maximize else (0.0, 0.98))]
    ]
    return float(low), float(high)


def _sample(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:DOTS]


def _bars(header: Sequence[str], values: Mapping[str, float], correlations: Mapping[str, float]) -> str:
    largest = max(values.values(), default=0.0) or 1.0
    rows = [
        [code(name), svg.bar(value / largest), f"{value:.3f}"]
        + ([f"{correlations[name]:+.2f}"] if correlations else [])
        for name, value in values.items()
    ]
    return html_table(header, rows)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Returns a table whose cells are HTML already; the header is not."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{value}</td>" for value in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    # Without a mouse, a region that scrolls is reached by the tabulator key alone.
    return f'<div class="wide" tabindex="0" role="region" aria-label="table">{table}</div>'


def code(text: str) -> str:
    r"""Returns text as code."""
    # Strings of cells are long and have no blanks to break at.
    return f"<code>{escape(text).replace('+', '+<wbr>')}</code>"


def figure(content: str, caption: str) -> str:
    r"""Returns a figure of HTML with its caption."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def side_by_side(parts: Sequence[str], kind: str = "") -> str:
    r"""Returns parts beside each other, where the page is wide enough."""
    return f'<div class="grid {kind}">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def section(title: str, content: str, note: str) -> str:
    r"""Returns a section of HTML; the title is text."""
    return f"<section><h2>{escape(title)}</h2>{f'<p>{note}</p>' if note else ''}{content}</section>"


_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2128; --soft: #5b6470; --rule: #d8dde3; --fill: #f3f5f7;
  --model: #1f6fb5; --band: #9cc4e8; --truth: #c2410c; --dots: #1f6fb566; --op: 84%; }
@media screen and (prefers-color-scheme: dark) { :root { --back: #14181d; --text: #e4e8ec; --soft: #a0a9b4;
  --rule: #363d46; --fill: #20262d; --model: #6cb4f5; --band: #2f618f; --truth: #fb923c; --dots: #6cb4f590;
  --op: 28%; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1120px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 12px; line-height: 1.2; }
h2 { font-size: 19px; margin: 36px 0 6px; padding-top: 14px; border-top: 1px solid var(--rule); }
p, figcaption, footer { color: var(--soft); font-size: 13px; margin: 4px 0 10px; max-width: 95ch; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 0; }
dl > div { background: var(--fill); border-radius: 8px; padding: 8px 12px; }
dt { color: var(--soft); font-size: 12px; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--rule); }
th, td { padding: 4px 10px 4px 0; vertical-align: middle; }
td { border-bottom: 1px solid var(--rule); white-space: nowrap; }
td:last-child { white-space: normal; }
code { font: 12px/1.35 ui-monospace, monospace; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px 28px; }
.grid > div { min-width: 0; }
.cells { grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }
.panels { grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); }
figure { margin: 6px 0; }
figure svg { max-width: 100%; height: auto; display: block; }
td svg { display: block; }
svg.bar { width: 140px; height: 10px; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg text.name { font-size: 12px; fill: var(--text); }
svg text.op { fill: var(--text); }
.grid path.grid, path.grid { stroke: var(--rule); fill: none; }
path.axis { stroke: var(--soft); fill: none; }
path.dots { stroke: var(--dots); stroke-width: 3; stroke-linecap: round; fill: none; }
path.given { stroke: var(--truth); stroke-width: 6; }
path.band { stroke: var(--band); stroke-width: 6; stroke-linecap: round; fill: none; }
figure path.band { stroke-width: 3; }
.guide { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; }
.curve { stroke: var(--model); stroke-width: 2; fill: none; }
.model { fill: var(--model); }
.truth { fill: var(--truth); }
.edge { stroke: var(--soft); stroke-width: 1.4; fill: none; }
.head { fill: var(--soft); }
rect.op { fill: var(--fill); stroke: var(--soft); }
@media print { body { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } h2, p { break-after: avoid; }
  .wide { overflow: visible; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .grid { grid-template-columns: 1fr 1fr; } table { font-size: 10px; } th, td { padding: 2px 6px 2px 0; }
  td code { font-size: 9px; } td svg { width: 120px; height: auto; } svg.bar { width: 80px; } }
"""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1><dl>$setting</dl></header>
$body
<footer>Written by pyg-nas-np $version.</footer>
</body>
</html>
""")
