r"""The base predictors for spaces that are no benchmark's cells: configurations, lists of layers, any graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.tree import BaseDecisionTree
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.features.space import Families
from pyg_nas_np.predictors.gaussian_process import GaussianProcess
from pyg_nas_np.predictors.kernels import ARD, Kernel, Linear, LogPrior, Stationary, Tied
from pyg_nas_np.utils import map_chunks

# Chosen on 22 tables of 10 families; twice or half of them have no winner.
VARIANCE = LogPrior(-1.0, 1.2)
"""Prior of the variance of every kernel."""

NOISE = LogPrior(math.log(0.1), 1.0)
"""Prior of the noise variance."""

SIZE_SLOPE = 0.25
"""Slope of the scores along the standardised sizes that is expected before any label; the labels set another one."""

LEADING_COORDINATES = 16
"""Leading coordinates of the random networks that trees split on."""

MAX_ITER = 40
"""Iterations of each fit."""


class GeneralBank:
    r"""Predictors of different minds about one context, for any space, with their leave-one-out errors.

    Where architectures have a structure (a list of layers, a graph):

    - **additive**: a Gaussian process that sums tied kernels over parameters and positions, others over summaries, one
      kernel over the whole record, one a group of graph descriptors, random networks and sizes;
    - **product**: tied kernels over parameters, a product over all columns with a length-scale each, random networks
      and sizes;
    - **network product**: a product over all columns, and random networks;
    - **trees**: bagged extremely randomised trees on all columns and leading random networks.

    Where they are single parameters:

    - **product**: the same as above;
    - **plain product**: a product over all columns;
    - **parameter product**: a product over the parameters alone;
    - **trees**: extremely randomised trees on the parameters, without bagging.

    Tied kernels share one length-scale and one variance (:class:`~pyg_nas_np.predictors.kernels.Tied`). Members with a
    linear kernel of the sizes have a prior mean that rises along them by :data:`SIZE_SLOPE`.

    Args:
        families: Columns by what they tell.
        max_iter: Iterations of each fit.
        num_trees: Number of trees.

    Raises:
        ValueError: If there is no column.

    Shapes:
        - **moments:** ``[n, K, 2]``, mean and log standard deviation by each of the ``K`` members.

    Example:
        >>> x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
        >>> families = Families([[0], [1, 2]], [], [], [], [], structured=False)
        >>> bank = GeneralBank(families).fit(x[:20], x[:20, 0].sin())
        >>> bank.members, bank.predict(x[20:]).shape
        (['product', 'plain product', 'parameter product', 'trees'], torch.Size([10, 4, 2]))
    """

    def __init__(self, families: Families, *, max_iter: int = MAX_ITER, num_trees: int = 100) -> None:
        if not families.everything:
            raise ValueError("no column varies over the space; there is nothing to learn from")
        self.families = families
        self.max_iter, self.num_trees = max_iter, num_trees

    @property
    def members(self) -> list[str]:
        r"""Names of the ``K`` members."""
        return [*self._recipes, "trees"]

    @property
    def _recipes(self) -> dict[str, dict[str, Kernel]]:
        """Kernels of each Gaussian process, by name."""
        families = self.families
        parameters, sizes = families.parameters, _linear("sizes", families.sizes)
        tied = {"parameters": Tied(parameters, variance=VARIANCE)} if parameters else {}
        networks, product = _linear("networks", families.networks), _product("all", families.everything)
        if not families.structured:
            own = _product("parameters", families.records if not parameters else _flat(parameters))
            recipes = {"product": tied | product | sizes, "plain product": product, "parameter product": own or product}
            return recipes
        parts: dict[str, Kernel] = dict(tied)
        if families.summaries:
            parts["summaries"] = Tied(families.summaries, variance=VARIANCE)
        if families.records:
            parts["record"] = Stationary(families.records, variance=VARIANCE)
        parts |= {f"graph {i}": Stationary(group, variance=VARIANCE) for i, group in enumerate(families.graph)}
        return {
            "additive": parts | networks | sizes,
            "product": tied | product | networks | sizes,
            "network product": product | networks,
        }

    @property
    def split_columns(self) -> list[int]:
        r"""Columns that the trees split on."""
        families = self.families
        if families.structured or not families.parameters:
            return [*families.everything, *families.networks[:LEADING_COORDINATES]]
        # A size says again what parameters say, in a column that is drawn as often as theirs.
        return _flat(families.parameters)

    def fit(self, x: Tensor, z: Tensor, thetas: Mapping[str, Tensor] | None = None) -> Self:
        r"""Fits every member.

        Args:
            x: Descriptors of the context, ``[n, F]``.
            z: Its scores, ``[n]``.
            thetas: Hyperparameters of the Gaussian processes, where they are known already.
        """
        recipes = self._recipes

        def fitted(name: str) -> GaussianProcess:
            kernels = recipes[name]
            gp = GaussianProcess(kernels, noise=NOISE, mean=self._mean(kernels), max_iter=self.max_iter)
            return gp.fit(x, z) if thetas is None else gp.condition(x, z, thetas[name])

        self.gps = dict(zip(recipes, map_chunks(fitted, recipes), strict=True))
        inputs, targets = self._tree_inputs(x), z.double().numpy()
        bagged = self.families.structured
        self.trees = ExtraTreesRegressor(self.num_trees, bootstrap=bagged, random_state=0)
        self.trees.fit(inputs, targets)
        left_out = torch.from_numpy(leave_one_out(self.trees, inputs, targets))
        self._tree_noise = float((left_out - z).square().mean())
        moments = [_moments(*gp.leave_one_out()) for gp in self.gps.values()]
        self.context = torch.stack([*moments, self._tree_moments(left_out)], dim=1).float()
        return self

    def predict(self, x: Tensor) -> Tensor:
        r"""Returns the moments of the targets ``x`` ``[m, F]``, ``[m, K, 2]``."""
        moments = list(map_chunks(lambda gp: _moments(*gp.predict(x)), self.gps.values()))
        inputs = self._tree_inputs(x)
        # What the forest's own method adds to its trees costs more than the trees.
        vote = np.mean([tree.tree_.predict(inputs)[:, 0] for tree in self.trees.estimators_], axis=0)
        return torch.stack([*moments, self._tree_moments(torch.from_numpy(vote))], dim=1).float()

    @property
    def gp(self) -> GaussianProcess:
        r"""The Gaussian process whose correlations samples have."""
        return self.gps["product"]

    def sample(self, x: Tensor, num: int, generator: torch.Generator) -> Tensor:
        r"""Draws joint, standardised deviations from the mean at ``x`` ``[m, F]``: ``[num, m]``."""
        return standard_deviations(self.gp, x, num, generator)

    def state_dict(self) -> dict[str, Tensor]:
        r"""Returns the hyperparameters of the Gaussian processes; with the context, all that :meth:`fit` needs."""
        return {name: gp.theta for name, gp in self.gps.items()}

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean at ``x`` ``[m, F]`` by the labels of other tasks, of which there are none: zeros."""
        return torch.zeros(x.size(0), dtype=torch.float64, device="cpu")

    def _mean(self, kernels: Mapping[str, Kernel]) -> Callable[[Tensor], Tensor] | None:
        sizes = self.families.sizes
        return (lambda x: SIZE_SLOPE * x[:, sizes].mean(dim=1)) if "sizes" in kernels else None

    def _tree_inputs(self, x: Tensor) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(x[:, self.split_columns].float().numpy())

    def _tree_moments(self, mean: Tensor) -> Tensor:
        return torch.stack([mean, torch.full_like(mean, 0.5 * math.log(self._tree_noise + 1e-6))], dim=1)


