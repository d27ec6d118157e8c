r"""The figures of rankings."""

from __future__ import annotations

from pathlib import Path

from pyg_nas_np.cli.ranking import Ranking
from pyg_nas_np.cli.report import Z90, frame
from pyg_nas_np.predictors.evaluation import calibration_curve
from pyg_nas_np.utils import atomic_path, require


def plot_ranking(path: Path, ranking: Ranking, title: str) -> None:
    r"""Writes a PNG of a ranking whose truth is known: predicted against measured labels, and calibration.

    Args:
        path: Target.
        ranking: The ranking, with tested labels.
        title: Title.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    assert ranking.tested is not None
    mean, std, y, _ = ranking.tested
    label, seen = ranking.label, ranking.seen
    figure_module = require("matplotlib.figure", "viz")
    figure = figure_module.Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    points = left.scatter(mean, y, c=std, s=4, vmax=float(std.quantile(0.98)), linewidths=0, rasterized=True)
    given = {"facecolors": "none", "edgecolors": "crimson", "label": f"{seen.numel()} labels seen"}
    left.scatter(ranking.mean[seen], ranking.y[seen], s=26, **given)
    low, high = frame(y, ranking.maximize)
    margin = 0.05 * (high - low)
    left.set_xlim(low - margin, high + margin)
    left.set_ylim(low - margin, high + margin)
    left.plot([low, high], [low, high], color="0.6", lw=1, zorder=0)
    left.set_xlabel(f"predicted {label}", parse_math=False)
    left.set_ylabel(f"measured {label}", parse_math=False)
    left.legend(loc="lower right", frameon=False)
    figure.colorbar(points, ax=left, extend="max", label="predicted standard deviation")
    nominal, observed = calibration_curve(mean, std, y)
    right.plot([0, 1], [0, 1], color="0.6", lw=1)
    right.plot(nominal, observed, marker="o", ms=4)
    right.set_xlabel("nominal level of the central interval")
    right.set_ylabel("share of measured labels inside")
    right.set_xlim(0, 1)
    right.set_ylim(0, 1)
    right.set_aspect("equal")
    right.set_title("calibration", fontsize=10)
    figure.suptitle(title, fontsize=11, parse_math=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=130)


def plot_own_ranking(path: Path, ranking: Ranking, best_measured: float | None, title: str) -> None:
    r"""Writes a PNG of a ranking of candidates without labels: how good predictions are, and what they are.

    Args:
        path: Target.
        ranking: The ranking.
        best_measured: The best label that was measured; :obj:`None` if there is none.
        title: Title.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "viz").Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    if ranking.tested is None:
        left.text(0.5, 0.5, "too few labels to leave some out", ha="center", va="center", color="0.4")
        left.set_axis_off()
    else:
        mean, std, y, _ = ranking.tested
        left.errorbar(mean, y, xerr=Z90 * std, fmt="o", ms=4, lw=0.8, color="C0", ecolor="0.75")
        ends = [float(min(mean.min(), y.min())), float(max(mean.max(), y.max()))]
        left.plot(ends, ends, color="0.6", lw=1, zorder=0)
        left.set_xlabel(f"predicted {ranking.label}, held out", parse_math=False)
        left.set_ylabel(f"measured {ranking.label}", parse_math=False)
        scores = ranking.scores[ranking.name]
        left.set_title(
            f"tau {scores.kendall_tau:.2f}, 90 % intervals hold {scores.coverage_90:.0%}", fontsize=10, parse_math=False
        )
    mean, std = ranking.mean[ranking.order], ranking.std[ranking.order]
    place = range(1, len(ranking) + 1)
    right.fill_between(place, mean - Z90 * std, mean + Z90 * std, color="C0", alpha=0.2, lw=0, label="90 % interval")
    right.plot(place, mean, color="C0", label="predicted")
    if best_measured is not None:
        right.axhline(best_measured, color="crimson", lw=1, ls="--", label="best measured")
    if len(ranking) > 50:
        right.set_xscale("log")
        right.xaxis.set_major_formatter("{x:,.0f}")
    right.set_xlabel("rank of the candidate")
    right.set_ylabel(f"predicted {ranking.label}", parse_math=False)
    right.legend(frameon=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=130)
