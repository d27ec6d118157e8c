"""What is known of a ranking."""

from __future__ import annotations

import torch

from pyg_nas_np.cli.ranking import Ranking, configuration_texts, cost_text, value_text
from pyg_nas_np.predictors import Architectures, RidgePredictor
from pyg_nas_np.spaces import Integer, ParameterSpace, Repeat

SPACE = ParameterSpace(depth=Integer(1, 4), layers=Repeat({"width": [8, 16], "kernel": [3, 5]}, 1, 3))


def made(maximize=True, others=0):
    archs = [{"depth": d, "layers": [{"width": 8, "kernel": 3}] * (1 + d % 2)} for d in (1, 2, 3, 4)]
    predictor = RidgePredictor(SPACE, maximize=maximize).fit(archs, [1.0, 2.0, 3.0, 4.0])
    y = torch.tensor([1.0, float("nan"), 3.0, 2.0])
    mean = torch.tensor([2.0, 1.0, 3.0, 2.0])
    given = Architectures(SPACE, [SPACE.check(arch) for arch in archs])
    return Ranking(given, predictor, "ridge", mean, mean, y, torch.tensor([0]), "y", others=others)


def test_order_and_true_ranks_follow_the_direction():
    assert made().order.tolist() == [2, 0, 3, 1]
    assert made(maximize=False).order.tolist() == [1, 0, 3, 2]
    assert made().true_ranks.tolist() == [3, 4, 1, 2]
    assert made(maximize=False).true_ranks.tolist() == [1, 4, 3, 2]


def test_what_was_left_out_counts():
    assert (len(made(others=7)), made(others=7).total) == (4, 11)


def test_labels_beyond_the_given_are_truth():
    ranking = made()
    assert ranking.has_truth
    known = torch.tensor([0, 2, 3])
    fields = (ranking.archs, ranking.predictor, "ridge", ranking.mean, ranking.std, ranking.y, known, "y")
    assert not Ranking(*fields).has_truth


def test_rows_are_counted_from_one_and_indices_are_official(toy_space):
    name, ids = made().ids
    assert (name, ids.tolist()) == ("row", [1, 2, 3, 4])
    index = torch.tensor([5, 3])
    ridge = RidgePredictor(toy_space).fit(index, [1.0, 2.0])
    values = torch.zeros(2)
    ranking = Ranking(Architectures(toy_space, index), ridge, "r", values, values, values, index[:0], "y")
    assert ranking.ids[0] == "index"
    assert ranking.ids[1].tolist() == [5, 3]
    assert ranking.names(torch.tensor([1])) == [toy_space.to_str(toy_space[3])]


def test_texts_for_people():
    ranking = made()
    assert ranking.names(torch.tensor([0])) == ["depth=1 layers=[8/3 8/3]"]
    assert configuration_texts(SPACE, list(ranking.archs)[3:]) == ["depth=4 layers=[8/3]"]
    assert [cost_text(value) for value in (7.0, 1234.5, 0.012345, float("nan"))] == ["7", "1,234", "0.01235", "–"]
    assert [value_text(value) for value in (True, None, "relu", 0.1, [3, 5])] == ["True", "–", "relu", "0.1", "[3 5]"]
