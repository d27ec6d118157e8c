r"""The figures of learning curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.utils import atomic_path, require

MOST = 200
"""Curves that one figure can show."""


def plot_predictions(path: Path, predicted: Floats, std: Floats, final: Floats, title: str) -> None:
    r"""Draws predicted against true final values (extra ``viz``).

    Args:
        path: Target.
        predicted: ``[n]``.
        std: ``[n]``.
        final: ``[n]``.
        title: Title.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "viz").Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(predicted, final, xerr=std, fmt="o", ms=3, lw=0.4, alpha=0.7)
    ends = [float(min(predicted.min(), final.min())), float(max(predicted.max(), final.max()))]
    axes.plot(ends, ends, color="0.6", lw=1, zorder=0)
    axes.set_xlabel("predicted final value")
    axes.set_ylabel("true final value")
    axes.set_title(title, fontsize=10, parse_math=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=130)


def plot_running(path: Path, curves: LearningCurves, mean: Floats, std: Floats, title: str) -> None:
    r"""Draws finished curves in grey, running ones in colour, and where these are predicted to end (extra ``viz``).

    Args:
        path: Target.
        curves: All curves.
        mean: Predicted final values of those that are not finished, in their order.
        std: Standard deviations of these.
        title: Title.
    """
    figure = require("matplotlib.figure", "viz").Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    finished, running = np.flatnonzero(curves.finished), np.flatnonzero(~curves.finished)
    shown = np.where(curves.mask, curves.values, np.nan)
    for i in finished[:MOST]:
        axes.plot(curves.epochs, shown[i], color="0.8", lw=0.7)
    for i, m, s in zip(running[:MOST].tolist(), mean.tolist(), std.tolist(), strict=False):
        (line,) = axes.plot(curves.epochs, shown[i], lw=1.2)
        axes.errorbar(curves.epochs[-1], m, yerr=s, fmt="o", ms=4, color=line.get_color())
    axes.set_xlabel("epoch")
    axes.set_ylabel("value")
    axes.set_title(title, fontsize=10, parse_math=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=130)


def plot_stops(path: Path, curves: LearningCurves, columns: NDArray[np.int64], title: str) -> None:
    r"""Draws curves as far as they were trained, with a dot where one was stopped (extra ``viz``).

    Args:
        path: Target.
        curves: Curves.
        columns: Columns that each was trained, ``[n]``.
        title: Title.
    """
    figure = require("matplotlib.figure", "viz").Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    total = len(curves.epochs)
    shown = np.where(curves.mask, curves.values, np.nan)
    for i, end in enumerate(columns[:MOST].tolist()):
        stopped = end < total
        axes.plot(curves.epochs[:end], shown[i, :end], color="tab:red" if stopped else "tab:blue", lw=0.7, alpha=0.6)
        if stopped:
            axes.plot(curves.epochs[end - 1], shown[i, end - 1], ".", color="tab:red", ms=4)
    axes.set_xlabel("epoch")
    axes.set_ylabel("value")
    axes.set_title(title, fontsize=10, parse_math=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=130)
