"""Trees that leave out single points, and serve again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor

from pyg_nas_np.convnp.forest import DRIFT, LAG, Forest
from pyg_nas_np.utils.testing import PRETENDED, PretendedDevice


def data(n: int = 25, columns: int = 4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, columns)).astype(np.float32), rng.normal(size=n)


def forest(trees: int, **options: object) -> Forest:
    return Forest(ExtraTreesRegressor(trees, random_state=0, **options))


def test_without_bagging_points_are_left_out_as_if_fitted_without():
    x, z = data()
    left_out = forest(400, max_features=1).fit(x, z).leave_one_out()
    again = []
    for i in range(25):
        rest = np.arange(25) != i
        other = ExtraTreesRegressor(400, max_features=1, random_state=1).fit(x[rest], z[rest])
        again.append(other.predict(x[[i]])[0])
    # Splits that do not look at the labels are the same with and without a point, but for chance.
    assert np.corrcoef(left_out, again)[0, 1] > 0.95
    assert np.abs(left_out - again).max() < 0.35
    assert np.abs(left_out - z).min() > 1e-6
    twice = forest(10).fit(x[[0, 0, 1]], z[:3]).leave_one_out()
    assert twice[:2].tolist() == pytest.approx([z[1], z[0]])


def test_bagged_trees_leave_out_as_scikit_learn_does():
    x, z = data()
    expected = ExtraTreesRegressor(100, bootstrap=True, oob_score=True, random_state=0).fit(x, z).oob_prediction_
    np.testing.assert_allclose(forest(100, bootstrap=True).fit(x, z).leave_one_out(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_the_oldest_trees_are_grown_anew(bootstrap: bool):
    x, z = data(60)
    generations, previous = [forest(40, bootstrap=bootstrap).fit(x[:50], z[:50])], None
    for count in range(51, 61):
        previous = generations[-1]
        generations.append(forest(40, bootstrap=bootstrap).fit(x[:count], z[:count], previous))
        anew = math.ceil(40 / (LAG * count))
        assert [tree for tree, _ in generations[-1].trees[:-anew]] == [tree for tree, _ in previous.trees[anew:]]
    # No tree is older than the labels that it may lack.
    first = {id(tree) for tree, _ in generations[0].trees}
    assert not first & {id(tree) for tree, _ in generations[math.ceil(LAG * 60)].trees}
    last = generations[-1]
    expected = np.mean([tree.predict(x) for tree, _ in last.trees], axis=0)
    np.testing.assert_allclose(last.predict(torch.from_numpy(x)).numpy(), expected)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_labels_that_old_trees_never_saw_are_left_out_by_them(bootstrap: bool):
    x, z = data(60)
    before = forest(40, bootstrap=bootstrap).fit(x[:59], z[:59])
    after = forest(40, bootstrap=bootstrap).fit(x, z, before)
    old = [(tree, drawn) for tree, drawn in after.trees if any(tree is other for other, _ in before.trees)]
    assert old
    assert all(drawn.max() < 59 for _, drawn in old)
    after.trees = old
    expected = np.mean([tree.predict(x[59:])[0] for tree, _ in old])
    assert after.leave_one_out()[59] == pytest.approx(expected)


def test_trees_serve_only_for_nearly_the_same_labels():
    x, z = data(60)
    before = forest(20).fit(x[:59], z[:59])
    for inputs, scores, kept in (
        (x, z, True),
        (x * np.float32(1.00001), z, True),
        (x, z + 0.5 * DRIFT, True),
        (x, z + 2 * DRIFT, False),
        (x[::-1], z[::-1], False),
        (x[:58], z[:58], False),
    ):
        after = forest(20).fit(np.ascontiguousarray(inputs), scores, before)
        assert len(after.trees) == 20
        assert kept == any(tree is other for tree, _ in after.trees for other, _ in before.trees)
    assert forest(20).fit(x[:59], z[:59], before).trees == before.trees


def test_two_fits_alike_give_the_same_trees():
    x, z = data(60)
    before = forest(20, bootstrap=True).fit(x[:59], z[:59])
    one, two = (forest(20, bootstrap=True).fit(x, z, before) for _ in range(2))
    np.testing.assert_allclose(one.leave_one_out(), two.leave_one_out())


def test_predictions_on_a_device_are_those_of_the_cpu():
    x, z = data()
    grown = forest(10).fit(x, z)
    with PretendedDevice():
        mean = grown.to(PRETENDED).predict(torch.from_numpy(x).to(PRETENDED))
        torch.testing.assert_close(mean.cpu(), grown.predict(torch.from_numpy(x)))
