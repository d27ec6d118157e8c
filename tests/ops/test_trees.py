"""Sums of decision trees, against scikit-learn's own predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, library

from pyg_nas_np import ops
from pyg_nas_np.ops import cpu
from pyg_nas_np.ops.trees import TreeEnsemble, tree_sum

BACKENDS = ["reference", *(["cpu"] if cpu.is_available() else [])]


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def forest(columns: int = 7, trees: int = 10, seed: int = 0, **options: object) -> ExtraTreesRegressor:
    x = drawn(60, columns, seed)
    y = x[:, 0] + x.square().sum(dim=1)
    return ExtraTreesRegressor(trees, random_state=seed, **options).fit(x.numpy(), y.numpy())


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25)
@given(rows=st.integers(0, 150), columns=st.integers(1, 9), trees=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_sum_is_that_of_scikit_learn(backend: str, rows: int, columns: int, trees: int, seed: int):
    model, x = forest(columns, trees, seed), drawn(rows, columns, seed + 1)
    with ops.backend(backend):
        total = tree_sum(x, TreeEnsemble.from_sklearn(model.estimators_))
    expected = sum((tree.predict(x.numpy()) for tree in model.estimators_ if rows), np.zeros(rows))
    torch.testing.assert_close(total, torch.from_numpy(expected))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"max_leaf_nodes": 9}, {"max_depth": 1}])
def test_trees_grown_in_any_order(backend: str, options: dict[str, object]):
    # With max_leaf_nodes, scikit-learn numbers nodes by their gain.
    model, x = forest(**options), drawn(500, 7, 5)
    with ops.backend(backend):
        mean = tree_sum(x, TreeEnsemble.from_sklearn(model.estimators_)) / 10
    torch.testing.assert_close(mean, torch.from_numpy(model.predict(x.numpy())))


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_at_a_threshold_go_where_scikit_learn_sends_them(backend: str):
    # The middle of two neighbouring float32 numbers is no float32 number.
    low = np.float32(1.0)
    x = torch.tensor([[low], [np.nextafter(low, np.float32(2))], [np.nextafter(low, np.float32(0))]])
    tree = DecisionTreeRegressor().fit(x.numpy(), [0.0, 1.0, 2.0])
    with ops.backend(backend):
        total = tree_sum(x, TreeEnsemble.from_sklearn([tree]))
    assert total.tolist() == tree.predict(x.numpy()).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tree_without_a_split(backend: str):
    tree = DecisionTreeRegressor().fit([[0.0], [1.0]], [3.0, 3.0])
    with ops.backend(backend):
        assert tree_sum(drawn(5, 1), TreeEnsemble.from_sklearn([tree])).tolist() == [3.0] * 5


@pytest.mark.skipif(not cpu.is_available(), reason="installed without a C++ compiler")
def test_any_number_of_threads():
    trees, x = TreeEnsemble.from_sklearn(forest(trees=50).estimators_), drawn(20_000, 7)
    threads = torch.get_num_threads()
    with ops.used_backends() as used:
        try:
            torch.set_num_threads(1)
            one = tree_sum(x, trees)
            torch.set_num_threads(3)
            three = tree_sum(x, trees)
        finally:
            torch.set_num_threads(threads)
    assert used == {"cpu"}
    torch.testing.assert_close(one, three)


def test_boosted_trees_of_rows_that_are_a_view():
    x = drawn(80, 6)
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(x[:, :3].numpy(), x[:, 0].numpy())
    total = 0.1 * tree_sum(x[:, :3], TreeEnsemble.from_sklearn(model.estimators_[:, 0]))
    expected = model.predict(x[:, :3].numpy()) - float(model.init_.constant_[0, 0])
    torch.testing.assert_close(total, torch.from_numpy(expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str):
    *tables, _ = TreeEnsemble.from_sklearn(forest().estimators_)
    library.opcheck(torch.ops.pyg_nas_np.tree_sum.default, (drawn(9, 7), *tables, backend))


def test_tables_move_to_a_device():
    trees = TreeEnsemble.from_sklearn(forest().estimators_).to(torch.device("meta"))
    total = tree_sum(drawn(9, 7).to("meta"), trees)
    assert (total.device.type, total.shape, trees.num_columns) == ("meta", (9,), 7)


def test_bad_input():
    trees = TreeEnsemble.from_sklearn(forest().estimators_)
    with pytest.raises(TypeError, match=r"'x' must be a float32 tensor but is torch\.float64"):
        tree_sum(drawn(2, 7).double(), trees)
    with pytest.raises(ValueError, match=r"must have shape \[B, 7\], as the trees were fitted, but has shape \[2, 6\]"):
        tree_sum(drawn(2, 6), trees)
    with pytest.raises(ValueError, match="'x' is on meta but the trees are on cpu"):
        tree_sum(drawn(2, 7).to("meta"), trees)
    with pytest.raises(ValueError, match="there is no tree to sum"):
        TreeEnsemble.from_sklearn([])
