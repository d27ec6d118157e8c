r"""Draws the figures of "How it works": what becomes of labels, and what a set convolution does.

python docs/how/figures.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyg_nas_np.nn import SetConv

INK, BLUE, ORANGE, GREY = "#1b1f24", "#2166ac", "#b35806", "#e9edf2"


def box(axes: Axes, x: float, y: float, text: str, color: str = GREY) -> None:
    r"""Draws a step at the middle ``(x, y)``."""
    style = {"boxstyle": "round,pad=0.6", "facecolor": color, "edgecolor": INK, "linewidth": 0.8}
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color=INK, bbox=style)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    r"""Draws an arrow from one step to the next."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0})


def process(path: Path) -> None:
    r"""Draws the way from labels to a ranking."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, 9), ylim=(0.3, 3.3))
    axes.axis("off")
    box(axes, 0.9, 2.6, "labelled\narchitectures", "#d1e5f0")
    box(axes, 0.9, 0.8, "all other\narchitectures", "#d1e5f0")
    box(axes, 3.0, 2.6, "bank: Gaussian\nprocesses, trees")
    box(axes, 3.0, 0.8, "descriptors,\nencoder's score")
    box(axes, 5.3, 2.6, "leave-one-out errors,\nset convolutions", "#fddbc7")
    box(axes, 5.3, 0.8, "predictions of\nevery member")
    box(axes, 7.9, 1.7, "weights, correction,\nstacking: mean\nand deviation", "#fddbc7")
    for start, end in [
        ((1.6, 2.6), (2.2, 2.6)), ((1.6, 0.8), (2.2, 0.8)), ((3.0, 1.25), (3.0, 2.15)), ((3.8, 2.6), (4.3, 2.6)),
        ((3.7, 2.2), (4.6, 1.2)), ((3.8, 0.8), (4.5, 0.8)), ((6.3, 2.5), (6.9, 2.1)), ((6.1, 0.9), (6.9, 1.3)),
    ]:  # fmt: skip
        arrow(axes, start, end)
    axes.text(0.35, 3.25, "orange: meta-trained on synthesised tasks", color=ORANGE, fontsize=9, va="top")
    figure.savefig(path, dpi=160, facecolor="white")


def set_convolution(path: Path) -> None:
    r"""Draws a set of points, its density and its signal by a set convolution."""
    conv = SetConv(1, dim=1, lengthscale=0.08)
    x = torch.tensor([[0.1], [0.16], [0.22], [0.55], [0.8], [0.84]])
    y = torch.tensor([[0.3], [0.7], [0.6], [-0.5], [0.4], [0.1]])
    grid = torch.linspace(0, 1, 400).unsqueeze(1)
    with torch.no_grad():
        density, signal = conv(x, y, grid).unbind(dim=1)
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(grid, signal, color=BLUE, label="signal: weighted mean of the values")
    axes.plot(grid, density, color=ORANGE, linestyle="--", label="density of the points")
    axes.plot(x, y, "o", color=INK, label="a set of points")
    axes.set(xlabel="x")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160, facecolor="white")


def main(folder: Path) -> None:
    r"""Draws all figures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    process(folder / "process.png")
    set_convolution(folder / "set_convolution.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
