r"""The base predictors for spaces that are no benchmark's cells: configurations, lists of layers, any graphs."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from pyg_nas_np.convnp.bank import Bank
from pyg_nas_np.features.space import Families
from pyg_nas_np.predictors.kernels import ARD, Kernel, Linear, LogPrior, Stationary, Tied

# Chosen on 22 tables of 10 families; twice or half of them have no winner.
VARIANCE = LogPrior(-1.0, 1.2)
"""Prior of the variance of every kernel."""

NOISE = LogPrior(math.log(0.1), 1.0)
"""Prior of the noise variance."""

SIZE_SLOPE = 0.25
"""Slope of the scores along the standardised sizes that is expected before any label; the labels set another one."""

SCORE_SLOPE = 0.5
"""The same along the mean of zero-cost scores."""

LEADING_COORDINATES = 16
"""Leading coordinates of the random networks that trees split on."""

MAX_ITER = 40
"""Iterations of each fit."""


class GeneralBank(Bank):
    r"""The base predictors for any space.

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

    Zero-cost scores, where there are any, are for **additive** and **product** where there are graphs, which tell as
    much from few labels on, and for all members elsewhere. Gaussian processes have a linear kernel of them; their prior
    mean rises along the mean score by :data:`SCORE_SLOPE`.

    Scores by encoders that were trained on other spaces are for all members but **additive**: Gaussian processes have a
    linear kernel of them, whose slope the labels find, and trees split on them. What never sees them keeps the members
    different where labels are few.

    Args:
        families: Columns by what they tell.
        max_iter: Iterations of each fit.
        num_trees: Number of trees.

    Raises:
        ValueError: If there is no column.

    Example:
        >>> import torch
        >>> x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
        >>> families = Families([[0], [1, 2]], [], [], [], [], structured=False)
        >>> bank = GeneralBank(families).fit(x[:20], x[:20, 0].sin())
        >>> bank.members, bank.predict(x[20:]).shape
        (['product', 'plain product', 'parameter product', 'trees'], torch.Size([10, 4, 2]))
    """

    noise = NOISE
    sampled = "product"

    def __init__(self, families: Families, *, max_iter: int = MAX_ITER, num_trees: int = 100) -> None:
        super().__init__(max_iter=max_iter, num_trees=num_trees)
        if not families.everything:
            raise ValueError("no column varies over the space; there is nothing to learn from")
        self.families = families

    @cached_property
    def recipes(self) -> dict[str, dict[str, Kernel]]:
        r"""Kernels of each Gaussian process, by name."""
        encoded = _linear("encoded", list(self.families.encoded))
        return {
            member: kernels if member == "additive" else kernels | encoded
            for member, kernels in self._own_recipes().items()
        }

    def _own_recipes(self) -> dict[str, dict[str, Kernel]]:
        families = self.families
        parameters, sizes = families.parameters, _linear("sizes", families.sizes)
        tied = {"parameters": Tied(parameters, variance=VARIANCE)} if parameters else {}
        networks, scores = _linear("networks", families.networks), _linear("scores", list(families.scores))
        product = _product("all", families.everything)
        if not families.graph:
            product = _product("all", [*families.everything, *families.scores]) | scores
        if not families.structured:
            own = _product("parameters", families.records if not parameters else _flat(parameters))
            return {
                "product": tied | product | sizes,
                "plain product": product,
                "parameter product": own | scores if own else product,
            }
        parts: dict[str, Kernel] = dict(tied)
        if families.summaries:
            parts["summaries"] = Tied(families.summaries, variance=VARIANCE)
        if families.records:
            parts["record"] = Stationary(families.records, variance=VARIANCE)
        parts |= {f"graph {i}": Stationary(group, variance=VARIANCE) for i, group in enumerate(families.graph)}
        return {
            "additive": parts | networks | sizes | scores,
            "product": tied | product | networks | sizes | scores,
            "network product": product | networks,
        }

    @property
    def split_columns(self) -> list[int]:
        r"""Columns that the trees split on."""
        families = self.families
        scores = [*([] if families.graph else families.scores), *families.encoded]
        if families.structured or not families.parameters:
            return [*families.everything, *families.networks[:LEADING_COORDINATES], *scores]
        # A size says again what parameters say, in a column that is drawn as often as theirs.
        return [*_flat(families.parameters), *scores]

    @property
    def columns(self) -> dict[str, Any]:
        r"""The families of columns."""
        return {"families": self.families._asdict()}

    def _new_trees(self) -> ExtraTreesRegressor:
        return ExtraTreesRegressor(self.num_trees, bootstrap=self.families.structured, random_state=0)

    def prior(self, x: Tensor) -> Tensor:
        r"""Returns the prior mean of the trees at ``x`` ``[m, F]``, ``[m]``; zero without scores, or with graphs."""
        return super().prior(x) if self.families.graph else self._along_scores(x)

    def _prior_of(self, member: str, x: Tensor) -> Tensor:
        recipe = self.recipes[member]
        mean = self._along_scores(x) if "scores" in recipe else super().prior(x)
        return mean + SIZE_SLOPE * x[:, self.families.sizes].double().mean(dim=1) if "sizes" in recipe else mean

    def _along_scores(self, x: Tensor) -> Tensor:
        scores = list(self.families.scores)
        return SCORE_SLOPE * x[:, scores].double().mean(dim=1) if scores else super().prior(x)


def _linear(name: str, columns: list[int]) -> dict[str, Kernel]:
    return {name: Linear(columns, VARIANCE)} if columns else {}


def _product(name: str, columns: list[int]) -> dict[str, Kernel]:
    return {name: ARD(columns, variance=VARIANCE)} if columns else {}


def _flat(blocks: list[list[int]]) -> list[int]:
    return list(dict.fromkeys(column for block in blocks for column in block))
