"""The figures of learning curves."""

from __future__ import annotations

import numpy as np
import pytest

from pyg_nas_np.cli.curve_plots import plot_predictions, plot_running, plot_stops
from pyg_nas_np.curves.data import LearningCurves

pytest.importorskip("matplotlib")
CURVES = LearningCurves([[0.1, 0.2, 0.3], [0.2, 0.4, float("nan")], [0.1, -float("inf"), float("nan")]])


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plot_predictions(path, np.array([0.1, 0.2]), np.array([0.0, 0.1]), np.array([0.1, 0.3]), "title"),
        lambda path: plot_running(path, CURVES, np.array([0.5, 0.1]), np.array([0.1, 0.1]), "title"),
        lambda path: plot_stops(path, CURVES, np.array([3, 2, 1]), "title"),
    ],
)
def test_a_figure_is_written(draw, tmp_path):
    draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
