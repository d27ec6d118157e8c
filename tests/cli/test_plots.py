"""The figure of a ranking."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np.cli.plots import plot_ranking
from pyg_nas_np.datasets import Split


def test_a_figure_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    y = torch.linspace(10.0, 90.0, 40)
    split = Split(torch.arange(5), torch.arange(0), torch.arange(5, 40))
    plot_ranking(tmp_path / "ranking.png", y + 1, torch.ones(40), y, split, "accuracy (percent)", "title")
    assert (tmp_path / "ranking.png").read_bytes()[:4] == b"\x89PNG"
    assert [file.name for file in tmp_path.iterdir()] == ["ranking.png"]
