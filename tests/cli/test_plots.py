"""The figures of rankings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pyg_nas_np.cli.plots import plot_own_ranking, plot_ranking
from pyg_nas_np.cli.ranking import HeldOut, Ranking
from pyg_nas_np.datasets import TableDataset
from pyg_nas_np.predictors import Architectures, RidgePredictor
from pyg_nas_np.predictors.evaluation import cross_validate
from pyg_nas_np.spaces import Integer, ParameterSpace


@pytest.fixture
def ranking():
    space = ParameterSpace(depth=Integer(1, 40))
    data = TableDataset(space, [{"depth": d, "$y_{": d + 1.0} for d in range(1, 41)], "$y_{")
    scores, mean, std = cross_validate(RidgePredictor(space), data, data.group)
    predictor = RidgePredictor(space).fit(data[:5])
    held_out = HeldOut(mean, std, data.y, "all")
    archs, seen = Architectures(space, data.archs), torch.arange(5)
    return Ranking(archs, predictor, "ridge", mean, std, data.y, seen, "$y_{", held_out, {"ridge": scores})


def test_a_figure_is_written(ranking, tmp_path):
    pytest.importorskip("matplotlib")
    plot_ranking(tmp_path / "ranking.png", ranking, "title")
    plot_own_ranking(tmp_path / "own.png", ranking, 41.0, "title $")
    for file in tmp_path.iterdir():
        assert file.read_bytes()[:4] == b"\x89PNG"
    assert {file.name for file in tmp_path.iterdir()} == {"ranking.png", "own.png"}


def test_without_a_test_there_is_still_a_figure(ranking, tmp_path):
    pytest.importorskip("matplotlib")
    few = replace(ranking, tested=None, scores={})
    plot_own_ranking(tmp_path / "own.png", few, 41.0, "title")
    assert (tmp_path / "own.png").exists()