def standard_deviations(gp: GaussianProcess, x: Tensor, num: int, generator: torch.Generator) -> Tensor:
    r"""Draws functions from a posterior, as deviations from its mean in its standard deviations: ``[num, m]`` float32.

    Args:
        gp: The Gaussian process.
        x: Where, ``[m, F]``.
        num: Number of functions.
        generator: Source of randomness.
    """
    draws = gp.sample(x, num, generator)
    mean = gp.predict(x, False)[0]
    # Of the function, not of a measurement: without noise.
    return ((draws - mean) / gp.variance(x).clamp_min(1e-12).sqrt()).float()


def mixture(moments: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns mean and standard deviation of the equal mixture of members, ``[m]`` each, by the law of total variance.

    Args:
        moments: ``[m, K, 2]``, mean and log standard deviation by each of ``K`` members.

    Example:
        >>> mixture(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
        (tensor([0.]), tensor([1.4142]))
    """
    means, log_stds = moments.unbind(dim=2)
    variance = (2.0 * log_stds).exp().mean(dim=1) + means.var(dim=1, unbiased=False)
    return means.mean(dim=1), variance.sqrt()


def leave_one_out(
    forest: ExtraTreesRegressor, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    r"""Returns what trees predict for each of their ``n`` points without it, ``[n]`` float64; for bagged trees by those
    that did not draw it.

    Random splits hardly depend on a single point. Without it, its leaf is not cut off, so that it falls into what is
    beside.

    Args:
        forest: Fitted extremely randomised trees.
        x: ``[n, F]`` float32.
        z: ``[n]``.
    """
    total, votes = np.zeros(len(z)), np.zeros(len(z))
    for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        if forest.bootstrap:
            out = np.ones(len(z), dtype=bool)
            out[drawn] = False
            total[out] += tree.tree_.predict(x[out])[:, 0] if out.any() else 0.0
            votes += out
        else:
            total += _without_itself(tree, x, z)
            votes += 1
    # A point in every bootstrap is predicted by the mean of all.
    return np.where(votes > 0, total / np.maximum(votes, 1), z.mean())


def _without_itself(tree: BaseDecisionTree, x: np.ndarray[Any, Any], z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
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
    left_out: np.ndarray[Any, Any] = np.where(alone, value[node], (count[leaf] * value[leaf] - z) / others)
    return left_out


def _moments(mean: Tensor, std: Tensor | None) -> Tensor:
    assert std is not None
    return torch.stack([mean, std.log()], dim=1)


def _linear(name: str, columns: list[int]) -> dict[str, Kernel]:
    return {name: Linear(columns, VARIANCE)} if columns else {}


def _product(name: str, columns: list[int]) -> dict[str, Kernel]:
    return {name: ARD(columns, variance=VARIANCE)} if columns else {}


def _flat(blocks: list[list[int]]) -> list[int]:
    return list(dict.fromkeys(column for block in blocks for column in block))
