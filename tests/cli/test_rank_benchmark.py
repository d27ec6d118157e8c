"""Rankings of benchmarks; the command is tried in test_rank.py."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np import NASBench201
from pyg_nas_np.cli.rank_benchmark import best_table, data_name, rank_by_own_labels, rank_draw, write_ranking
from pyg_nas_np.utils import MissingLabelsError


@pytest.fixture(scope="module")
def data(labelled_root):
    return NASBench201(str(labelled_root), source="compact-table")


def test_the_labels_that_were_not_given_are_tested(data):
    ranking = rank_draw(data, ["ridge"], 30, "class", 0, None)
    assert ranking.seen.numel() == 30
    assert ranking.tested.mean.numel() == ranking.tested.y.numel() > 10_000
    assert ranking.has_truth
    assert set(ranking.costs) == {"parameters"}
    assert data_name(data) == "nasbench201 cifar10"
    assert best_table(ranking, 4).row_count == 4


def test_own_labels_are_averaged(data, tmp_path):
    path = tmp_path / "own.csv"
    space = data.space
    path.write_text("arch,label\n" + "".join(f"{space[i]},{50 + i + k}\n" for i in range(8) for k in (0, 2)))
    ranking = rank_by_own_labels(data, path, "ridge", None)
    assert ranking.y[:8].tolist() == [51.0 + i for i in range(8)]
    assert not ranking.has_truth
    assert ranking.seen.tolist() == list(range(8))
    write_ranking(tmp_path / "r.csv", ranking)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert len(lines) == 15626
    assert lines[0] == "rank,index,arch,predicted,std,measured,in_context"


def test_without_labels_there_is_nothing_to_rank_by(data, monkeypatch):
    monkeypatch.setattr(type(data), "label_mask", torch.zeros(len(data), dtype=torch.bool))
    with pytest.raises(MissingLabelsError, match="has no labels to rank by"):
        rank_draw(data, ["ridge"], 5, "index", 0, None)


@pytest.mark.parametrize("maximize", [None, False])
def test_no_label_is_tested_in_standard_scores(data, maximize):
    ranking = rank_draw(data, ["bank"], 0, "class", 0, maximize)
    assert not ranking.predictor.labelled
    assert ranking.seen.numel() == 0
    assert ranking.tested.y.numel() == int(data.label_mask.sum())
    assert abs(float(ranking.tested.y.mean())) < 0.01
    assert ranking.label == "standard score of valid_accuracy@200"
    score = ranking.scores["bank"]
    assert score.kendall_tau > 0.4 if maximize is None else score.kendall_tau < -0.4
    assert torch.equal(ranking.y, data.y)
