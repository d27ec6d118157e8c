r"""Extremely randomised trees that know what each would predict for a label without it, and age one by one."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.tree import BaseDecisionTree
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.ops import TreeEnsemble, tree_sum

LAG = 0.05
"""Trees that serve again lack at most this part of the labels."""

DRIFT = 0.1
"""What was fitted to labels before serves again only while their scores have moved by at most so much, in the root mean
square."""

Array: TypeAlias = "np.ndarray[Any, Any]"


class Forest:
    r"""The mean of extremely randomised trees, with predictions for each of its points as if it had not been there.

    Args:
        model: scikit-learn's, not fitted; with or without bootstraps.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, z = rng.normal(size=(30, 3)).astype("float32"), rng.normal(size=30)
        >>> forest = Forest(ExtraTreesRegressor(20, bootstrap=True, random_state=0)).fit(x, z)
        >>> forest.predict(torch.from_numpy(x)).shape, forest.leave_one_out().shape
        (torch.Size([30]), (30,))
    """

    def __init__(self, model: ExtraTreesRegressor) -> None:
        self.model = model

    def fit(self, x: Array, z: Array, start: Forest | None = None) -> Self:
        r"""Grows the trees.

        Args:
            x: ``[n, F]`` float32.
            z: ``[n]``.
            start: A forest of the same kind. If its points are the first of these, with nearly the same scores
                (:data:`DRIFT`), its youngest trees serve again: as many as leave none without more than :data:`LAG`
                of the labels if labels come like this. (default: none)
        """
        kept = [] if start is None else start._serving(x, z)
        model, seed = clone(self.model), self.model.random_state
        if kept:
            model.set_params(n_estimators=model.n_estimators - len(kept), random_state=seed + len(z))
        fresh = [] if model.n_estimators == 0 else _grown(model, x, z)
        self.x, self.z, self.trees = x, z, [*kept, *fresh]
        self._nodes = TreeEnsemble.from_sklearn(tree for tree, _ in self.trees)
        return self

    def _serving(self, x: Array, z: Array) -> list[tuple[BaseDecisionTree, Array]]:
        """Trees that may serve for other points, the youngest last."""
        before, count = len(self.z), len(z)
        if not continues(self.x, self.z, x, z):
            return []
        return self.trees[math.ceil(len(self.trees) * (count - before) / (LAG * count)) :]

    def to(self, device: torch.device) -> Self:
        r"""Returns the same trees for predictions of inputs on a device."""
        there = copy.copy(self)
        there._nodes = self._nodes.to(device)
        return there

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns the mean of the trees at ``x`` ``[m, F]`` float32, ``[m]`` float64."""
        return tree_sum(x, self._nodes) / len(self.trees)

    def leave_one_out(self) -> Array:
        r"""Returns what the trees predict for each of the ``n`` points without it, ``[n]`` float64.

        Trees that never saw a point predict it; of bagged trees, these only. Random splits hardly depend on a single
        point. Without it, its leaf is not cut off, so that it falls into what is beside.
        """
        total, votes = np.zeros(len(self.z)), np.zeros(len(self.z))
        for tree, drawn in self.trees:
            out = np.ones(len(self.z), dtype=bool)
            out[drawn] = False
            if out.any():
                total[out] += tree.tree_.predict(self.x[out])[:, 0]
            if not self.model.bootstrap:
                total[~out] += _without_itself(tree, self.x[~out], self.z[~out])
                out[:] = True
            votes += out
        # A point in every bootstrap is predicted by the mean of all.
        return np.where(votes > 0, total / np.maximum(votes, 1), self.z.mean())


def continues(x: Array, z: Array, more_x: Array, more_z: Array) -> bool:
    r"""Returns whether points with scores are the first of others, and their scores have moved little (:data:`DRIFT`).

    Args:
        x, more_x: ``[n, F]`` and ``[m, F]``.
        z, more_z: ``[n]`` and ``[m]``.

    Example:
        >>> x, z = np.eye(3), np.arange(3.0)
        >>> continues(x[:2], z[:2], x, z), continues(x, z, x[:2], z[:2])
        (True, False)
    """
    count = len(z)
    # Descriptors of a longer batch may differ in the last bits.
    if count > len(more_z) or not np.allclose(x, more_x[:count], rtol=1e-4, atol=1e-4):
        return False
    return bool(np.sqrt(np.square(z - more_z[:count]).mean()) <= DRIFT)


def _grown(model: ExtraTreesRegressor, x: Array, z: Array) -> list[tuple[BaseDecisionTree, Array]]:
    model.fit(x, z)
    return list(zip(model.estimators_, model.estimators_samples_, strict=True))


def _without_itself(tree: BaseDecisionTree, x: Array, z: Array) -> Array:
    nodes = tree.tree_
    left, right, feature, threshold = nodes.children_left, nodes.children_right, nodes.feature, nodes.threshold
    count, value = nodes.n_node_samples.astype(np.float64), nodes.value[:, 0, 0]
    sibling = np.full(nodes.node_count, -1)
    inner = left >= 0
    sibling[left[inner]], sibling[right[inner]] = right[inner], left[inner]
    leaf = nodes.apply(x)
    alone = (count[leaf] == 1) & (sibling[leaf] >= 0)
    node = np.where(alone, sibling[leaf], leaf)
    rows = np.arange(len(z))
    while (deeper := inner[node]).any():
        below = x[rows, np.maximum(feature[node], 0)] <= threshold[node]
        node = np.where(deeper, np.where(below, left[node], right[node]), node)
    others = np.maximum(count[leaf] - 1, 1)
    left_out: Array = np.where(alone, value[node], (count[leaf] * value[leaf] - z) / others)
    return left_out
