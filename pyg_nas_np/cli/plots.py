r"""The figure of a ranking: predicted against true labels, and calibration."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pyg_nas_np.cli.report import frame
from pyg_nas_np.datasets import Split
from pyg_nas_np.predictors.evaluation import calibration_curve
from pyg_nas_np.utils import atomic_path, require


def plot_ranking(
    path: Path, mean: Tensor, std: Tensor, y: Tensor, split: Split, label: str, title: str, *, maximize: bool = True
) -> None:
    r"""Writes a PNG (extra ``viz``).

    Args:
        path: Target.
        mean: Predictions of all architectures, ``[A]``.
        std: Their standard deviations, ``[A]``.
        y: True labels, ``[A]``.
        split: Which of them were seen and which are tested.
        label: Name and unit of the labels.
        title: Title.
        maximize: Whether larger labels are better.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", "viz")
    figure = figure_module.Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    test, train = split.test, split.train
    widest = float(std[test].quantile(0.98))
    points = left.scatter(mean[test], y[test], c=std[test], s=4, vmax=widest, linewidths=0, rasterized=True)
    left.scatter(
        mean[train], y[train], s=26, facecolors="none", edgecolors="crimson", label=f"{train.numel()} labels seen"
    )
    low, high = frame(y[test], maximize)
    margin = 0.05 * (high - low)
    left.set_xlim(low - margin, high + margin)
    left.set_ylim(low - margin, high + margin)
    left.plot([low, high], [low, high], color="0.6", lw=1, zorder=0)
    left.set_xlabel(f"predicted {label}", parse_math=False)
    left.set_ylabel(f"measured {label}", parse_math=False)
    left.legend(loc="lower right", frameon=False)
    figure.colorbar(points, ax=left, extend="max", label="predicted standard deviation")
    nominal, observed = calibration_curve(mean[test], std[test], y[test])
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
